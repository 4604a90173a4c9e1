"""Benchmarks on a graphics card, and their dry run on the processor: ``python -m bench.cuda``."""
