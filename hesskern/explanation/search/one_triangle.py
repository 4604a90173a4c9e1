"""Eigenvalues that solvers for symmetric matrices return for matrices that are not: they read one triangle only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern.explanation.given.candidate_model import Curvature
from hesskern.explanation.given.causes import Cause
from hesskern.explanation.given.orders import orders
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork

Values = NDArray[np.float64]

#: Largest size for which these are tried.
_MOST = 250

_FIX = "use numpy.linalg.eigvals where the matrix is not symmetric, or make it symmetric first"


class Misread(NamedTuple):
    """A cause, and the eigenvalues that it leads to, ascending."""

    cause: Cause
    values: Values


def misread(truth: Curvature, decay: float, net: LinearNetwork, loss: SquaredLoss) -> Iterator[Misread]:
    """Yield the eigenvalues that ``eigvalsh`` returns for matrices that are not symmetric."""
    if net.has_bias is False and net.widths[0] * net.widths[-1] <= _MOST:
        for words, matrix in _end_to_end(net, loss):
            yield from _both(f"the matrix {words}", "end-to-end", matrix)
    if truth.size > _MOST:
        return
    dense = truth.dense("full") + decay * np.eye(truth.size)
    cause = Cause(
        "eigvalsh[empty-triangle]",
        "eigvalsh was given a Hessian with one triangle filled, the one that it does not read: it saw only the "
        "diagonal",
        "mirror it first: H + H.T - numpy.diag(H.diagonal()), or pass UPLO",
    )
    yield Misread(cause, np.sort(dense.diagonal()))
    for order in orders(truth.tensors):
        if len(order.causes) == 1 and order.source is not None:
            words = f"the Hessian where {order.causes[0].words}, in the rows only,"
            yield from _both(words, order.causes[0].key, dense[order.source])


def _both(words: str, key: str, matrix: Values) -> Iterator[Misread]:
    for triangle in ("lower", "upper"):
        cause = Cause(
            f"eigvalsh[{key},{triangle}]",
            f"eigvalsh was given {words} which is not symmetric, and reads its {triangle} triangle only",
            _FIX,
        )
        yield Misread(cause, decompositions.eigvalsh(matrix, triangle=triangle))


def _end_to_end(net: LinearNetwork, loss: SquaredLoss) -> Iterator[tuple[str, Values]]:
    """Yield ``Σ_l B_l B_l.T ⊗ A_l.T A_l C`` in both orders: it has the Gauss-Newton matrix's nonzero eigenvalues."""
    second = loss.scale * loss.X.T @ loss.X
    above: list[Values] = [np.eye(net.widths[-1])]
    for weight in net.weights[:0:-1]:
        above.insert(0, above[0] @ weight)
    below = [np.eye(net.widths[0])]
    for weight in net.weights[:-1]:
        below.append(weight @ below[-1])
    pairs = [(B @ B.T, A.T @ A @ second) for B, A in zip(above, below, strict=True)]
    yield "B B.T kron A.T A C, summed over the layers,", np.asarray(sum(np.kron(b, a) for b, a in pairs))
    yield "A.T A C kron B B.T, summed over the layers,", np.asarray(sum(np.kron(a, b) for b, a in pairs))
