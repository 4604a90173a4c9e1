"""Processes that compile by Numba and keep it in a folder, and the files in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from children import child_environment

#: Small functions that call each other, so that compiling takes little: forward would take seconds each time.
SCRIPT = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("always")
from hesskern.backends.numba_kernels import layout
dtype = sys.argv[1]
with warnings.catch_warnings(record=True) as caught:
    small = layout.make_layout(np.array([2, 3, 1]), np.array([True, False]), np.dtype(dtype).itemsize)
    memory = np.zeros(small[0, 2] + 16, dtype)
    flat = np.arange(12, dtype=dtype)
    layout.pack(small, flat, 0, 1, memory, 0, 1.0)
    back = np.zeros_like(flat)
    layout.unpack(small, memory, 0, back, 0, 1)
assert (back == flat).all()
hits = sum(sum(each.stats.cache_hits.values()) for each in (layout.make_layout, layout.pack, layout.unpack))
print(json.dumps([hits, [str(each.message) for each in caught]]))
"""


def run(folder, dtype="float64", script=SCRIPT):
    environment = child_environment(NUMBA_CACHE_DIR=str(folder))
    return subprocess.run(
        [sys.executable, "-c", script, dtype], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def outcome(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files(folder):
    return sorted(Path(folder).rglob("*.hesskern"))
