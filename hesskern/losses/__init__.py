"""Losses: the functions that training minimises."""
