"""What a backend needs to write a dense block of the Hessian: small matrices, one set for each pair of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern.backends.protocol import Block, Side
from hesskern.factors import Factors, Matrix, Mode
from hesskern.selection import Part


def inner_indices(part: Part, inputs: int) -> slice:
    """Return which of a layer's inputs (the constant one last) the selected parameters multiply."""
    return slice(0 if part.weight else inputs, inputs + part.bias)


def interleaved(inner: int, outer: int, part: Part) -> NDArray[np.intp]:
    """Return the Kronecker positions of a layer's parameters, the bias behind the weight."""
    order = np.arange(outer * inner).reshape(outer, inner)
    split = inner - 1 if part.weight and part.bias else inner
    return np.concatenate([order[:, :split].ravel(), order[:, split:].ravel()])


def grid(
    factors: Factors, rows: Sequence[Part], columns: Sequence[Part], mode: Mode, vec: str, dtype: np.dtype[Any]
) -> tuple[list[Side], list[Side], list[Block]]:
    """Return what `Backend.assemble` needs for the block of these rows and columns."""
    blocks = [_block(factors, row, column, mode, vec, dtype) for row in rows for column in columns]
    return [_side(factors, part, vec) for part in rows], [_side(factors, part, vec) for part in columns], blocks


def _side(factors: Factors, part: Part, vec: str) -> Side:
    outputs, inputs = factors.weights[part.layer].shape
    if vec == "column":
        return Side(inputs * part.weight + part.bias, outputs, False)
    return Side(outputs, inputs * part.weight, part.bias)


def _block(factors: Factors, row: Part, column: Part, mode: Mode, vec: str, dtype: np.dtype[Any]) -> Block:
    m, k = row.layer, column.layer
    inner_rows = inner_indices(row, factors.weights[m].shape[1])
    inner_columns = inner_indices(column, factors.weights[k].shape[1])
    U = factors.output_gram(m, k) if m >= k else factors.output_gram(k, m).T
    V = factors.input_gram(m, k) if m >= k else factors.input_gram(k, m).T
    V = V[inner_rows, inner_columns]
    if mode == "functional":
        U, V = np.zeros(U.shape), np.zeros(V.shape)
    B: Matrix | None = None
    W: Matrix | None = None
    if m != k and mode != "gauss_newton":
        lower, upper = min(m, k), max(m, k)
        middle = factors.between(lower, upper)
        if middle is None:
            middle = np.eye(factors.weights[upper].shape[1])
        if factors.has_bias:  # the constant input does not depend on any weight
            middle = np.vstack([middle, np.zeros((1, middle.shape[1]))])
        gram = factors.residual_gram(upper, lower)
        B, W = (middle, gram) if m > k else (gram.T, middle.T)
        B, W = B[inner_rows], W[:, inner_columns]
    as_given = [None if x is None else np.ascontiguousarray(x, dtype=dtype) for x in (U, V, B, W)]
    if vec == "column":
        as_given = [as_given[1], as_given[0], as_given[3], as_given[2]]
    return Block(*as_given)  # type: ignore[arg-type]
