"""Peak memory of a job, in a process of its own: allocators keep what they were given, so this one shows nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import hesskern as hk

# A small process in between: on Linux a new program inherits the peak of the one that started it, here the benchmark's.
LAUNCHER = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_bytes(script: str) -> int | None:
    """Return the largest resident size of a Python process that runs a script; None where the system does not tell."""
    if importlib.util.find_spec("resource") is None:
        return None
    environment = os.environ | {"PYTHONPATH": str(Path(hk.__file__).parents[1])}
    command = [sys.executable, "-c", LAUNCHER, script]
    done = subprocess.run(
        command, env=environment, cwd=tempfile.gettempdir(), check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)  # kibibytes everywhere else
