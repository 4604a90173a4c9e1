"""What was given: its kind, its precision, and the entries that no Hessian has."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.explanation.given.candidate import bad_entries, exponent_to, read_candidate, symmetry


@pytest.mark.parametrize(
    ("value", "kind", "half_unit"),
    [
        (np.eye(3), "matrix", 0.0),
        ([1.0, 2.0], "spectrum", 0.0),
        ("5345.81", "number", 0.005),
        (5345.81, "number", 0.005),
        ("1.50e3", "number", 5.0),
        (174, "number", 0.5),
        (np.float32(0.1), "number", 0.05),
        (np.array(2.5), "number", 0.05),
    ],
)
def test_kinds_and_the_digits_given(value, kind, half_unit):
    found = read_candidate(value)
    assert found.kind == kind and found.half_unit == pytest.approx(half_unit)
    # A float is the decimal number that it is written as, whatever its precision.
    wanted = float(str(value)) if kind == "number" else np.asarray(value, dtype=float)
    np.testing.assert_array_equal(found.array, wanted)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("12x", ValueError, "expected a number, for instance 5345.81"),
        ("1e999", ValueError, "expected a number that float64 can hold"),
        (10**400, ValueError, "expected a number that float64 can hold"),
        (np.zeros((2, 2, 2)), ValueError, r"has shape \(2, 2, 2\).*reshape\(P, P\)"),
        (np.zeros((0, 0)), ValueError, r"has shape \(0, 0\)"),
        (np.eye(2) * 1j, TypeError, "has dtype complex128; expected real numbers"),
        (True, TypeError, "candidate"),
    ],
)
def test_what_is_no_candidate(value, error, message):
    with pytest.raises(error, match=message):
        read_candidate(value)


@np.errstate(all="ignore")  # as `explain` itself: the sum overflows where no entry does
def test_bad_entries_are_where_they_are():
    matrix = np.full((3, 3), 1e308)
    assert len(bad_entries(matrix)) == 0
    matrix[1, 2], matrix[2, 0] = np.nan, -np.inf
    assert bad_entries(matrix).tolist() == [[1, 2], [2, 0]]


def test_symmetry_is_measured():
    A = np.random.default_rng(0).standard_normal((40, 40))
    assert symmetry(A + A.T).skew <= 1e-12 and symmetry(A + A.T).triangle == ""
    skew = symmetry(A).skew
    assert 0.5 < skew / (np.linalg.norm(A - A.T) / 2) < 2.0  # from two random vectors
    assert symmetry(np.triu(A)).triangle == "upper" and symmetry(np.tril(A)).triangle == "lower"
    assert symmetry(np.diag(np.diag(A))).triangle == ""


def test_sizes_that_are_brought_together():
    assert exponent_to(np.array([1.0]), 2.0**40) == 0
    power = exponent_to(np.array([3.0, 1.0]), 2.0**200)
    assert 0.25 <= np.ldexp(3.0, power) / 2.0**200 <= 4.0
    assert exponent_to(np.zeros(2), 2.0**200) == 0 and exponent_to(np.ones(2), np.inf) == 0
