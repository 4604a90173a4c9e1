"""Condition numbers as values: from eigenvalues, from singular values, and the words beside them."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import numpy as np
import problems
import pytest

import hesskern as hk
from hesskern.linalg.condition import Condition, from_singular_values, from_spectrum


def test_from_spectrum():
    spectrum = hk.Spectrum([4.0, 1.0, 4e-8, -2.0, 0.0], [1, 2, 3, 4, 5])
    found = from_spectrum(spectrum, 0.0, 1e-6, (1e-8, 1e-5), 5)
    below = (2e-4 + 1e-4) ** 2  # the largest that may have been computed as 4e-8
    assert found == Condition(
        value=4.0, largest=4.0, smallest=1.0, rank=7, size=15, tolerance=0.25e-6, gap=pytest.approx(1 / below),
        uncertainty=1e-5 / 4 + 1e-5, negative=4, undecided=3, below=pytest.approx(below),
    )  # fmt: skip
    assert from_spectrum(spectrum, 0.0, 1e-6, (1e-8, 1e-5), 2).undecided == 6
    shifted = from_spectrum(spectrum, 0.5, 1e-6, (1e-8, 1e-5), 5)
    assert (shifted.largest, shifted.smallest, shifted.rank, shifted.negative) == (4.5, 0.5, 15, 4)
    assert (shifted.gap, shifted.undecided) == (math.inf, 0)
    at = from_spectrum(hk.Spectrum([1.0, 1e-6], [1, 1]), 0.0, 1e-6, (0.0, 0.0), 0)
    assert at.rank == 1  # at the tolerance is not above it
    nothing = from_spectrum(hk.Spectrum([1e-9, 0.0], [1, 1]), 0.0, 1e-6, (0.0, 0.0), 1)
    assert (nothing.rank, nothing.gap, nothing.undecided, nothing.below) == (0, 1.0, 1, pytest.approx(1e-9))
    assert nothing.note.startswith(
        "the matrix cannot be told from zero at this precision (known only to be below 1e-09)"
    )
    exact = from_spectrum(hk.Spectrum([2.0, 0.0], [1, 4]), 0.0, 1e-6, (1e-8, 1e-5), 4)
    assert (exact.undecided, exact.gap) == (0, math.inf)
    assert exact.note == "rank-deficient: 4 of 5 eigenvalues are zero and left out"


def test_from_singular_values():
    epsilon = 2.0**-52
    for error in (0.0, 1e-3):
        bound = error + 7 * epsilon * 8.0
        found = from_singular_values(np.array([8.0, 2.0, 1e-20]), (7, 3), error)
        assert (found.value, found.largest, found.smallest, found.rank, found.size) == (4.0, 8.0, 2.0, 2, 3)
        assert found.tolerance == pytest.approx(bound / 8.0)
        assert found.gap == pytest.approx(2.0 / bound)
        assert (found.undecided, found.below) == (1, pytest.approx(bound))
        assert found.uncertainty == pytest.approx(bound / 8.0 + bound / 2.0)
    assert from_singular_values(np.array([3.0]), (1, 5), 0.0).gap == math.inf
    zero, unknown = from_singular_values(np.zeros(2), (2, 5), 0.0), from_singular_values(np.ones(2), (2, 5), 2.0)
    assert (zero.rank, zero.undecided, unknown.rank, unknown.undecided) == (0, 0, 0, 2)
    assert zero.note.startswith("the matrix is zero") and "cannot be told from zero" in unknown.note
    assert math.isnan(unknown.value) and unknown.below >= 3.0


def test_notes_about_doubt():
    condition = Condition(10.0, 10.0, 1.0, 2, 3, 1e-15, 12.0, 0.25)
    assert "the rank is uncertain: the values around the cut differ only by a factor 12" in condition.note
    assert "the data determine the value only to a relative error of 0.2" in condition.note
    assert "rank-deficient: 1 of 3" in condition.note
    assert "indefinite" not in condition.note


def test_conditions_are_values():
    problem = problems.normal([4, 2, 3], 9)
    condition = problem.loss().hessian(problem.network()).condition()
    assert pickle.loads(pickle.dumps(condition)) == copy.copy(condition) == condition
    with pytest.raises(dataclasses.FrozenInstanceError):
        condition.value = 1.0
    assert [field.name for field in dataclasses.fields(condition)] == [
        "value", "largest", "smallest", "rank", "size", "tolerance", "gap", "uncertainty", "negative",
        "undecided", "below", "remark",
    ]  # fmt: skip
