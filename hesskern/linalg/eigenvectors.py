"""Eigenvectors that are kept as a basis, and the change of coordinates, a few vectors at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hesskern._base import memory
from hesskern._base.array_types import Array, Matrix
from hesskern._base.interrupt import RATE, interruptibly
from hesskern.linalg.eigenbasis import Eigenbasis
from hesskern.linalg.matrix_operator import MatrixOperator

#: Numbers of vectors whose coordinates are changed at once: their copies stay small next to the result.
_NUMBERS_AT_ONCE = 1 << 20
#: Up to this size of a result nobody looks whether it fits into the memory.
_FEW_BYTES = 1 << 20


class Eigenvectors(MatrixOperator):
    """Chosen eigenvectors as an operator (P, k): coordinates in, vectors out."""

    def __init__(self, basis: Eigenbasis, chosen: NDArray[np.intp], size: int) -> None:
        self._basis, self._chosen = basis, chosen
        super().__init__(np.dtype(np.float64), (size, len(chosen)))

    def _matmat(self, C: Array) -> Array:
        coordinates = np.zeros((len(self._basis.values), C.shape[1]))
        coordinates[self._chosen] = C
        return changed(self._basis.vectors, coordinates, self._basis)

    def _rmatmat(self, V: Array) -> Array:
        return changed(self._basis.coordinates, np.asarray(V, dtype=np.float64), self._basis)[self._chosen]

    def _matvec(self, c: Array) -> Array:
        return self._matmat(np.reshape(c, (-1, 1)))[:, 0]

    def _rmatvec(self, v: Array) -> Array:
        return self._rmatmat(np.reshape(v, (-1, 1)))[:, 0]

    def toarray(self) -> Array:
        """Return the eigenvectors as a dense (P, k) array."""
        size, count = self.shape
        needed = 8 * size * count + moved_bytes(size, count)
        if needed > _FEW_BYTES:
            memory.require(
                needed,
                f"a dense array of {count} eigenvectors of length {size}",
                "ask for fewer (k=), or for dense=False.",
            )
        out = np.empty(self.shape)
        for some in pieces(size, count):
            out[:, some] = self._matmat(np.eye(count, some.stop - some.start, -some.start))
        return out


def pieces(size: int, count: int) -> list[slice]:
    """Return which of `count` columns of length `size` change coordinates at once."""
    step = max(_NUMBERS_AT_ONCE // size, 8)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def moved_bytes(size: int, count: int) -> int:
    """Return about how much memory the largest piece takes while it is lifted: up to eight arrays of its size."""
    return 8 * 8 * size * int(max((piece.stop - piece.start for piece in pieces(size, count)), default=0))


def changed(change: Callable[[Matrix], Matrix], columns: Matrix, basis: Eigenbasis) -> Matrix:
    """Return columns in other coordinates of a basis; Ctrl-C leaves a long change."""
    return interruptibly(change, columns, seconds=2.0 * columns.size * basis.dense_size / RATE)
