"""The search for what happened, for a matrix, a list of eigenvalues and a single number."""
