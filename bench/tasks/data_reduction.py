"""The exact reduction of N samples to at most i, which is done once for each loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import linalg

import hesskern as hk
from bench.contest import Contestant, Target, TimedProblem
from bench.ladders import Ladder, rungs, union
from bench.outcomes import ProblemResult
from bench.peers import with_jax, with_torch
from bench.problems import TOLERANCE, Array, Size
from hesskern import backends
from hesskern.backends.data import Data
from hesskern.reductions.samples import reduce_samples

NAME = "data_reduction"
SUMMARY = "Reduce N samples to i rows with the same loss, gradient and Hessian: `SquaredLoss(X, Y)` and its QR."
GRAM = "floor: X.T @ X"
TARGETED = Size(100_000, (20, 20))
LADDERS = (
    Ladder("i = 20, o = 20", "N", (Size(1000, (20, 20)), Size(10_000, (20, 20)), TARGETED), lambda size: size.samples),
    Ladder(
        "N = 10000, o = 20", "i", tuple(Size(10_000, (i, 20)) for i in (5, 20, 80, 320)), lambda size: size.widths[0]
    ),
)
OTHERS = (Size(100_000, (20, 20), "float32"), Size(100_000, (100, 10)))
QUICK_SIZES = (Size(50, (4, 2)), Size(50, (4, 2), "float32"))

Reduced = tuple[Array, Array, float]  # R, Q.T Y, half the squared norm of the rest


def from_triangle(triangle: Any, inputs: int) -> Reduced:
    """Return the reduced data from the triangular factor of ``[X Y]``."""
    rest = triangle[inputs:, inputs:]
    return triangle[:inputs, :inputs], triangle[:inputs, inputs:], 0.5 * float(np.vdot(rest, rest))


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [partial(_problem, size) for size in (QUICK_SIZES if quick else union(LADDERS, OTHERS))]


def _problem(size: Size) -> TimedProblem:
    X, Y, _ = size.draw()
    inputs = X.shape[1]
    stack, gram = np.hstack([X, Y]), np.empty((inputs, inputs), X.dtype)
    triangular_factor = backends.get().triangular_factor

    def fresh() -> Reduced:
        data = hk.SquaredLoss(X, Y).data(bias=False, reduced=True)
        return data.X, data.Y, data.constant

    def unchecked() -> Reduced:
        data = reduce_samples(Data(X, None, Y, 0.0), bias=False, triangular_factor=triangular_factor)
        return data.X, data.Y, data.constant

    def with_q() -> Reduced:
        Q, R = np.linalg.qr(X)
        projected = Q.T @ Y
        rest = Y - Q @ projected
        return R, projected, 0.5 * float(np.vdot(rest, rest))

    def scipy_qr() -> Reduced:
        return from_triangle(linalg.qr(stack, mode="r", check_finite=False)[0][: len(stack.T)], inputs)

    def by_torch(torch: Any) -> Callable[[], Reduced]:
        tensor = torch.tensor(stack)
        return lambda: from_triangle(torch.linalg.qr(tensor, mode="r").R.numpy(), inputs)

    def by_jax(jax: Any) -> Callable[[], Reduced]:
        array, triangle = jax.numpy.asarray(stack), jax.jit(lambda a: jax.numpy.linalg.qr(a, mode="r"))
        return lambda: from_triangle(np.asarray(triangle(array)), inputs)

    wide_X, wide_Y = X.astype(np.float64), Y.astype(np.float64)
    exact = np.hstack([wide_X.T @ wide_X, wide_X.T @ wide_Y])
    squared = float(np.vdot(wide_Y, wide_Y))

    def error(result: Any) -> float:
        # R is determined up to signs only; what follows from it is not.
        R, projected, constant = (np.asarray(part, np.float64) for part in result)
        found = np.hstack([R.T @ R, R.T @ projected])
        norms = np.vdot(projected, projected) + 2 * constant
        return float(np.max([np.max(np.abs(found - exact)) / np.max(np.abs(exact)), abs(norms / squared - 1)]))

    return TimedProblem(
        label=f"N = {size.samples}, i = {inputs}, o = {Y.shape[1]}" + ("" if size.dtype == "float64" else ", float32"),
        contestants=[
            Contestant(
                name="hesskern",
                run=fresh,
                role="ours",
                note="SquaredLoss(X, Y).data(...): finite values checked, then reduced",
            ),
            Contestant(name="hesskern, reduction alone", run=unchecked, note="of arrays that were checked"),
            Contestant(
                name="np.linalg.qr of [X Y]",
                run=lambda: from_triangle(np.linalg.qr(stack, mode="r"), inputs),
                note='mode="r"; [X Y] put together before',
            ),
            Contestant(name="np.linalg.qr of X, Q.T @ Y", run=with_q, note='mode="reduced", and the rest of Y'),
            Contestant(name="scipy.linalg.qr of [X Y]", run=scipy_qr, note='mode="r", check_finite=False'),
            with_torch("torch.linalg.qr of [X Y]", by_torch, note='mode="r"'),
            with_jax("jax jit(qr) of [X Y]", by_jax, note='mode="r"'),
            Contestant(
                name=GRAM,
                run=lambda: np.matmul(X.T, X, out=gram),
                role="floor",
                note="one pass over X by BLAS (symmetric: half the multiply-adds); Y is not read",
            ),
        ],
        error=error,
        tolerance=TOLERANCE[size.dtype],
        targets=[Target(contestant="hesskern", kind="at_most", bound=6, than=GRAM)] if size == TARGETED else [],
        rungs=rungs(size, LADDERS),
        memory=size in (TARGETED, QUICK_SIZES[0]),
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
