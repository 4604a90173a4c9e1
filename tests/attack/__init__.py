"""The permanent adversary: random problems, malformed calls, damaged files, kills and threads against every door.

``make attack`` runs it; docs/attack.md says what is attacked and what counts as wrong. Nothing here imports the
package's own formulas: `attack.oracle` computes what is right, in extended precision, from the definition.
"""
