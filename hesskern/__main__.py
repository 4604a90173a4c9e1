"""``python -m hesskern``: the same as the command ``hesskern``."""

import sys

from hesskern.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
