"""Diagonal and trace of the Gauss-Newton matrix, from the two factors of each layer's Jacobian.

A parameter's column of the Jacobian is a Kronecker product of two columns, so its squared norm is a product of two. The
functional part has a zero diagonal: no output is of degree two in one parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Matrix
from hesskern.curvature.dense_blocks import inner_indices
from hesskern.curvature.layer_factors import Factors
from hesskern.network.parameters import Part


def gauss_newton_diagonal(factors: Factors, parts: Sequence[Part]) -> NDArray[np.float64]:
    """Return the diagonal of ``J.T J`` (P,) in the order of the parameters; infinite where it overflows."""
    pieces: list[NDArray[np.float64]] = []
    with np.errstate(over="ignore"):
        for part in parts:
            outputs, inputs = factors.weights[part.layer].shape
            top, below = _jacobian(factors, part)
            outer = np.full(outputs, factors.scale)
            if top is not None:
                outer = factors.scale * np.einsum("op,op->p", top, top)
            products = outer[:, None] * np.einsum("nq,nq->q", below, below)
            if part.weight:
                pieces.append((products[:, :inputs] if part.bias else products).ravel())
            if part.bias:
                pieces.append(products[:, -1])
    return np.concatenate(pieces)


def gauss_newton_trace(factors: Factors, parts: Sequence[Part]) -> float:
    """Return the trace of ``J.T J``; infinite if it overflows."""
    total = 0.0
    for part in parts:
        top, below = _jacobian(factors, part)
        outer = float(len(factors.weights[part.layer])) if top is None else float(np.vdot(top, top))
        total += factors.scale * outer * float(np.vdot(below, below))
    return total


def _jacobian(factors: Factors, part: Part) -> tuple[Matrix | None, Matrix]:
    return factors.jacobian(part.layer, inner_indices(part, factors.weights[part.layer].shape[1]))
