"""A pivoted QR in place, of matrices whose rows and columns have any scale: the reflectors rebuild what was given."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.backends.graded_qr import factor, power


def decompose(matrix, rows, columns, tolerance=1e-14):
    """The decomposition of ``2**rows * matrix * 2**columns``: R without units, what was pivoted, and the answer."""
    m, n = matrix.shape
    count = min(m, n)
    a, e = matrix.copy(), np.abs(matrix)
    rows, columns = rows.copy(), columns.copy()
    order, pivot = np.arange(m), np.arange(n)
    found = factor(a, e, rows, columns, order, pivot, np.zeros((m, count)), np.zeros(count), tolerance)
    R = np.triu(a) * power(rows)[:, None] * power(columns)
    return R, order, pivot, found


@pytest.mark.parametrize(("m", "n"), [(1, 1), (6, 4), (4, 4), (3, 7)])
@pytest.mark.parametrize("graded", [False, True])
def test_r_has_the_gram_matrix_of_what_was_given(m, n, graded):
    rng = np.random.default_rng([m, n])
    matrix = rng.standard_normal((m, n))
    rows = rng.integers(-40, 41, m) if graded else np.zeros(m, int)
    columns = rng.integers(-40, 41, n) if graded else np.zeros(n, int)
    R, _, pivot, (rank, kept, dropped, _) = decompose(matrix, rows, columns)
    assert rank == min(m, n) and sorted(pivot) == list(range(n)) and dropped == 0.0 and kept > 0.0
    given = (np.ldexp(1.0, rows)[:, None] * matrix * np.ldexp(1.0, columns))[:, pivot]
    gram, wanted = R.T @ R, given.T @ given
    sizes = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    np.testing.assert_array_less(np.abs(gram - wanted), 1e-13 * sizes + 1e-300)


def test_entries_below_their_errors_are_zeros():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((6, 2)), rng.standard_normal((2, 5))
    R, _, _, (rank, _, dropped, _) = decompose(left @ right, np.zeros(6, int), np.zeros(5, int))
    assert rank == 2 and 0.0 < dropped < 1e-14
    singular = np.linalg.svd(left @ right, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(R[:2], compute_uv=False), singular[:2], rtol=1e-12)


def test_the_zero_matrix_has_rank_zero():
    assert decompose(np.zeros((3, 2)), np.zeros(3, int), np.zeros(2, int))[3][0] == 0


def test_powers_out_of_range():
    assert power(np.array([0, -3, 10])).tolist() == [1.0, 0.125, 1024.0]
    assert power(np.array([-5000]))[0] == 0.0 and power(np.array([5000]))[0] > 1e300
