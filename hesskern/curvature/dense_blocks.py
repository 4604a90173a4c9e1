"""The small matrices from which a backend writes a dense block of the Hessian, one set for each pair of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import devices
from hesskern._base.powers import Scaled
from hesskern.backends.protocol import Block, Side
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.network.parameters import Part


def inner_indices(part: Part, inputs: int) -> slice:
    """Return the slice of a layer's inputs (the constant one last) that the selected parameters multiply."""
    return slice(0 if part.weight else inputs, inputs + part.bias)


def interleaved(inner: int, outer: int, part: Part) -> NDArray[np.intp]:
    """Return the Kronecker positions of a layer's parameters, weight first, then bias."""
    order = np.arange(outer * inner).reshape(outer, inner)
    split = inner - 1 if part.weight and part.bias else inner
    return np.concatenate([order[:, :split].ravel(), order[:, split:].ravel()])


def grid(
    factors: Factors, rows: Sequence[Part], columns: Sequence[Part], mode: Mode, vec: str, dtype: np.dtype[Any]
) -> tuple[list[Side], list[Side], list[Block]]:
    """Return the arguments of `Backend.assemble` for the block of these rows and columns."""
    lower: dict[tuple[int, int], Block] = {}
    for row in rows:
        for column in columns:
            first, second = (row, column) if row.layer >= column.layer else (column, row)
            if (first.layer, second.layer) not in lower:
                lower[first.layer, second.layer] = _block(factors, first, second, mode, dtype)
    # The same numbers above the diagonal, so that the matrix is symmetric to the bit.
    ordered = [
        lower[row.layer, column.layer] if row.layer >= column.layer else _transposed(lower[column.layer, row.layer])
        for row in rows
        for column in columns
    ]
    if vec == "column":
        ordered = [Block(V, U, W, B) for U, V, B, W in ordered]
    return [_side(factors, part, vec) for part in rows], [_side(factors, part, vec) for part in columns], ordered


def _transposed(block: Block) -> Block:
    """Return the block with rows and columns exchanged: ``B[s,p] W[r,q]`` becomes ``W.T B.T``."""
    U, V, B, W = (
        None if matrix is None else devices.converted(matrix.T, devices.numpy_dtype(matrix)) for matrix in block
    )
    return Block(U, V, W, B)  # type: ignore[arg-type]


def _side(factors: Factors, part: Part, vec: str) -> Side:
    outputs, inputs = factors.weights[part.layer].shape
    if vec == "column":
        return Side(inputs * part.weight + part.bias, outputs, False)
    return Side(outputs, inputs * part.weight, part.bias)


def _block(factors: Factors, row: Part, column: Part, mode: Mode, dtype: np.dtype[Any]) -> Block:
    """Return the block of a layer's rows and the columns of the same or a lower layer."""
    upper, lower = row.layer, column.layer
    inner_rows = inner_indices(row, factors.weights[upper].shape[1])
    inner_columns = inner_indices(column, factors.weights[lower].shape[1])
    outer, inner = factors.output_gram(upper, lower), factors.input_gram(upper, lower)
    inner = Scaled(inner.matrix[inner_rows, inner_columns], inner.exponent)
    if mode == "functional":
        zeros_like = devices.namespace(inner.matrix).zeros_like
        outer, inner = Scaled(zeros_like(outer.matrix)), Scaled(zeros_like(inner.matrix))
    U, V = factors.numbers(outer, inner, dtype)
    if upper == lower or mode == "gauss_newton":
        return Block(U, V, None, None)
    between, gram = factors.between(lower, upper), factors.residual_gram(upper, lower)
    if between is None:
        between = Scaled(devices.eye(factors.weights[upper].shape[1], U))
    B = between.matrix
    if factors.has_bias:  # the constant input does not depend on any weight
        B = devices.concatenate([B, devices.namespace(B).zeros_like(B[:1])])
    left, right = Scaled(B[inner_rows], between.exponent), Scaled(gram.matrix[:, inner_columns], gram.exponent)
    return Block(U, V, *factors.numbers(left, right, dtype))
