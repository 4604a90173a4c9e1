"""Certificates: what they show is true, and an eigenvalue that was missed shows."""

import numpy as np
import pytest

from hesskern.linalg.certificate import DenseOperator, add_product, certify
from hesskern.linalg.krylov import Ritz

SIZE = 60
Q = np.linalg.qr(np.random.default_rng(0).standard_normal((SIZE, SIZE)))[0]


def operator(values):
    matrix = Q * np.asarray(values) @ Q.T
    return DenseOperator(lambda: 0.5 * (matrix + matrix.T), SIZE)


def claimed(values, chosen, which, following=np.nan, noise=0.0, offset=0.0):
    """The answer for these eigenpairs, moved by `noise`."""
    values = np.asarray(values, dtype=float)
    vectors = Q[:, chosen].T + noise * np.random.default_rng(1).standard_normal((len(chosen), SIZE))
    vectors = np.linalg.qr(vectors.T)[0].T
    matrix = operator(values)._make()
    found = np.einsum("ij,ij->i", vectors, vectors @ matrix)
    residuals = np.linalg.norm(vectors @ matrix - found[:, None] * vectors, axis=1)
    ritz = Ritz(found, vectors, residuals, np.linalg.norm(residuals), following, abs(values).max(), True)
    return certify(operator(values), ritz, vectors, which, offset), found


LADDER = np.linspace(-4.0, 1.0, SIZE)


@pytest.mark.parametrize(
    ("which", "chosen", "following"),
    [("LA", [59, 58], LADDER[57]), ("SA", [0, 1], LADDER[2]), ("LM", [0, 1], LADDER[2]), ("LA", [59], np.nan)],
)
def test_what_is_right_is_certified_and_what_misses_one_is_not(which, chosen, following):
    answer, _ = claimed(LADDER, chosen, which, following)
    assert answer.certified and answer.error < 1e-12
    skipped = [*chosen[:-1], chosen[-1] + (1 if which != "LA" else -1)]
    assert not claimed(LADDER, skipped, which)[0].certified
    assert np.isinf(claimed(LADDER, skipped, which)[0].error)


def test_a_missed_copy_of_the_largest():
    values = np.concatenate([np.linspace(0.0, 1.0, SIZE - 3), [1.5, 2.0, 2.0]])
    assert not claimed(values, [59, 57], "LA", 1.0)[0].certified  # 2, 1.5
    assert claimed(values, [59, 58], "LA", 1.5)[0].certified  # 2, 2
    assert claimed(values, [59], "LA", 1.5)[0].certified  # one copy of 2 is a largest eigenvalue
    assert claimed(values, [59, 58, 57], "LA", 1.0)[0].certified


@pytest.mark.parametrize("distance", [1e-10, 1e-3])
def test_neighbours_close_to_the_last_value(distance):
    values = np.concatenate([np.linspace(0.0, 1.0, SIZE - 2), [2.0 - distance, 2.0]])
    assert claimed(values, [59], "LA", 2.0 - distance)[0].certified
    assert not claimed(values, [58], "LA", 1.0)[0].certified


@pytest.mark.parametrize("noise", [1e-4, 1e-6, 1e-9])
def test_the_error_holds_for_rough_pairs(noise):
    answer, found = claimed(LADDER, [59, 58], "LA", LADDER[57], noise)
    assert answer.certified
    true_error = np.abs(np.sort(found) - LADDER[-2:]).max()
    assert true_error <= answer.error <= 100.0 * noise


def test_the_error_holds_where_a_copy_continues_beyond_the_last():
    values = np.concatenate([np.linspace(0.0, 1.0, SIZE - 4), [3.0] * 4])
    answer, found = claimed(values, [59, 58], "LA", 3.0, 1e-7)
    assert answer.certified and np.abs(found - 3.0).max() <= answer.error <= 1e-4


def test_largest_in_magnitude_looks_at_both_ends():
    values = np.concatenate([np.linspace(-0.5, 0.5, SIZE - 2), [3.0, -3.5]])
    assert not claimed(values, [58], "LM", 0.5)[0].certified
    assert claimed(values, [59], "LM", 3.0)[0].certified
    assert claimed(values, [58], "LM", -3.5, offset=1.0)[0].certified  # 4 and -2.5
    tie = np.concatenate([np.linspace(-0.5, 0.5, SIZE - 2), [3.0, -3.0]])
    assert claimed(tie, [59], "LM", 3.0)[0].certified and claimed(tie, [58], "LM", -3.0)[0].certified


def test_a_matrix_that_cannot_say():
    class Unsure(DenseOperator):
        def is_definite(self, sign, shift, vectors, push):
            return None

    ritz = Ritz(np.ones(1), np.eye(1, SIZE), np.zeros(1), 0.0, np.nan, 1.0, True)
    assert certify(Unsure(lambda: np.eye(SIZE), SIZE), ritz, ritz.vectors, "LA") is None


def test_products_are_added_in_place():
    left, right = np.random.default_rng(2).standard_normal((2, 3, 7))
    matrix = np.eye(7)
    add_product(matrix, left, right)
    np.testing.assert_allclose(matrix, np.eye(7) + left.T @ right, atol=1e-14)
