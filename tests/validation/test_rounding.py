"""Bounds on rounding: norms that neither overflow nor vanish, and how far sums spread."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")
from hesskern.validation.rounding import norm, spread_error, square


def test_the_spread_of_rounding():
    assert spread_error(1, 1.0) == 1
    assert spread_error(64, 1.0) == 64
    assert spread_error(6400, 1.0) == 640


@pytest.mark.parametrize("exponent", [-1074, -1060, -600, 0, 600, 1022])
def test_norms_at_any_scale(exponent):
    two = np.ldexp(np.array([1.0, -1.0]), exponent)
    assert norm(two) == pytest.approx(math.ldexp(math.sqrt(2.0), exponent), rel=1e-15)
    assert norm(two[0]) == abs(two[0])


def test_norms_beyond_the_ends():
    assert norm(np.zeros(3)) == 0.0 and norm(np.zeros(0)) == 0.0
    assert norm(np.full(4, 1.7e308)) == math.inf and norm(np.array([1.0, np.inf])) == math.inf
    assert math.isnan(norm(np.array([1.0, np.nan])))
    assert square(1e200) == math.inf
