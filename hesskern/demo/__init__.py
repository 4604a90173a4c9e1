"""The case that hesskern started with, step by step."""
