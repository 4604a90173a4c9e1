"""The extension's products against BLAS, to find the size from which BLAS wins.

A network of one layer is one product ``X W.T``. With BLAS unloaded the extension's own loops do it at any size; with
BLAS loaded it takes over above the threshold that is compiled in. Below that the extension never calls BLAS, so NumPy's
call of its BLAS is timed for it, less the cost of a call (measured on the 2 x 2 product, as for the loops).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from scipy.linalg import cython_blas

import hesskern as hk
from bench import floors
from bench.contest import Contestant, Rung, TimedProblem
from bench.outcomes import ProblemResult
from bench.problems import TOLERANCE, error_against
from hesskern import _core

NAME = "gemm"
SUMMARY = "One product X W.T through the extension with its own loops and with BLAS, square and thin."
THRESHOLD = 256**3 if hk.info()["isa"] == "avx512" else 64**3  # blas_threshold of csrc/kernels/gemm.hpp
EDGES = (2, 8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 320, 512)
THIN = tuple((rows, 5, 100) for rows in (100, 1000, 10_000)) + tuple((rows, 20, 200) for rows in (20, 100, 1000))


@contextmanager
def without_blas() -> Iterator[None]:
    """Let the extension's own loops do every product."""
    _core.unload_blas()
    try:
        yield
    finally:
        load_blas()


def load_blas() -> None:
    """Give the extension SciPy's BLAS, as the cpp backend does."""
    _core.load_blas(cython_blas.__pyx_capi__)


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    load_blas()
    square = [(edge, edge, edge) for edge in ((2, 17, 65) if quick else EDGES)]
    shapes = square if quick else [*square, *THIN]
    return [partial(_problem, shape, dtype) for dtype in ("float64", "float32") for shape in shapes]


def _label(shape: tuple[int, int, int], dtype: str) -> str:
    return f"({shape[0]}, {shape[1]}) x ({shape[1]}, {shape[2]}), {dtype}"


def _problem(shape: tuple[int, int, int], dtype: str) -> TimedProblem:
    samples, inputs, outputs = shape
    rng = np.random.default_rng(1)
    X = rng.standard_normal((samples, inputs)).astype(dtype)
    weight = rng.standard_normal((outputs, inputs)).astype(dtype)
    weights, biases, out, transposed = (weight,), (None,), np.empty((samples, outputs), dtype), weight.T

    def product() -> object:
        _core.forward(weights, biases, X, out)
        return out

    return TimedProblem(
        label=_label(shape, dtype),
        contestants=[
            Contestant(name="own loops", run=product, role="ours", note="BLAS unloaded", context=without_blas),
            Contestant(name="with BLAS", run=product, note="BLAS loaded: called above the threshold"),
            Contestant(name="np.matmul(out=)", run=lambda: np.matmul(X, transposed, out=out), note="NumPy's BLAS"),
            *floors.products(samples * inputs * outputs, dtype),
        ],
        error=error_against(X.astype(np.float64) @ weight.T.astype(np.float64)),
        tolerance=TOLERANCE[dtype],
        spoil=lambda: out.fill(np.nan),
        rungs=[Rung(f"square, {dtype}", "edge", samples)] if samples == inputs == outputs else (),
    )


def blas_wins(results: Sequence[ProblemResult], dtype: str) -> list[int]:
    """Return the edges of the square products at which BLAS beats the loops, both without the cost of a call."""
    by_label = {result.problem.label: result for result in results}

    def without_call(edge: int, name: str) -> float | None:
        times = [
            None if result is None else result.times(name)
            for result in (by_label.get(_label((size, size, size), dtype)) for size in (edge, EDGES[0]))
        ]
        whole, call = times
        return None if whole is None or call is None else float(np.median(whole) - np.median(call))

    wins = []
    for edge in EDGES[1:]:
        loops = without_call(edge, "own loops")
        library = without_call(edge, "with BLAS" if edge**3 > THRESHOLD else "np.matmul(out=)")
        if loops is not None and library is not None and library < loops:
            wins.append(edge)
    return wins


def notes(results: Sequence[ProblemResult]) -> list[str]:
    compiled = round(THRESHOLD ** (1 / 3))
    lines = []
    for dtype in ("float64", "float32"):
        measured = [e for e in EDGES[1:] if any(r.problem.label == _label((e, e, e), dtype) for r in results)]
        wins = blas_wins(results, dtype)
        edges = ", ".join(map(str, wins)) if wins else "none"
        lines.append(
            f"{dtype}, square, cost of a call left out: BLAS wins at edge {edges} of {', '.join(map(str, measured))}; "
            f"the extension calls it above {compiled}^3 multiply-adds."
        )
    slow = [
        (ratio.median, result.problem.label)
        for result in results
        if (ratio := result.speedup("np.matmul(out=)", than="own loops")) is not None and ratio.median > 1.5
    ]
    if slow:
        worst, label = max(slow)
        lines.append(
            f"The own loops take more than 1.5 times as long as np.matmul, its call included, at {len(slow)} of "
            f"{len(results)} shapes, most at {label} ({worst:.1f} times)."
        )
    return lines
