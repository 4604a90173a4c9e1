"""Exact reductions: smaller problems with the same values, and how their results are transformed back."""
