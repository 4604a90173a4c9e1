"""The jitted pivoted QR: what it leaves has the Gram matrix of what it was given, at any scale of rows and columns."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")
from hesskern.backends.numba_kernels.graded_qr import factor


@pytest.mark.parametrize(("m", "n"), [(6, 4), (4, 4), (3, 7)])
@pytest.mark.parametrize("graded", [False, True])
def test_r_has_the_gram_matrix_of_what_was_given(m, n, graded):
    rng = np.random.default_rng([m, n])
    matrix = rng.standard_normal((m, n))
    rows = rng.integers(-40, 41, m) if graded else np.zeros(m, np.int64)
    columns = rng.integers(-40, 41, n) if graded else np.zeros(n, np.int64)
    given = np.ldexp(matrix, rows[:, None] + columns)
    a, order, pivot, count = matrix.copy(), np.arange(m), np.arange(n), min(m, n)
    rank, kept, dropped, _ = factor(
        a, np.abs(matrix), rows, columns, order, pivot, np.zeros((m, count)), np.zeros(count), 1e-14
    )
    assert rank == count and kept > 0.0 and dropped == 0.0 and sorted(order) == list(range(m))
    R = np.ldexp(np.triu(a), rows[:, None] + columns)
    gram, wanted = R.T @ R, given[:, pivot].T @ given[:, pivot]
    sizes = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    np.testing.assert_array_less(np.abs(gram - wanted), 1e-13 * sizes + 1e-300)


def test_entries_below_their_errors_are_zeros():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((6, 2)) @ rng.standard_normal((2, 5))
    zeros = np.zeros(6, np.int64)
    rank, _, dropped, _ = factor(
        matrix.copy(), np.abs(matrix), zeros, zeros[:5].copy(), np.arange(6), np.arange(5), np.zeros((6, 5)),
        np.zeros(5), 1e-14,
    )  # fmt: skip
    assert rank == 2 and 0.0 < dropped < 1e-14
