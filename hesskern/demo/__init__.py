"""The case that hesskern began with, told step by step."""
