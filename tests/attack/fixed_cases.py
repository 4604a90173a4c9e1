"""Cases that once were wrong: the ordinary suite runs them.

A seed means the problem that today's generator makes of it: who changes the generator looks for new seeds of the same
kind (``make attack`` on the revision before the repair finds them), or writes the arrays down in a test of its own.
"""

#: What was wrong, and the cases.
FIXED: dict[str, tuple[str, ...]] = {}
