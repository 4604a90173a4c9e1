"""The package `attack`, whose files are those of tests/attack.

Only this folder is on sys.path: with tests/ on it, tests/torch would be taken for PyTorch where that is not installed.
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[1] / "attack")]
