"""The command `hesskern`."""
