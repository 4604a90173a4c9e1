"""The two extreme absolute eigenvalues, against all eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
from looped import each

from hesskern.linalg.extreme_magnitudes import extreme_magnitudes


def with_eigenvalues(values, seed=0):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    matrix = Q * values @ Q.T
    return 0.5 * (matrix + matrix.T)


@each("seed", range(40), quick=15)
def test_random_matrices(seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((80, 80)) * 10.0 ** rng.uniform(-3, 3)
    A = A + A.T
    sizes = np.abs(np.linalg.eigvalsh(A))
    largest, smallest = extreme_magnitudes(A)
    assert largest == pytest.approx(sizes.max(), rel=1e-12)
    assert smallest == pytest.approx(sizes.min(), rel=1e-14 * len(A) * sizes.max() / sizes.min())


@pytest.mark.parametrize("sign", [1, -1])
def test_repeated_and_opposite_eigenvalues(sign):
    values = sign * np.concatenate([np.full(5, 3.0), np.full(4, -3.0), np.linspace(0.5, 2.0, 40), np.full(6, 0.125)])
    assert extreme_magnitudes(with_eigenvalues(values)) == pytest.approx((3.0, 0.125), rel=1e-12)


def test_a_gap_of_twelve_decades():
    values = np.concatenate([[1e-12], np.linspace(1, 2, 60)])
    largest, smallest = extreme_magnitudes(with_eigenvalues(values))
    assert largest == pytest.approx(2.0, rel=1e-12)
    assert smallest == pytest.approx(1e-12, rel=1e-2)


def test_where_it_does_not_answer():
    """A singular matrix, and one whose eigenvalues are too close to each other for a few products."""
    assert extreme_magnitudes(np.zeros((30, 30))) is None
    rng = np.random.default_rng(0)
    assert extreme_magnitudes(with_eigenvalues(1 + 1e-4 * np.sort(rng.random(400)))) is None
