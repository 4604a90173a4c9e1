"""Limits of one core, measured in the run they are compared with: stores for what writes memory, multiply-adds.

Each comes in two forms. Memory is filled by NumPy, and written past the caches by non-temporal stores: an ordinary
fill reads each cache line before it writes it, so kernels that do not can be faster. Multiply-adds are counted at the
peak of fused multiply-adds, and at the rate of one large product of NumPy's BLAS, which takes its kernels by processor
name and falls back to older ones for a processor it does not know. "x of the limit" is taken from the faster.
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

from bench.contest import Contestant
from bench.problems import Array

FILL, STREAM = "floor: fill", "floor: non-temporal store"
ADDS, GEMM = "floor: multiply-adds", "floor: GEMM"
NO_COMPILER = "no C++ compiler (CXX, c++) to measure it with"
_STEPS = 20_000
_EDGE = 384


def stores(out: Array) -> list[Contestant]:
    """Return the times of writing this array once, by a fill and past the caches."""
    return [
        Contestant(name=FILL, run=lambda: out.fill(0), role="floor", note="the same warm array, written once"),
        _stream(out),
    ]


def products(multiply_adds: float, dtype: str = "float64") -> list[Contestant]:
    """Return the times that so many multiply-adds take, at the peak and at GEMM's rate."""
    return [_adds(multiply_adds, dtype), _gemm(multiply_adds, dtype)]


def _stream(out: Array) -> Contestant:
    library, size = _library(), -(-out.nbytes // 64) * 64
    memory = np.zeros(size + 64, np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % 64
    if library is None or not library.store_past_the_caches(ctypes.c_void_p(start), ctypes.c_long(size)):
        why = NO_COMPILER if library is None else "this processor has no such store"
        return Contestant(name=STREAM, run=None, role="floor", note=why)
    store, where, length = library.store_past_the_caches, ctypes.c_void_p(start), ctypes.c_long(size)
    return Contestant(
        name=STREAM,
        run=lambda: (store(where, length), memory)[1],
        role="floor",
        note="an array of this size, written once past the caches",
    )


def _adds(multiply_adds: float, dtype: str) -> Contestant:
    library = _library()
    if library is None:
        return Contestant(name=ADDS, run=None, role="floor", note=NO_COMPILER)
    number = ctypes.c_double if dtype == "float64" else ctypes.c_float
    function = library[f"peak_{dtype}"]
    function.argtypes = [ctypes.c_long, number, number, ctypes.c_void_p]
    function.restype = None
    out = np.zeros(12, dtype)
    pointer = out.ctypes.data
    done = _STEPS * library.multiply_adds_per_step(out.itemsize)
    return Contestant(
        name=ADDS,
        run=lambda: (function(_STEPS, 0.5, 1.0, pointer), out)[1],
        role="floor",
        note=f"{multiply_adds:.3g} multiply-adds at the measured peak of one core",
        units=done / multiply_adds,
    )


def _gemm(multiply_adds: float, dtype: str) -> Contestant:
    a, out = np.full((_EDGE, _EDGE), 0.5, dtype), np.empty((_EDGE, _EDGE), dtype)
    return Contestant(
        name=GEMM,
        run=lambda: np.matmul(a, a, out=out),
        role="floor",
        note=f"{multiply_adds:.3g} multiply-adds at the rate of one product of NumPy's BLAS, {_EDGE} x {_EDGE}",
        units=_EDGE**3 / multiply_adds,
    )


@functools.cache
def _library() -> ctypes.CDLL | None:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "floors.so"
        options = ["-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-o", str(target)]
        try:
            subprocess.run(
                [*compiler.split(), *options, str(Path(__file__).with_name("floors.cpp"))],
                check=True,
                capture_output=True,
                timeout=60,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return ctypes.CDLL(str(target))
