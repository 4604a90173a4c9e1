"""The reduction by ranks (`hesskern.reductions.deep_ranks`) of the Hessian of a network at a point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from hesskern._base.array_types import Matrix
from hesskern._base.powers import MODERATE
from hesskern.curvature.dense_blocks import inner_indices, interleaved
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.linalg.eigenbasis import Eigenbasis, ZeroedBasis
from hesskern.network.parameters import Part
from hesskern.network.predicted_rank import predicted_rank
from hesskern.reductions.deep_basis import DeepBasis
from hesskern.reductions.deep_ranks import DeepRanks, LayerSides, Shape, largest_size

#: Eigenproblems up to this size take no longer than the search for low ranks.
_LARGE = 200


def deep_ranks_of(
    factors: Factors, parts: Sequence[Part], mode: Mode, residual_error: Callable[[], float]
) -> DeepRanks | None:
    """Return the reduction, or None where it leaves everything, where it cannot pay, or where squares may overflow."""
    if not moderate_sizes(factors) or not _pays(factors, parts, mode):
        return None
    error = residual_error()
    if not np.isfinite(error):
        return None
    layers = []
    for part in parts:
        top, inputs = factors.above[part.layer], factors.inputs[part.layer].value
        selected = inputs[:, inner_indices(part, factors.weights[part.layer].shape[1])]
        layers.append(LayerSides(None if top is None else top.value, selected))

    def between(lower: int, upper: int) -> Matrix | None:
        first, second = parts[lower], parts[upper]
        product = factors.between(first.layer, second.layer)
        if product is None and second.weight and not second.bias:
            return None
        matrix = np.eye(len(factors.weights[first.layer])) if product is None else product.value
        if factors.has_bias:  # the constant input does not depend on any weight
            matrix = np.concatenate([matrix, np.zeros_like(matrix[:1])])
        return matrix[inner_indices(second, factors.weights[second.layer].shape[1])]

    reduction = DeepRanks(
        layers, _lowest(factors, parts), factors.residual.value, error, between, factors.scale, mode=mode
    )
    whole = sum(
        len(factors.weights[part.layer]) * layer.inputs.shape[1] for part, layer in zip(parts, layers, strict=True)
    )
    return reduction if reduction.size < whole else None


def moderate_sizes(factors: Factors) -> bool:
    """Return whether no product of a few of these matrices, squared, leaves the range of float64."""
    biases = [bias for bias in factors.biases if bias is not None]
    largest = [float(np.abs(matrix).max(initial=0.0)) for matrix in (*factors.weights, *biases, factors.X, factors.Y)]
    return all(map(math.isfinite, largest)) and sum(abs(math.log2(size)) for size in largest if size) <= MODERATE


def _pays(factors: Factors, parts: Sequence[Part], mode: Mode) -> bool:
    """Return whether eigenvalues are zero by shape, or the problem is so large that a low rank of the numbers helps."""
    size = sum(m * n for m, n in _shapes(factors, parts))
    decomposed = min(size, len(factors.weights[-1]) * len(factors.X)) if mode == "gauss_newton" else size
    return size - structural_zeros(factors, parts, mode) < decomposed or decomposed > _LARGE


def deep_basis(
    reduction: DeepRanks, inner: Eigenbasis, factors: Factors, parts: Sequence[Part], mode: Mode
) -> DeepBasis:
    """Return the eigenbasis of all selected parameters."""
    shapes = _shapes(factors, parts)
    order = [
        interleaved(n, m, part) if part.bias else np.arange(m * n) for (m, n), part in zip(shapes, parts, strict=True)
    ]
    zeros = structural_zeros(factors, parts, mode)
    rank = sum(m * n for m, n in shapes) - zeros
    return DeepBasis(reduction, ZeroedBasis(inner, rank) if len(inner.values) > rank else inner, order, zeros)


def structural_zeros(factors: Factors, parts: Sequence[Part], mode: Mode) -> int:
    """Return how many eigenvalues are zero for any numbers of these shapes."""
    shapes = _shapes(factors, parts)
    widths = [factors.weights[0].shape[1], *(len(weight) for weight in factors.weights)]
    samples = len(factors.X)
    bounds = [
        Shape(
            m,
            n,
            min(widths[part.layer + 1 :]),
            min(samples, n, min(widths[: part.layer + 1]) + factors.has_bias),
            part.weight and part.bias >= factors.has_bias,
            part.weight,
        )
        for (m, n), part in zip(shapes, parts, strict=True)
    ]

    def narrowest(lower: int, upper: int) -> int:
        return int(min(widths[parts[lower].layer + 1 : parts[upper].layer + 1]))

    rank = largest_size(bounds, _lowest(factors, parts), narrowest, mode)
    if mode == "gauss_newton":
        seen = min(samples, widths[0])
        q = min(seen, *widths)
        free = widths[-1] if factors.has_bias else 0  # what biases move at each output
        rank = min(rank, samples * widths[-1], q * (seen + widths[-1] - q) + free)
    if not factors.has_bias and len(parts) == factors.depth:
        # The rank in general position is the largest there is; the size may exceed it where layers are narrow.
        rank = min(rank, getattr(predicted_rank(widths, samples), mode))
    return sum(m * n for m, n in shapes) - rank


def _shapes(factors: Factors, parts: Sequence[Part]) -> list[tuple[int, int]]:
    """Return rows and selected columns of each layer."""
    weights = factors.weights
    return [(len(weights[layer]), weights[layer].shape[1] * weight + bias) for layer, weight, bias in parts]


def _lowest(factors: Factors, parts: Sequence[Part]) -> int:
    """Return a bound on the rank of all inputs of the lowest selected layer."""
    return int(min(factors.inputs[parts[0].layer].matrix.shape))
