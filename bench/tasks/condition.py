"""The condition number of the case's block, at the trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import hesskern as hk
from bench.peers import with_torch
from bench.problems import Array
from bench.runner import ProblemResult
from bench.task import Contestant, Problem, Target
from bench.tasks.train_case import numpy_loop

NAME = "condition"
SUMMARY = "Condition number of the W_2 block (500 x 500, rank 25) of the trained 5-100-5 case."
RANK = 25
DENSE_RANK_TOLERANCE = 1e-10  # relative to the largest eigenvalue; the smallest nonzero one is 6e-3 of it


def from_singular_values(values: Array) -> float:
    """Return the condition number of ``I ⊗ A.T A`` from the singular values of A, descending."""
    kept = values[values > len(values) * np.finfo(np.float64).eps * values[0]]
    return float((kept[0] / kept[-1]) ** 2)


def from_eigenvalues(values: Array) -> float:
    """Return the condition number from the eigenvalues of the dense matrix, ascending."""
    kept = values[values > DENSE_RANK_TOLERANCE * values[-1]]
    return float(kept[-1] / kept[0]) if len(kept) == RANK else float("nan")


def problems(quick: bool) -> Iterator[Problem]:
    case = hk.datasets.two_layer_case()
    # The network a quick run stops at has another condition number; everything is compared with the same one.
    _, weights = numpy_loop(case.X, case.Y, case.network.weights, case.lr, 0.5 if quick else case.rtol)
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(case.X, case.Y)
    H = loss.hessian(net, params=[1])
    X, (first, second) = case.X, weights

    def dense() -> float:
        hidden = X @ first.T
        return from_eigenvalues(np.linalg.eigvalsh(np.kron(np.eye(len(second)), hidden.T @ hidden)))

    def dense_svd() -> float:
        hidden = X @ first.T
        values = np.linalg.svd(np.kron(np.eye(len(second)), hidden.T @ hidden), compute_uv=False)
        return from_eigenvalues(values[::-1])

    def autograd(torch: Any) -> Callable[[], float]:
        x, y, w1, w2 = (torch.tensor(array) for array in (X, case.Y, first, second))

        def loss_of(w: Any) -> Any:
            return 0.5 * ((x @ w1.T @ w.T - y) ** 2).sum()

        def compute() -> float:
            matrix = torch.autograd.functional.hessian(loss_of, w2, vectorize=True).reshape(w2.numel(), -1)
            return from_eigenvalues(torch.linalg.eigvalsh(matrix).numpy())

        return compute

    def factor_svd(torch: Any) -> Callable[[], float]:
        x, w1 = torch.tensor(X), torch.tensor(first)
        return lambda: from_singular_values(torch.linalg.svdvals(x @ w1.T).numpy())

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
        Contestant(name="np.linalg.eigvalsh, dense", run=dense, note="np.kron, then all 500 eigenvalues"),
        Contestant(
            name="np.linalg.svd, dense", run=dense_svd, note="as np.linalg.cond does, which divides by rounding errors"
        ),
        with_torch("torch svdvals of the factor", factor_svd),
        with_torch(
            "torch autograd, dense",
            autograd,
            note="autograd.functional.hessian(vectorize=True), then eigvalsh: no formula needed",
        ),
    ]
    yield Problem(
        label="5-100-5, W_2",
        contestants=contestants,
        error=lambda result: abs(float(result) / reference - 1),  # type: ignore[arg-type]
        tolerance=1e-9,  # what eigvalsh of the dense matrix can give at this condition
        targets=[
            Target(contestant="hesskern", kind="seconds", bound=25e-6),
            Target(contestant="hesskern, cond()", kind="seconds", bound=50e-6),
            Target(contestant="hesskern, from scratch", kind="seconds", bound=50e-6),
        ],
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
