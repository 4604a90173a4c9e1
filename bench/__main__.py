"""Pins every thread pool to one thread before NumPy loads its BLAS, then hands over to the command line."""

import os
import sys

from bench.pinned import PINNED


def pin() -> None:
    """Pin the thread pools, and prefer an installed hesskern, which has its extension, to the sources here."""
    for name in PINNED:
        os.environ[name] = "1"
    # `python -m bench` puts the current folder first on the path.
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))


if __name__ == "__main__":
    pin()
    from bench.cli import main

    sys.exit(main())
