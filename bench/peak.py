"""The floor of arithmetic: fused multiply-adds at the peak of one core, measured in the run it is compared with.

A matrix product of a BLAS is no floor: OpenBLAS takes its kernels by processor name and falls back to older ones for a
processor it does not know.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from bench.task import Contestant

NAME = "floor: multiply-adds"
_STEPS = 20_000


def floor(multiply_adds: float, dtype: str = "float64") -> Contestant:
    """Return the time that so many multiply-adds take at peak; absent where there is no C++ compiler."""
    library = _library()
    if library is None:
        return Contestant(name=NAME, run=None, role="floor", note="no C++ compiler (CXX, c++) to measure the peak with")
    number = ctypes.c_double if dtype == "float64" else ctypes.c_float
    function = library[f"peak_{dtype}"]
    function.argtypes = [ctypes.c_long, number, number, ctypes.c_void_p]
    function.restype = None
    out = np.zeros(12, dtype)
    pointer = out.ctypes.data
    done = _STEPS * library.multiply_adds_per_step(out.itemsize)
    return Contestant(
        name=NAME,
        run=lambda: (function(_STEPS, 0.5, 1.0, pointer), out)[1],
        role="floor",
        note=f"{multiply_adds:.3g} multiply-adds at the measured peak of one core",
        units=done / multiply_adds,
    )


@functools.cache
def _library() -> ctypes.CDLL | None:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "peak.so"
        options = ["-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-o", str(target)]
        try:
            subprocess.run(
                [*compiler.split(), *options, str(Path(__file__).with_name("peak.cpp"))],
                check=True,
                capture_output=True,
                timeout=60,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return ctypes.CDLL(str(target))
