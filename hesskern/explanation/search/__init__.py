"""The search for what did happen: to a matrix, to eigenvalues, to one number."""
