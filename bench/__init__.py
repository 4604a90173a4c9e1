"""Benchmarks of hesskern against its peers, as ratios measured in one interleaved run: ``python -m bench run``."""
