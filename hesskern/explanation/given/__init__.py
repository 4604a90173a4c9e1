"""The candidate, the question, and everything that can have happened to a Hessian."""
