"""Vectors as Numba sees them: loaded, added, multiplied, turned and stored, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")
from hesskern.backends.numba_kernels import vectors  # noqa: E402

pytestmark = pytest.mark.long

LANES = vectors.VECTOR_BYTES // 8


@numba.njit
def arithmetic(memory, factor):
    """Write ``a + factor b``, ``a b``, ``factor a``; return the sum of a."""
    one, other = vectors.load(memory, 0), vectors.load(memory, LANES)
    vectors.store(memory, 2 * LANES, vectors.add(one, other, factor))
    vectors.store(memory, 3 * LANES, vectors.times(one, other))
    vectors.store(memory, 4 * LANES, vectors.scaled(one, factor))
    return vectors.total(one)


@numba.njit
def turned(memory):
    vectors.turn_block(memory, 0, LANES, LANES * LANES, LANES)


def test_arithmetic_is_entry_by_entry():
    memory = np.concatenate([np.random.default_rng(0).standard_normal(2 * LANES), np.zeros(3 * LANES)])
    a, b = memory[:LANES].copy(), memory[LANES : 2 * LANES].copy()
    assert arithmetic(memory, 2.5) == pytest.approx(a.sum(), rel=1e-13, abs=1e-14)
    found = memory.reshape(5, LANES)[2:]
    np.testing.assert_allclose(found, [a + 2.5 * b, a * b, 2.5 * a], rtol=1e-15, atol=1e-15)


def test_blocks_are_transposed():
    block = np.arange(float(LANES * LANES)).reshape(LANES, LANES)
    memory = np.concatenate([block.ravel(), np.zeros(LANES * LANES)])
    turned(memory)
    np.testing.assert_array_equal(memory[LANES * LANES :].reshape(LANES, LANES), block.T)


def test_the_length_is_that_of_a_register():
    assert vectors.VECTOR_BYTES in (16, 32, 64)
