"""The reduction by ranks (`hesskern.reductions.deep_ranks`) of the Hessian of a network at a point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hesskern._base.array_types import Matrix
from hesskern.curvature.dense_blocks import inner_indices, interleaved
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.linalg.eigenbasis import Eigenbasis
from hesskern.network.parameters import Part
from hesskern.reductions.deep_ranks import DeepBasis, DeepRanks, Layer, largest_size


def deep_ranks_of(factors: Factors, parts: Sequence[Part], mode: Mode, residual_error: float) -> DeepRanks | None:
    """Return the reduction, or None where it leaves everything, or where squares may overflow."""
    if not factors.ordinary or not np.isfinite(residual_error):
        return None
    layers = []
    for part in parts:
        top, inputs = factors.above[part.layer], factors.inputs[part.layer].matrix
        selected = inputs[:, inner_indices(part, factors.weights[part.layer].shape[1])]
        layers.append(Layer(None if top is None else top.matrix, selected))

    def between(lower: int, upper: int) -> Matrix:
        first, second = parts[lower], parts[upper]
        product = factors.between(first.layer, second.layer)
        matrix = np.eye(len(factors.weights[first.layer])) if product is None else product.matrix
        if factors.has_bias:  # the constant input does not depend on any weight
            matrix = np.concatenate([matrix, np.zeros_like(matrix[:1])])
        return matrix[inner_indices(second, factors.weights[second.layer].shape[1])]

    lowest = factors.inputs[parts[0].layer].matrix
    reduction = DeepRanks(
        layers,
        lowest,
        factors.residual.matrix,
        residual_error,
        between,
        factors.scale,
        mode=mode,
    )
    whole = sum(
        len(factors.weights[part.layer]) * layer.inputs.shape[1] for part, layer in zip(parts, layers, strict=True)
    )
    return reduction if reduction.size < whole else None


def deep_basis(
    reduction: DeepRanks, inner: Eigenbasis, factors: Factors, parts: Sequence[Part], mode: Mode
) -> DeepBasis:
    """Return the eigenbasis of all selected parameters."""
    shapes = [(rows.size, columns.size) for rows, columns in zip(reduction.rows, reduction.columns, strict=True)]
    order = [
        interleaved(n, m, part) if part.bias else np.arange(m * n) for (m, n), part in zip(shapes, parts, strict=True)
    ]
    rows, outputs = factors.residual.matrix.shape
    widths = [factors.weights[0].shape[1], *(len(weight) for weight in factors.weights)]
    bounds = []
    for (m, n), part in zip(shapes, parts, strict=True):
        below, above = widths[: part.layer + 1], widths[part.layer + 1 :]
        inputs_rank = min(rows, n, min(below) + factors.has_bias)
        bounds.append((m, n, min(above), inputs_rank))
    zeros = sum(m * n for m, n in shapes) - largest_size(
        bounds, outputs, factors.inputs[parts[0].layer].matrix.shape[1], mode
    )
    return DeepBasis(reduction, inner, order, zeros)
