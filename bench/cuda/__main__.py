"""Pins the processor's threads as `bench` does, then hands over to the command line."""

import sys

from bench.__main__ import pin

if __name__ == "__main__":
    pin()
    from bench.cuda.command import main

    sys.exit(main())
