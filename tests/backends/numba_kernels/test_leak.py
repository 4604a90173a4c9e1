"""How far rounding carries a run off its orbit: when it is looked at, and the spectral norm that it grows with."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")
from hesskern.backends.numba_kernels import leak

pytestmark = pytest.mark.long


def test_it_is_looked_at_often_in_the_beginning_and_then_every_64_steps():
    looked, steps = -1, []
    for step in range(300):
        if leak.leak_is_due(step, looked):
            looked = step
            steps.append(step)
    assert steps == [0, 1, 2, 4, 8, 16, 32, 64, 128, 192, 256]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (6, 2)])
def test_spectral_norms_to_two_digits_from_below(shape):
    matrix = np.random.default_rng(shape).standard_normal(shape)
    exact = np.linalg.norm(matrix, 2)
    assert 0.9 * exact <= leak._spectral_norm(matrix) <= exact * (1 + 1e-12)
    assert leak._spectral_norm(np.zeros(shape)) == 0.0
