"""Singular values and numerical rank of a product ``first W_1.T W_2.T ...`` that is never formed, by LAPACK.

After Drmač (1998, SIAM J. Matrix Anal. Appl. 19, 1055). One stage takes C and W and replaces them by one factor with
the same singular values: with D the column norms of C and ``W D = Q R P.T`` (rows sorted by size, columns pivoted),
``C W.T = (C D^-1) P R.T Q.T``, so C becomes ``(C D^-1) P R.T`` and the next W becomes ``W_next Q``. Column scales of
C and row scales of W, however extreme, pass through exactly. The last factor's values come from one-sided Jacobi
(dgejsv).

Every matrix travels with the magnitudes it was summed from. Ranks are decided on matrices equilibrated by these, so
that neither scaling hides a direction nor a rounding error poses as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern import decompositions
from hesskern.backends.protocol import ProductSvd

Matrix = NDArray[np.float64]


def _power_of_two(x: Matrix) -> Matrix:
    """Return the powers of two next to x, 1 for zero: scaling by them rounds nothing."""
    return np.where(x > 0, np.exp2(np.frexp(x)[1] - 1.0), 1.0)


def _singular_values(matrix: Matrix) -> Matrix:
    """Return min(m, n) singular values, descending, to the accuracy that the scaled columns determine."""
    from scipy.linalg import lapack, qr  # noqa: PLC0415 - not needed before the first of them

    decompositions.finite(matrix)
    R = qr(matrix, mode="r", pivoting=True, check_finite=False)[0][: min(matrix.shape)]
    # joba=0, jobr=0: columns of any scale, none of them dropped as small; neither singular vectors nor a transpose.
    values, _, _, work, _, info = lapack.dgejsv(R.T, joba=0, jobu=3, jobv=3, jobr=0, jobt=1, jobp=1)
    if info > 0:
        raise RuntimeError("singular values did not converge in LAPACK's Jacobi iteration")
    found: Matrix = np.sort(values * (work[0] / work[1]))[::-1]
    return found


class _Decisions:
    """Ranks decided along the product, and how surely."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self.kept, self.dropped, self.amplification = 1.0, 0.0, 1.0

    def rank(self, matrix: Matrix, size: Matrix) -> int:
        """Return the rank of a matrix whose entries carry rounding errors in proportion to `size`."""
        columns: Matrix = np.ones(matrix.shape[1])
        for _ in range(2):
            rows = 1 / _power_of_two((size * columns).max(axis=1, initial=0.0))
            columns = 1 / _power_of_two((size * rows[:, None]).max(axis=0, initial=0.0))
        values = _singular_values(matrix * rows[:, None] * columns)
        values /= max(1.0, values[0])
        rank = int(np.sum(values > self._tolerance))
        if rank:
            self.kept = min(self.kept, float(values[rank - 1]))
            self.amplification += 1 / float(values[rank - 1])
        if rank < len(values):
            self.dropped = max(self.dropped, float(values[rank]))
        return rank


def product_svd(first: Matrix, weights: Sequence[Matrix], tolerance: float, *, rotated: bool) -> ProductSvd:
    """Return the singular values of the product and its rank; see `Backend.product_svd`."""
    from scipy.linalg import qr  # noqa: PLC0415

    count = min(first.shape + tuple(len(weight) for weight in weights))
    nothing = np.zeros(count)
    decisions = _Decisions(tolerance)
    unit = float(_power_of_two(np.abs(first).max(initial=0.0)[None])[0])  # so that no square overflows or vanishes
    C = first / unit
    size = np.abs(C)
    if rotated:  # small rows may be nothing but the rounding errors of the rotation
        size = np.broadcast_to(np.linalg.norm(size, axis=0), C.shape)
    deficient = False
    Q = order = None
    for weight in weights:
        W, W_size = weight, np.abs(weight)
        if Q is not None:
            W = weight[:, order] @ Q
            W_size = np.broadcast_to(np.linalg.norm(weight, axis=1)[:, None], W.shape)
        norms = np.linalg.norm(size, axis=0)
        scale = _power_of_two(norms)
        C, size = C / scale, size / scale
        scale = np.where(norms > 0, scale, 0.0)
        W, W_size = W * scale, W_size * scale
        rank = decisions.rank(W, W_size)
        if rank == 0:
            return ProductSvd(nothing, 0, decisions.kept, decisions.dropped, decisions.amplification)
        deficient = deficient or rank < min(W.shape)
        order = np.argsort(-np.abs(W).max(axis=1), kind="stable")  # largest rows first: stable row by row
        Q, R, pivot = qr(W[order], mode="economic", pivoting=True, check_finite=False)
        Q, R = Q[:, :rank], R[:rank]
        C, size = C[:, pivot] @ R.T, size[:, pivot] @ np.abs(R).T
    rank = decisions.rank(C, size)
    values = nothing
    if rank:
        found = _singular_values(C)
        values[: len(found)] = unit * found[:count]
        if deficient or rank < min(C.shape):
            # A direction was left out: what rounding made of it may stand above a small value that counts.
            decisions.amplification += float(found[0] / found[rank - 1])
    return ProductSvd(values, rank, decisions.kept, decisions.dropped, decisions.amplification)
