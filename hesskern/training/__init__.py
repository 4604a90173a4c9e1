"""Training with SGD, and what is recorded along it."""
