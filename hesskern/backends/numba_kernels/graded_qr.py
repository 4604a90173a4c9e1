"""QR decomposition of a graded matrix, rows and columns pivoted; see `hesskern.backends.graded_qr`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hesskern.backends.numba_kernels.compile import jit

Matrix = NDArray[np.float64]
Exponents = NDArray[np.int64]


@jit
def _without_noise(a: Matrix, e: Matrix, used: NDArray[np.bool_], k: int, tolerance: float) -> float:
    """Set entries from row and column k on to zero that are not above their errors; record which rows have others.

    Return the largest of these entries over its error.
    """
    dropped = 0.0
    for i in range(k, a.shape[0]):
        used[i] = False
        for j in range(k, a.shape[1]):
            size = abs(a[i, j])
            if size > tolerance * e[i, j]:
                used[i] = True
            elif size > 0:
                dropped = max(dropped, size / e[i, j])
                a[i, j] = 0.0
    return dropped


@jit
def _largest_column(a: Matrix, scale: Matrix, columns: Exponents, total: Matrix, k: int) -> int:
    """Return the column of the largest norm, rows measured in their scale."""
    total[k:] = 0.0
    for i in range(k, a.shape[0]):
        for j in range(k, a.shape[1]):
            size = scale[i] * a[i, j]
            total[j] += size * size
    best, largest = k, -math.inf
    for j in range(k, a.shape[1]):
        size = math.log2(total[j]) + 2 * columns[j] if total[j] > 0 else -math.inf
        if size > largest:
            best, largest = j, size
    return best


@jit
def _exchange(matrix: Matrix, first: int, second: int) -> None:
    """Exchange two rows."""
    for j in range(matrix.shape[1]):
        matrix[first, j], matrix[second, j] = matrix[second, j], matrix[first, j]


@jit
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
    """Do what `hesskern.backends.graded_qr.factor` does."""
    m, n = a.shape
    kept, dropped, unknown = 1.0, 0.0, 0.0
    weight, weighted, total, arriving = np.empty(m), np.empty(m), np.empty(n), np.empty(n)
    used = np.empty(m, np.bool_)
    for k in range(len(beta)):
        dropped = max(dropped, _without_noise(a, e, used, k, tolerance))
        if not used[k:].any():
            return k, kept, dropped, unknown
        base = rows[k:][used[k:]].max()
        for i in range(k, m):
            weight[i] = math.ldexp(1.0, min(max(rows[i] - base, -1100), 1000))
        column, row = _largest_column(a, weight, columns, total, k), k
        for i in range(k, m):
            if weight[i] * abs(a[i, column]) > weight[row] * abs(a[row, column]):
                row = i
        for i in range(m):
            a[i, k], a[i, column] = a[i, column], a[i, k]
            e[i, k], e[i, column] = e[i, column], e[i, k]
        columns[k], columns[column] = columns[column], columns[k]
        pivot[k], pivot[column] = pivot[column], pivot[k]
        _exchange(a, k, row)
        _exchange(e, k, row)
        _exchange(v, k, row)
        rows[k], rows[row] = rows[row], rows[k]
        order[k], order[row] = order[row], order[k]

        # Over a power of two, so that the pivot is about one: squares in its row's unit may be out of range.
        shift = -math.frexp(abs(a[k, k]))[1]
        norm = error = nonzero_error = 0.0
        for i in range(k, m):
            scale = math.ldexp(1.0, min(max(rows[i] - rows[k], -1100), 1000))
            v[i, k] = math.ldexp(a[i, k], shift)
            weighted[i] = scale * (scale * v[i, k])  # the square of a scale may be out of range
            norm += weighted[i] * v[i, k]
            wrong = math.ldexp(scale * e[i, k], shift) ** 2
            error += wrong
            nonzero_error += wrong if v[i, k] != 0 else 0.0
            a[i, k] = 0.0
        norm, error = math.sqrt(norm), math.sqrt(error)
        if norm < kept * error:
            kept = norm / error
        unknown = max(unknown, math.sqrt(nonzero_error) / norm if norm > 0 else math.inf)
        head = -norm if v[k, k] > 0 else norm
        v[k, k] -= head
        weighted[k] = v[k, k]
        beta[k] = -1.0 / (head * v[k, k])
        a[k, k] = math.ldexp(head, -shift)
        total[:] = 0.0
        arriving[:] = 0.0
        for i in range(k, m):
            for j in range(n):
                total[j] += weighted[i] * a[i, j]
                arriving[j] += (weighted[i] * e[i, j]) ** 2
        total[: k + 1] = 0.0  # these columns are done
        for j in range(n):
            arriving[j] = beta[k] * math.sqrt(arriving[j])
        for i in range(k, m):
            back, size = beta[k] * v[i, k], abs(v[i, k])
            for j in range(n):
                a[i, j] -= back * total[j]
                # Independent errors add up as squares do, and so do not grow.
                e[i, j] = max(e[i, j], size * arriving[j], abs(a[i, j]))
        # An error in the pivot's column takes as much of the pivot's row with it, also where the entry was noise.
        for i in range(k + 1, m):
            for j in range(k + 1, n):
                e[i, j] = max(e[i, j], e[i, k] * abs(a[k, j] / a[k, k]))
    return len(beta), kept, dropped, unknown
