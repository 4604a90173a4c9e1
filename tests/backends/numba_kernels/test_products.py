"""Products of matrices in padded rows, by vectors and by BLAS, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")
from hesskern.backends.numba_kernels import products
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES

pytestmark = pytest.mark.long

LANES = VECTOR_BYTES // 8


def in_memory(*matrices):
    """Matrices one behind the other, where each begins, and slack for a vector that is read beyond the end."""
    starts = np.cumsum([0, *(matrix.size for matrix in matrices)])
    return np.concatenate([*(matrix.ravel() for matrix in matrices), np.zeros(LANES)]), [int(at) for at in starts]


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("m", "vectors", "k"), [(1, 1, 1), (5, 3, 7), (16, 4, 33), (9, 8, 2)])
def test_products_in_vectors(m, vectors, k, turned, accumulate):
    rng, n = np.random.default_rng([m, vectors, k]), vectors * LANES
    A, B, C = rng.standard_normal((m, k)), rng.standard_normal((k, n)), rng.standard_normal((m, n))
    memory, (a, b, c, _) = in_memory(A.T if turned else A, B, C)
    steps = (1, m) if turned else (k, 1)
    for multiply in (products.multiply, products.multiply_by_loops):
        work = memory.copy()
        multiply(work, m, n, k, 0.5, a, *steps, b, n, accumulate, c, n)
        wanted = 0.5 * A @ B + (C if accumulate else 0.0)
        np.testing.assert_allclose(work[c : c + m * n].reshape(m, n), wanted, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(work[:c], memory[:c])


@pytest.mark.parametrize(("turn_a", "turn_b"), [(False, False), (True, False), (False, True)])
def test_products_by_blas(turn_a, turn_b):
    rng, (m, n, k) = np.random.default_rng(0), (6, 2 * LANES, 5)
    A, B, C = rng.standard_normal((m, k)), rng.standard_normal((k, n)), rng.standard_normal((m, n))
    left, right = A.T if turn_a else A, B.T if turn_b else B
    memory, (a, b, c, _) = in_memory(np.ascontiguousarray(left), np.ascontiguousarray(right), C)
    products.multiply_by_blas(memory, turn_a, turn_b, m, n, k, 2.0, a, left.shape[1], b, right.shape[1], True, c, n)
    np.testing.assert_allclose(memory[c : c + m * n].reshape(m, n), 2.0 * A @ B + C, rtol=0, atol=1e-13)


def test_products_with_a_transposed_right_factor():
    rng, m, n, k = np.random.default_rng(1), 3, 2 * LANES, LANES
    A, B, C = rng.standard_normal((m, k)), rng.standard_normal((n, k)), np.zeros((m, n))
    memory, (a, b, c, turned, _) = in_memory(A, B, C, np.zeros((k, n)))
    products.multiply_turned(memory, m, n, k, 1.0, a, k, b, k, False, c, n, turned)
    np.testing.assert_allclose(memory[c : c + m * n].reshape(m, n), A @ B.T, rtol=0, atol=1e-13)
