"""The eigenbasis of a network with a wide hidden layer, from the eigenbasis of the reduced network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hesskern._base import decompositions
from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern._base.flat_layout import FlatLayout, join
from hesskern.backends.protocol import PlainLayers
from hesskern.linalg.eigenbasis import Eigenbasis, Values
from hesskern.linalg.spectrum import Spectrum
from hesskern.network.parameters import Part
from hesskern.reductions.width_reduction import WidthReduction


class WidthBasis:
    """Of a network with a wide hidden layer: the reduced one's basis, and the small block for each left-over unit.

    Parameters
    ----------
    reduction : WidthReduction
    small : PlainLayers
        After the reduction.
    coupling : (above, below) array
        See `WidthReduction.coupling`.
    inner : Eigenbasis
        Of the network after the reduction.
    parts : sequence of Part
    rank : int
        A bound on the rank of `coupling`.
    """

    def __init__(
        self,
        reduction: WidthReduction,
        small: PlainLayers,
        coupling: Matrix,
        inner: Eigenbasis,
        parts: Sequence[Part],
        rank: int,
    ) -> None:
        self._reduction, self._small, self._inner, self._parts = reduction, small, inner, parts
        self.dense_size = inner.dense_size
        # Columns: parameters below the unit; rows: above it. Full orthogonal factors, padded with zero singular values.
        self._above, sigma, below = decompositions.svd(coupling)
        self._below = below.T
        self._pairs = min(len(sigma), rank)
        sigma = sigma[: self._pairs]
        root = np.sqrt(0.5)
        self._mix = np.array([[root, root], [root, -root]])
        num_zeros = sum(coupling.shape) - 2 * self._pairs
        self.small_values = np.concatenate([sigma, -sigma, np.zeros(num_zeros)])
        self.structural_zeros = inner.structural_zeros + reduction.left_over * num_zeros

    @cached_property
    def groups(self) -> Spectrum:
        inner = self._inner.groups
        count = np.full(len(self.small_values), self._reduction.left_over)
        return Spectrum._of(
            np.concatenate([inner.values, self.small_values]), np.concatenate([inner.multiplicities, count])
        )

    @cached_property
    def values(self) -> Values:
        return np.concatenate([self._inner.values, np.tile(self.small_values, self._reduction.left_over)])

    def coordinates(self, columns: Matrix) -> Matrix:
        kept, k = self._reduction.kept, columns.shape[1]
        weights, biases = _split(self._reduction.net, self._parts, columns)
        below, above = self._around(weights, biases, self._reduction.units, k)
        rotated_below = self._rotate(below, back=False)  # (h, parameters below, k)
        rotated_above = self._rotate(above, back=False)
        self._put_around(weights, biases, rotated_below[:kept], rotated_above[:kept])
        inner = self._inner.coordinates(join(weights, biases, axis=0))
        a = np.einsum("hpk,pq->hqk", rotated_below[kept:], self._below)
        c = np.einsum("hpk,pq->hqk", rotated_above[kept:], self._above)
        pairs = self._pairs
        plus = self._mix[0, 0] * a[:, :pairs] + self._mix[0, 1] * c[:, :pairs]
        minus = self._mix[1, 0] * a[:, :pairs] + self._mix[1, 1] * c[:, :pairs]
        small = np.concatenate([plus, minus, a[:, pairs:], c[:, pairs:]], axis=1)
        return np.concatenate([inner, small.reshape(-1, k)])

    def vectors(self, columns: Matrix) -> Matrix:
        kept, k = self._reduction.kept, columns.shape[1]
        small_size = len(self.small_values)
        split = len(columns) - small_size * self._reduction.left_over
        weights, biases = _split(self._small, self._parts, self._inner.vectors(columns[:split]))
        small = columns[split:].reshape(self._reduction.left_over, small_size, k)
        pairs, below_size = self._pairs, len(self._below)
        plus, minus = small[:, :pairs], small[:, pairs : 2 * pairs]
        rest_a, rest_c = np.split(small[:, 2 * pairs :], [below_size - pairs], axis=1)
        a = np.concatenate([self._mix[0, 0] * plus + self._mix[1, 0] * minus, rest_a], axis=1)
        c = np.concatenate([self._mix[0, 1] * plus + self._mix[1, 1] * minus, rest_c], axis=1)
        below, above = self._around(weights, biases, kept, k)
        self._put_around(
            weights,
            biases,
            self._rotate(np.concatenate([below[:kept], np.einsum("hqk,pq->hpk", a, self._below)]), back=True),
            self._rotate(np.concatenate([above[:kept], np.einsum("hqk,pq->hpk", c, self._above)]), back=True),
        )
        vectors: Matrix = join(weights, biases, axis=0)
        return vectors

    def _rotate(self, cube: Matrix, *, back: bool) -> Matrix:
        return self._reduction.rotate(cube.reshape(len(cube), -1), back=back).reshape(cube.shape)

    def _around(
        self, weights: Sequence[Matrix | None], biases: Sequence[Matrix | None], units: int, k: int
    ) -> tuple[Matrix, Matrix]:
        """Return the selected parameters below (h, p, k) and above (h, o, k) each unit of the layer."""
        layer = self._reduction.layer
        below, above = np.zeros((units, 0, k)), np.zeros((units, 0, k))
        weight, bias, upper = weights[layer], biases[layer], weights[layer + 1]
        if weight is not None:
            below = weight
        if bias is not None:
            below = np.concatenate([below, bias[:, None, :]], axis=1)
        if upper is not None:
            above = upper.transpose(1, 0, 2)
        return below, above

    def _put_around(
        self, weights: list[Matrix | None], biases: list[Matrix | None], below: Matrix, above: Matrix
    ) -> None:
        """Replace the selected parameters around the layer's units."""
        layer = self._reduction.layer
        inputs = below.shape[1] - (biases[layer] is not None)
        if weights[layer] is not None:
            weights[layer] = below[:, :inputs]
        if biases[layer] is not None:
            biases[layer] = below[:, -1]
        if weights[layer + 1] is not None:
            weights[layer + 1] = above.transpose(1, 0, 2)


def _split(net: PlainLayers, parts: Sequence[Part], columns: Matrix) -> tuple[list[Matrix | None], list[Matrix | None]]:
    """Return each selected weight and bias, with one vector along the last axis."""
    return FlatLayout.of(net.weights, net.biases).select(parts).split(columns, axis=0)
