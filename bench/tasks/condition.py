"""The condition number of the block of W_2: of the case once it is trained, and over widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench.contest import Contestant, Rung, Target, TimedProblem
from bench.ladders import TINY, by_width, rungs, union
from bench.libraries import Model
from bench.outcomes import ProblemResult
from bench.peers import with_jax, with_library, with_torch
from bench.problems import Array, Size
from bench.tasks.train_case import numpy_loop

NAME = "condition"
SUMMARY = "Condition number of the W_2 block: of the trained 5-100-5 case (500 x 500, rank 25), and over widths."
CASE = "5-100-5, W_2"
LADDERS = (by_width(5, 5, 5, (25, 50, 100, 200)),)
DENSE_RANK_TOLERANCE = 1e-10  # relative to the largest eigenvalue; the smallest nonzero one is 1e-3 of it


def from_singular_values(values: Array) -> float:
    """Return the condition number of ``I ⊗ A.T A`` from the singular values of A, descending."""
    kept = values[values > len(values) * np.finfo(np.float64).eps * values[0]]
    return float((kept[0] / kept[-1]) ** 2)


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [partial(_case, quick), *(partial(_random, size) for size in union(TINY if quick else LADDERS))]


def _case(quick: bool) -> TimedProblem:
    case = hk.datasets.two_layer_case()
    # The network a quick run stops at has another condition number; everything is compared with the same one.
    _, weights = numpy_loop(case.X, case.Y, case.network.weights, case.lr, 0.5 if quick else case.rtol)
    return _problem(CASE, case.X, case.Y, weights, ())


def _random(size: Size) -> TimedProblem:
    return _problem(size.label, *size.draw(), rungs(size, (*LADDERS, *TINY)))


def _problem(label: str, X: Array, Y: Array, weights: Sequence[Array], on: Sequence[Rung]) -> TimedProblem:
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)
    H = loss.hessian(net, params=[1])
    first, second = weights
    rank = len(second) * int(np.linalg.matrix_rank(X @ first.T))

    def from_eigenvalues(values: Array) -> float:
        kept = values[values > DENSE_RANK_TOLERANCE * values[-1]]  # ascending
        return float(kept[-1] / kept[0]) if len(kept) == rank else float("nan")

    def dense() -> float:
        hidden = X @ first.T
        return from_eigenvalues(np.linalg.eigvalsh(np.kron(np.eye(len(second)), hidden.T @ hidden)))

    def dense_svd() -> float:
        hidden = X @ first.T
        values = np.linalg.svd(np.kron(np.eye(len(second)), hidden.T @ hidden), compute_uv=False)
        return from_eigenvalues(values[::-1])

    def autograd(torch: Any) -> Callable[[], float]:
        x, y, w1, w2 = (torch.tensor(array) for array in (X, Y, first, second))

        def loss_of(w: Any) -> Any:
            return 0.5 * ((x @ w1.T @ w.T - y) ** 2).sum()

        def compute() -> float:
            matrix = torch.autograd.functional.hessian(loss_of, w2, vectorize=True).reshape(w2.numel(), -1)
            return from_eigenvalues(torch.linalg.eigvalsh(matrix).numpy())

        return compute

    def factor_svd(torch: Any) -> Callable[[], float]:
        x, w1 = torch.tensor(X), torch.tensor(first)
        return lambda: from_singular_values(torch.linalg.svdvals(x @ w1.T).numpy())

    def compiled(jax: Any) -> Callable[[], float]:
        x, w1 = jax.numpy.asarray(X), jax.numpy.asarray(first)
        values = jax.jit(lambda x, w1: jax.numpy.linalg.svd(x @ w1.T, compute_uv=False))
        return lambda: from_singular_values(np.asarray(values(x, w1)))

    def gram(library: Any) -> Callable[[], float]:
        root = Model(X, Y, weights).backpack_root(library, 1)

        def compute() -> float:
            V = root().numpy()
            return from_eigenvalues(np.linalg.eigvalsh(V @ V.T))

        return compute

    def curvlinops(library: Any) -> Callable[[], float]:
        block = Model(X, Y, weights).curvlinops_dense(library, [1])
        return lambda: from_eigenvalues(np.linalg.eigvalsh(block().numpy()))

    reference = from_singular_values(np.linalg.svd(X @ first.T, compute_uv=False))
    contestants = [
        Contestant(name="hesskern", run=H.condition, role="ours", note="H.condition() of an existing operator"),
        Contestant(name="hesskern, cond()", run=H.cond, role="ours", note="its value alone"),
        Contestant(
            name="hesskern, from scratch",
            run=lambda: loss.hessian(net, params=[1]).condition(),
            role="ours",
            note="loss.hessian(net, [1]).condition(): the operator made each time",
        ),
        Contestant(
            name="np.linalg.svd of the factor",
            run=lambda: from_singular_values(np.linalg.svd(X @ first.T, compute_uv=False)),
            note="singular values only; fewer correct digits where X or W_1 is graded",
        ),
        Contestant(name="np.linalg.eigvalsh, dense", run=dense, note="np.kron, then all eigenvalues"),
        Contestant(
            name="np.linalg.svd, dense", run=dense_svd, note="as np.linalg.cond does, which divides by rounding errors"
        ),
        with_torch("torch svdvals of the factor", factor_svd),
        with_torch(
            "torch autograd, dense",
            autograd,
            note="autograd.functional.hessian(vectorize=True), then eigvalsh: no formula needed",
        ),
        with_jax("jax jit(svd) of the factor", compiled, note="singular values only"),
        with_library("backpack", "BackPACK", gram, note="SqrtGGNExact, then eigvalsh of its small Gram matrix V V.T"),
        with_library(
            "curvlinops", "curvlinops, dense", curvlinops, note="HessianLinearOperator times the identity, eigvalsh"
        ),
    ]
    return TimedProblem(
        label=label,
        contestants=contestants,
        error=lambda result: abs(float(result) / reference - 1),  # type: ignore[arg-type]
        tolerance=1e-9,  # what eigvalsh of the dense matrix can give at this condition
        targets=[
            Target(contestant="hesskern", kind="seconds", bound=25e-6),
            Target(contestant="hesskern, cond()", kind="seconds", bound=50e-6),
            Target(contestant="hesskern, from scratch", kind="seconds", bound=50e-6),
        ]
        if label == CASE
        else [],
        rungs=on,
        memory=label == CASE,
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
