"""The calls of other libraries, with the same arguments and the same results, exact and without a backward pass.

Each module is named after what it stands in for; nothing is loaded before it is imported.
"""
