"""Orthogonal bases whose first directions span spaces that contain one another."""

from __future__ import annotations

import numpy as np

from hesskern._base import decompositions
from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern.linalg.tall_qr import TallQR

EPSILON = float(np.finfo(np.float64).eps)
#: Singular values up to this many units of rounding of a matrix of their size are taken for zero.
UNITS = 4.0


class Directions:
    """An orthogonal basis of one side of a layer, adapted to nested spaces.

    `inner` spaces (what the functional part reads) lie in the `kept` one (what the Gauss-Newton part reads), and that
    in the `outer` ones (what other layers' functional parts reach). Each is spanned by the first directions.

    Parameters
    ----------
    matrix : (r, n) array
        Its rows span the kept space.
    least : float
        Singular values up to this one are taken for zero.
    """

    def __init__(self, matrix: Matrix, least: float) -> None:
        self.size = matrix.shape[1]
        _, values, vectors = decompositions.svd(matrix, full_matrices=False)
        self.kept = int(np.sum(values > least))
        #: An orthonormal basis of the kept space, and of the outer ones.
        self.basis: Matrix = vectors[: self.kept].T
        #: Dimensions of the inner and the outer spaces, by the layer that makes them.
        self.inner: dict[int, int] = {}
        self.outer: dict[int, int] = {}

    def nest(self, seen: dict[int, tuple[Matrix, float]], most: int) -> None:
        """Turn the kept directions so that the first span nested spaces.

        Parameters
        ----------
        seen : dict of int to ((r, kept) array, float)
            The smallest space first: matrices whose rows span it, in coordinates of the kept directions, and the
            singular value up to which one is rounding.
        most : int
            A bound on the dimension of their sum.
        """
        basis: Matrix = np.zeros((self.kept, 0))
        for layer, (rows, least) in seen.items():
            basis = _extended(basis, rows, least, most)
            self.inner[layer] = basis.shape[1]
        self.basis = self.basis @ _completed(basis)

    def extend(self, reached: dict[int, Matrix | None]) -> None:
        """Add directions beyond the kept ones: the rows of these matrices, the smallest space first; None: all."""
        for layer, rows in reached.items():
            if rows is not None and self.basis.shape[1] < self.size:
                least = UNITS * max(rows.shape) * EPSILON * float(np.linalg.norm(rows))
                self.basis = _extended(self.basis, rows, least, self.size)
            self.outer[layer] = self.size if rows is None else self.basis.shape[1]

    @cached_property
    def _qr(self) -> TallQR | None:
        return TallQR(self.basis.copy(order="F")) if self.basis.shape[1] else None

    def rotate(self, vectors: Matrix, *, back: bool) -> Matrix:
        """Return the coordinates of vectors (n, k), or (`back`) the vectors of coordinates."""
        return vectors if self._qr is None else self._qr.rotate(vectors, back=back)


def _extended(basis: Matrix, rows: Matrix, least: float, most: int) -> Matrix:
    """Return an orthonormal basis (n, k) with the directions of further rows, at most `most` in all."""
    if basis.shape[1] >= most:
        return basis
    rest = rows
    for _ in range(2 if basis.shape[1] else 0):  # twice, so that what is left is orthogonal to the basis
        rest = rest - (rest @ basis) @ basis.T
    _, values, vectors = decompositions.svd(rest, full_matrices=False)
    count = min(int(np.sum(values > least)), most - basis.shape[1])
    return np.hstack([basis, vectors[:count].T])


def _completed(basis: Matrix) -> Matrix:
    """Return a square orthogonal matrix whose first columns span those of the basis."""
    n, k = basis.shape
    if k == 0:
        return np.eye(n)
    left, _, _ = decompositions.svd(basis)
    return np.hstack([basis, left[:, k:]])
