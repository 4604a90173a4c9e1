"""The full orthogonal factor of a tall QR decomposition, kept as Householder reflectors and never formed."""

from __future__ import annotations

import numpy as np

from hesskern._base import decompositions
from hesskern._base.array_types import Matrix


class TallQR:
    """``A = Q [R; 0]`` of a tall (h, r) matrix: R, and products with the (h, h) matrix Q in O(h r) each.

    Parameters
    ----------
    tall : (h, r) array
        With h >= r; it may be destroyed if it is Fortran-ordered.
    """

    def __init__(self, tall: Matrix) -> None:
        self._reflectors, self._tau = decompositions.reflectors(tall)

    @property
    def R(self) -> Matrix:  # noqa: N802 - the field's name
        """The triangular factor (r, r)."""
        triangle: Matrix = np.triu(self._reflectors[: len(self._tau)])
        return triangle

    def rotate(self, vectors: Matrix, *, back: bool) -> Matrix:
        """Return ``Q.T vectors``, or (`back`) ``Q vectors``, for vectors (h, k)."""
        if vectors.size == 0:
            return vectors
        return decompositions.rotated(self._reflectors, self._tau, vectors, back=back)
