"""Powers of two between the factors of a product: no digit is lost, and nothing overflows that need not."""

import math
from fractions import Fraction

import numpy as np
import pytest

from hesskern._base.powers import (
    MODERATE,
    Scaled,
    aligned,
    in_dtype,
    magnitude,
    moderate,
    reach,
    shared,
    span,
    times_power,
)


def exact(scaled):
    """The entries of ``2**exponent * matrix`` as fractions."""
    return [Fraction(float(entry)) * Fraction(2) ** scaled.exponent for entry in np.ravel(scaled.matrix)]


def test_spans():
    assert span(np.array([[0.0, -8.0], [0.25, 1.0]])) == (3.0, -2.0)
    assert span(np.zeros((2, 2))) == (0.0, 0.0)
    assert span(np.array([[2.0**-1074]])).reach == 1074.0
    assert reach([np.array([4.0]), np.array([0.5, 2.0])]) >= 2 + 1


def test_magnitudes_at_any_scale():
    assert magnitude(np.full((3, 4), 2.0**20)) == 20.0
    assert magnitude(np.full(5, 2.0**600)) == 600.0  # its square overflows
    assert magnitude(np.full(5, 2.0**-600)) == -600.0


@pytest.mark.parametrize("exponent", [-1074, -1000, -1, 0, 5, 1023, 5000, -5000])
def test_times_a_power(exponent):
    found = float(times_power(np.array([1.0]), exponent)[0])
    assert found == (math.inf if exponent > 1023 else 0.0 if exponent < -1074 else math.ldexp(1.0, exponent))


@pytest.mark.parametrize("by", [-900, -600, 0, 600, 900])
def test_moderate_matrices_are_the_same_numbers(by):
    matrix = np.ldexp(np.random.default_rng(0).standard_normal((3, 2)), by)
    found = moderate(matrix, 7)
    assert span(found.matrix).reach <= MODERATE
    assert exact(found) == exact(Scaled(matrix, 7))


def test_aligned_matrices_have_one_exponent():
    left, right = Scaled(np.array([3.0]), 10), Scaled(np.array([5.0]), 4)
    one, two, exponent = aligned(left, right)
    assert exponent == 10
    assert exact(Scaled(one, exponent)) == exact(left) and exact(Scaled(two, exponent)) == exact(right)
    two, one, exponent = aligned(right, left)
    assert exponent == 10 and exact(Scaled(two, exponent)) == exact(right)


@pytest.mark.parametrize(("left", "right"), [(800, -800), (-700, 650), (0, 0)])
def test_what_is_taken_from_one_factor_goes_to_the_other(left, right):
    rng = np.random.default_rng(1)
    factors = Scaled(rng.standard_normal(4), left), Scaled(rng.standard_normal(4), right)
    one, two = shared(*factors, -float(MODERATE), float(MODERATE))
    assert max(span(one).reach, span(two).reach) <= MODERATE
    wanted = [a * b for a, b in zip(*map(exact, factors), strict=True)]
    assert [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(one, two, strict=True)] == wanted


def test_products_that_a_dtype_cannot_hold_are_refused():
    one, two = in_dtype(Scaled(np.array([2.0]), 200), Scaled(np.array([3.0]), -190), np.dtype("float32"))
    assert one.dtype == two.dtype == np.float32
    assert float(one[0]) * float(two[0]) == 6.0 * 2**10
    with pytest.raises(OverflowError, match=r"larger than float32 can hold .* or use float64"):
        in_dtype(Scaled(np.array([2.0]), 100), Scaled(np.array([3.0]), 100), np.dtype("float32"))
    with pytest.raises(OverflowError, match=r"larger than float64 can hold \(1.8e\+308\)"):
        in_dtype(Scaled(np.array([2.0]), 600), Scaled(np.array([3.0]), 600), np.dtype("float64"))
