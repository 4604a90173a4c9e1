"""Where the checkout is, for tests in folders of any depth."""

from pathlib import Path

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]
