"""The answers: for a matrix, a list of eigenvalues, a single number, a vector, and what cannot be compared."""
