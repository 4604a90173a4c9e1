"""Training with SGD, and recorded quantities."""
