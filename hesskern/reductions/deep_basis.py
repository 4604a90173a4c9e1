"""The eigenbasis of a network from that of the problem which its ranks leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Matrix
from hesskern.linalg.eigenbasis import Eigenbasis, InnerAndZeros
from hesskern.reductions.deep_ranks import DeepRanks, area, length


class DeepBasis(InnerAndZeros):
    """The eigenbasis of a network from that of the reduced problem: its eigenvalues, and zeros.

    Parameters
    ----------
    reduction : DeepRanks
    inner : Eigenbasis
        Of the reduced problem.
    order : sequence of arrays
        For each layer, the positions of its parameters in a matrix (m, n), row by row, as they are in a vector.
    structural_zeros : int
        How many eigenvalues are zero for any numbers of these shapes.
    """

    def __init__(
        self, reduction: DeepRanks, inner: Eigenbasis, order: Sequence[NDArray[np.intp]], structural_zeros: int
    ) -> None:
        self._reduction, self._inner, self._order = reduction, inner, order
        self.dense_size = inner.dense_size
        self.structural_zeros = structural_zeros
        self._zeros = sum(map(len, order)) - reduction.size

    def coordinates(self, columns: Matrix) -> Matrix:
        k = columns.shape[1]
        inside, outside = [], []
        at = 0
        for number, order in enumerate(self._order):
            matrix = np.empty((len(order), k))
            matrix[order] = columns[at : at + len(order)]
            at += len(order)
            cube = self._rotated(number, matrix, back=False)
            kept = np.zeros(cube.shape[:2], dtype=bool)
            for corner in self._reduction.rectangles[number]:
                inside.append(cube[corner].reshape(-1, k))
                kept[corner] = True
            outside.append(cube[~kept])
        return np.concatenate([self._inner.coordinates(np.concatenate([np.empty((0, k)), *inside])), *outside])

    def vectors(self, columns: Matrix) -> Matrix:
        k, size = columns.shape[1], self._reduction.size
        inside, outside = self._inner.vectors(columns[:size]), columns[size:]
        vectors = []
        at = first = 0
        for number, order in enumerate(self._order):
            rows, inputs = self._reduction.rows[number].size, self._reduction.columns[number].size
            cube = np.empty((rows, inputs, k))
            kept = np.zeros((rows, inputs), dtype=bool)
            for corner in self._reduction.rectangles[number]:
                entries = area(corner)
                cube[corner] = inside[at : at + entries].reshape(length(corner[0]), length(corner[1]), k)
                kept[corner] = True
                at += entries
            left = int(np.sum(~kept))
            cube[~kept] = outside[first : first + left]
            first += left
            vectors.append(self._rotated(number, cube.reshape(-1, k), back=True).reshape(-1, k)[order])
        return np.concatenate(vectors)

    def _rotated(self, number: int, matrix: Matrix, *, back: bool) -> Matrix:
        """Return the coordinates (m, n, k) of a layer's parameters, or the parameters of coordinates."""
        rows, columns = self._reduction.rows[number], self._reduction.columns[number]
        m, n, k = rows.size, columns.size, matrix.shape[1]
        cube = rows.rotate(matrix.reshape(m, n * k), back=back).reshape(m, n, k)
        turned = columns.rotate(cube.transpose(1, 0, 2).reshape(n, m * k), back=back)
        return np.ascontiguousarray(turned.reshape(n, m, k).transpose(1, 0, 2))
