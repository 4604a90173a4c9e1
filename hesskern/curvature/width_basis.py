"""The eigenbasis of a network with a wide hidden layer, from that of the reduced network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern.backends.protocol import PlainLayers
from hesskern.curvature.width_reduction import WidthReduction
from hesskern.linalg import decompositions
from hesskern.linalg.eigenbasis import Eigenbasis, Values
from hesskern.linalg.spectrum import Spectrum
from hesskern.network.parameters import Part


class WidthBasis:
    """Of a network with a wide hidden layer: the reduced one's basis, and the small block for each left-over unit."""

    def __init__(
        self,
        reduction: WidthReduction,
        small: PlainLayers,
        coupling: Matrix,
        inner: Eigenbasis,
        parts: Sequence[Part],
    ) -> None:
        self._reduction, self._small, self._inner, self._parts = reduction, small, inner, parts
        self.dense_size = inner.dense_size
        # Columns: parameters below the unit; rows: above it. Full orthogonal factors, padded with zero singular values.
        self._above, sigma, below = decompositions.svd(coupling)
        self._below = below.T
        self._pairs = len(sigma)
        root = np.sqrt(0.5)
        self._mix = np.array([[root, root], [root, -root]])
        rest = sum(coupling.shape) - 2 * self._pairs
        self.small_values = np.concatenate([sigma, -sigma, np.zeros(rest)])
        zeros = rest if coupling.any() else len(self.small_values)
        self.structural_zeros = inner.structural_zeros + reduction.left_over * zeros

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
        blocks = _split(self._reduction.net, self._parts, columns)
        below, above = self._around(blocks, self._reduction.units)
        reduced = dict(blocks)
        rotated_below = self._rotate(below, back=False)  # (h, parameters below, k)
        rotated_above = self._rotate(above, back=False)
        self._put_around(reduced, rotated_below[:kept], rotated_above[:kept])
        inner = self._inner.coordinates(_join(self._parts, reduced, k))
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
        reduced = _split(self._small, self._parts, self._inner.vectors(columns[:split]))
        small = columns[split:].reshape(self._reduction.left_over, small_size, k)
        pairs, below_size = self._pairs, len(self._below)
        plus, minus = small[:, :pairs], small[:, pairs : 2 * pairs]
        rest_a, rest_c = np.split(small[:, 2 * pairs :], [below_size - pairs], axis=1)
        a = np.concatenate([self._mix[0, 0] * plus + self._mix[1, 0] * minus, rest_a], axis=1)
        c = np.concatenate([self._mix[0, 1] * plus + self._mix[1, 1] * minus, rest_c], axis=1)
        below, above = self._around(reduced, kept)
        full = dict(reduced)
        self._put_around(
            full,
            self._rotate(np.concatenate([below[:kept], np.einsum("hqk,pq->hpk", a, self._below)]), back=True),
            self._rotate(np.concatenate([above[:kept], np.einsum("hqk,pq->hpk", c, self._above)]), back=True),
        )
        return _join(self._parts, full, k)

    def _rotate(self, cube: Matrix, *, back: bool) -> Matrix:
        return self._reduction.rotate(cube.reshape(len(cube), -1), back=back).reshape(cube.shape)

    def _around(self, blocks: dict[tuple[int, str], Matrix], units: int) -> tuple[Matrix, Matrix]:
        """Return the selected parameters below (h, p, k) and above (h, o, k) each unit of the layer."""
        layer = self._reduction.layer
        k = next(iter(blocks.values())).shape[-1]
        below, above = np.zeros((units, 0, k)), np.zeros((units, 0, k))
        if (layer, "weight") in blocks:
            below = blocks[layer, "weight"]
        if (layer, "bias") in blocks:
            below = np.concatenate([below, blocks[layer, "bias"][:, None, :]], axis=1)
        if (layer + 1, "weight") in blocks:
            above = blocks[layer + 1, "weight"].transpose(1, 0, 2)
        return below, above

    def _put_around(self, blocks: dict[tuple[int, str], Matrix], below: Matrix, above: Matrix) -> None:
        layer = self._reduction.layer
        inputs = below.shape[1] - ((layer, "bias") in blocks)
        if (layer, "weight") in blocks:
            blocks[layer, "weight"] = below[:, :inputs]
        if (layer, "bias") in blocks:
            blocks[layer, "bias"] = below[:, -1]
        if (layer + 1, "weight") in blocks:
            blocks[layer + 1, "weight"] = above.transpose(1, 0, 2)


def _split(net: PlainLayers, parts: Sequence[Part], columns: Matrix) -> dict[tuple[int, str], Matrix]:
    """Return each selected parameter, with one vector along the last axis."""
    blocks: dict[tuple[int, str], Matrix] = {}
    at, k = 0, columns.shape[1]
    for part in parts:
        outputs, inputs = net.weights[part.layer].shape
        if part.weight:
            blocks[part.layer, "weight"] = columns[at : at + outputs * inputs].reshape(outputs, inputs, k)
            at += outputs * inputs
        if part.bias:
            blocks[part.layer, "bias"] = columns[at : at + outputs]
            at += outputs
    return blocks


def _join(parts: Sequence[Part], blocks: dict[tuple[int, str], Matrix], k: int) -> Matrix:
    pieces: list[Matrix] = []
    for part in parts:
        if part.weight:
            pieces.append(blocks[part.layer, "weight"].reshape(-1, k))
        if part.bias:
            pieces.append(blocks[part.layer, "bias"])
    return np.concatenate(pieces)
