"""The Numba layer's products by its own loops against BLAS, to find the size from which BLAS wins.

Both are called from a jitted loop, as in the layer itself, so that no call from Python is in the times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from bench import floors
from bench.contest import Rung, TimedProblem
from bench.outcomes import ProblemResult
from bench.peers import with_numba
from bench.problems import TOLERANCE, Array, error_against

NAME = "jitted_gemm"
SUMMARY = "One square product in the Numba layer: its own loops, and BLAS as the layer calls it."
LOOPS, BLAS = "own loops", "BLAS"
EDGES = (32, 64, 96, 112, 128, 160, 192, 256, 512)


@cache
def _jitted(numba: Any) -> dict[str, Callable[..., None]]:
    """Return both products, `count` times each, of the matrices that `memory` holds, one after the other."""
    from hesskern.backends.numba_kernels import products

    by_loops, by_blas = products.multiply_by_loops, products.multiply_by_blas

    @numba.njit  # type: ignore[untyped-decorator]
    def loops(memory: Array, edge: int, count: int) -> None:
        for _ in range(count):
            by_loops(memory, edge, edge, edge, 1.0, 0, edge, 1, edge * edge, edge, False, 2 * edge * edge, edge)

    @numba.njit  # type: ignore[untyped-decorator]
    def blas(memory: Array, edge: int, count: int) -> None:
        for _ in range(count):
            by_blas(memory, False, False, edge, edge, edge, 1.0, 0, edge, edge * edge, edge, False, 2 * edge**2, edge)

    return {LOOPS: loops, BLAS: blas}


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    edges = (16, 32, 48) if quick else EDGES
    return [partial(_problem, edge, dtype) for dtype in ("float64", "float32") for edge in edges]


def _problem(edge: int, dtype: str) -> TimedProblem:
    memory = np.random.default_rng(1).standard_normal(3 * edge * edge).astype(dtype)
    left, right, out = memory.reshape(3, edge, edge)
    count = max(1, 4_000_000 // edge**3)

    def contestant(name: str) -> Callable[[Any], Callable[[], Array]]:
        def make(numba: Any) -> Callable[[], Array]:
            product = _jitted(numba)[name]

            def run() -> Array:
                product(memory, edge, count)
                return out

            return run

        return make

    return TimedProblem(
        label=f"{edge} x {edge}, {dtype}",
        contestants=[
            replace(with_numba(LOOPS, contestant(LOOPS), units=count), role="ours"),
            with_numba(BLAS, contestant(BLAS), units=count),
            *floors.products(edge**3, dtype),
        ],
        error=error_against(left.astype(np.float64) @ right.astype(np.float64)),
        tolerance=TOLERANCE[dtype],
        spoil=lambda: out.fill(np.nan),
        rungs=[Rung(f"square, {dtype}", "edge", edge)],
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    wins = [
        result.problem.label
        for result in results
        if (ratio := result.speedup(BLAS, than=LOOPS)) is not None and ratio.median > 1
    ]
    return [f"BLAS is faster at {', '.join(wins) or 'no size'}."]
