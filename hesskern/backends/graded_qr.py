"""QR decomposition of a graded matrix, rows and columns pivoted, in place; see `hesskern.backends.product_svd`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Exponents = NDArray[np.int64]


def factor(
    a: Matrix,
    e: Matrix,
    rows: Exponents,
    columns: Exponents,
    order: Exponents,
    pivot: Exponents,
    v: Matrix,
    beta: Matrix,
    tolerance: float,
) -> tuple[int, float, float]:
    """Decompose ``2**rows * a * 2**columns``, whose entries have the errors e per rounding unit.

    Parameters
    ----------
    a, e : (m, n) array
        In the end R, and the errors of all its entries, those below the diagonal too.
    rows, columns, order, pivot : array of int
        Exponents of a's rows and columns, and what is to be pivoted with them.
    v, beta : (m, min(m, n)) and (min(m, n),) array of zeros
        For the reflections ``I - beta v (weight v).T``, one column each, rows in their own units as those of a are.
    tolerance : float
        An entry that is no larger than this times its error is zero.

    Returns
    -------
    rank : int
    kept, dropped : float
        The smallest pivot over its error (1 at most), and the largest of what was taken for zero over its error.
    """
    kept, dropped = 1.0, 0.0
    for k in range(len(beta)):
        left, errors = a[k:, k:], e[k:, k:]
        sizes = np.abs(left)
        noise = sizes <= tolerance * errors
        if noise.any():
            over = np.where(noise, sizes, 0.0) / np.where(errors > 0, errors, 1.0)
            dropped = max(dropped, over.max())
            sizes = np.where(noise, 0.0, sizes)
            left[:, :] = np.where(noise, 0.0, left)
        used = sizes.sum(axis=1) > 0
        if not used.any():
            return k, kept, dropped
        units = rows[k:]
        sizes *= np.ldexp(1.0, np.maximum(units - units[used].max(), -1100)).reshape(-1, 1)
        squares = (sizes * sizes).sum(axis=0)
        logarithms = np.log2(np.where(squares > 0, squares, 1.0)) + 2 * columns[k:]
        column = np.argmax(np.where(squares > 0, logarithms, -np.inf))
        row = k + np.argmax(sizes[:, column])
        column += k
        for matrix in (a, e):
            kept_column = matrix[:, k].copy()
            matrix[:, k] = matrix[:, column]
            matrix[:, column] = kept_column
        for matrix in (a, e, v):
            kept_row = matrix[k].copy()
            matrix[k] = matrix[row]
            matrix[row] = kept_row
        columns[k], columns[column] = columns[column], columns[k]
        pivot[k], pivot[column] = pivot[column], pivot[k]
        rows[k], rows[row] = rows[row], rows[k]
        order[k], order[row] = order[row], order[k]

        reflection, errors = v[k:, k], e[k:]
        reflection[:] = a[k:, k]
        weight = np.ldexp(1.0, np.minimum(np.maximum(2 * (units - units[0]), -1100), 1000))
        weighted = weight * reflection
        norm = np.sqrt((weighted * reflection).sum())
        error = np.sqrt((weight * errors[:, k] * errors[:, k]).sum())
        if norm < kept * error:
            kept = norm / error
        head = -norm if reflection[0] > 0 else norm
        reflection[0] -= head
        weighted[0] = reflection[0]
        beta[k] = -1.0 / (head * reflection[0])
        a[k, k] = head
        a[k + 1 :, k] = 0.0
        back, across = (beta[k] * reflection).reshape(-1, 1), weighted.reshape(-1, 1)
        rest = a[k:, k + 1 :]
        rest -= back * (across * rest).sum(axis=0)
        # Independent errors add up as squares do, and so do not grow.
        weighed = across * errors
        arriving = np.abs(back) * np.sqrt((weighed * weighed).sum(axis=0))
        errors[:, :] = np.maximum(np.maximum(errors, arriving), np.abs(a[k:]))
    return len(beta), kept, dropped
