"""A linear network as a value, its parameters and their selection."""
