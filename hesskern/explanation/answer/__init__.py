"""What is said of a matrix, of eigenvalues, of one number and of what is none of them."""
