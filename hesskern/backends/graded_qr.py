"""QR decomposition of a graded matrix, rows and columns pivoted, in place; see `hesskern.backends.product_svd`."""

from __future__ import annotations

import math
from typing import Any

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
) -> tuple[int, float, float, float]:
    """Decompose ``2**rows * a * 2**columns``, whose entries have the errors e per rounding unit.

    Parameters
    ----------
    a, e : (m, n) array
        In the end R, and the errors of all its entries, those below the diagonal too.
    rows, columns, order, pivot : array of int
        Exponents of a's rows and columns, and the arrays that are pivoted with them.
    v, beta : (m, min(m, n)) and (min(m, n),) array of zeros
        For the reflections ``I - beta v (scale² v).T``, one column each, with rows in their own units, like the rows of
        a; `scale` takes them to the unit of the pivot's row. The pivot's entry of v is about one.
    tolerance : float
        An entry that is no larger than this times its error is zero.

    Returns
    -------
    rank : int
    kept, dropped : float
        The smallest pivot over its error (1 at most), and the largest entry counted as zero over its error.
    unknown : float
        The largest relative error of a pivot, without the errors of entries that count as zero.
    """
    kept, dropped, unknown = 1.0, 0.0, 0.0
    for k in range(len(beta)):
        trailing, errors, units = a[k:, k:], e[k:, k:], rows[k:]
        sizes, base = np.abs(trailing), units
        noise = sizes <= tolerance * errors
        if np.count_nonzero(noise):
            dropped = max(dropped, float(np.max(sizes[noise] / np.where(errors[noise] > 0, errors[noise], 1.0))))
            sizes[noise] = trailing[noise] = 0.0
            base = units[sizes.any(axis=1)]
            if base.size == 0:
                return k, kept, dropped, unknown
        sizes *= power(units - base.max())[:, None]
        with np.errstate(divide="ignore"):
            column = k + int((np.log2(np.add.reduce(sizes * sizes)) + 2 * columns[k:]).argmax())
        row = k + int(sizes[:, column - k].argmax())
        if column != k:
            for x in (a.T, e.T, columns, pivot):
                _exchange(x, k, column)
        if row != k:
            for x in (a, e, rows, order, v):
                _exchange(x, k, row)

        reflection, scale, errors = v[k:, k], power(units - units[0]), e[k:]
        # Over a power of two, so that the pivot is about one: squares in its row's unit may be out of range.
        shift = -int(np.frexp(abs(a[k, k]))[1])
        reflection[:] = np.ldexp(a[k:, k], shift)
        weighted = scale * (scale * reflection)  # the square of a scale may be out of range
        norm = math.sqrt(weighted @ reflection)
        wrong = np.square(np.ldexp(scale * errors[:, k], shift))
        error, nonzero_error = math.sqrt(wrong.sum()), math.sqrt(wrong[reflection != 0].sum())
        if norm < kept * error:
            kept = norm / error
        unknown = max(unknown, nonzero_error / norm if norm > 0 else math.inf)
        head = -norm if reflection[0] > 0 else norm
        weighted[0] = reflection[0] = reflection[0] - head
        beta[k] = -1.0 / (head * reflection[0])
        a[k, k], a[k + 1 :, k] = np.ldexp(head, -shift), 0.0
        remaining, back = a[k:, k + 1 :], (beta[k] * reflection)[:, None]
        remaining -= back * (weighted @ remaining)
        # Independent errors add up as squares do, and so do not grow.
        arriving = np.abs(back) * np.sqrt(np.add.reduce(np.square(weighted[:, None] * errors)))
        np.maximum(errors, arriving, out=errors)
        np.maximum(errors, np.abs(a[k:]), out=errors)
        # An error in the pivot's column takes as much of the pivot's row with it, also where the entry was noise.
        carried = errors[1:, k, None] * np.abs(a[k, k + 1 :] / a[k, k])
        np.maximum(errors[1:, k + 1 :], carried, out=errors[1:, k + 1 :])
    return len(beta), kept, dropped, unknown


def power(exponents: Exponents) -> Matrix:
    """Return ``2.0**exponents``; 0 or a very large number if it is out of range."""
    powers: Matrix = np.ldexp(1.0, np.minimum(np.maximum(exponents, -1100), 1000))
    return powers


def _exchange(x: NDArray[Any], first: int, second: int) -> None:
    """Exchange two rows; fancy indexing would take five times as long."""
    row = x[first].copy()
    x[first] = x[second]
    x[second] = row
