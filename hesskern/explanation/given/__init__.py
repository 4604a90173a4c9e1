"""What was given: the candidate, the question, and what can have happened to a Hessian."""
