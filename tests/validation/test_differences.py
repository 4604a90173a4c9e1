"""The third witness: exact differences, and the bound that it states on its own error."""

from __future__ import annotations

import numpy as np
import problems
import pytest

pytest.importorskip("torch")
from hesskern.validation.autograd import AutogradWitness
from hesskern.validation.case import ValidationCase
from hesskern.validation.differences import DifferenceWitness

WITNESSES = [AutogradWitness, DifferenceWitness]


def weighed(problem):
    return ValidationCase("", problem.network(), problem.loss())


def test_the_third_witness_knows_its_own_error():
    """In float64, where it is worst, its errors are within its bounds and the bounds within reason."""
    problem = problems.normal([3, 4, 5, 2], 6, bias=True)
    given = weighed(problem)
    extended, plain = DifferenceWitness(given), DifferenceWitness(given)
    plain._theta, plain._X, plain._Y, plain._steps = (
        array.astype(np.float64) for array in (plain._theta, plain._X, plain._Y, plain._steps)
    )
    plain._half, plain._decay, plain.unit = np.float64(plain._half), np.float64(plain._decay), 2.0**-53
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        pytest.skip("long double is double here")
    v = np.random.default_rng(0).standard_normal(given.size)
    for error, bound, truth in (
        (plain.gradient() - extended.gradient(), plain.gradient_error, extended.gradient()),
        (plain.hessian() - extended.hessian(), plain.curvature_error, extended.hessian()),
        (plain.product(v) - extended.product(v), plain.product_error * np.linalg.norm(v), extended.product(v)),
    ):
        assert np.linalg.norm(error) <= bound <= 1e-7 * np.linalg.norm(truth)


def test_differences_of_a_float32_network_are_those_of_its_numbers():
    problem = problems.normal([3, 4, 2], 6, bias=True)
    given = ValidationCase("", problem.network("float32"), problem.loss("float32"))
    for witness in WITNESSES:
        found = witness(given)
        assert found.gradient().dtype == np.float64
    same = np.linalg.norm(DifferenceWitness(given).hessian() - AutogradWitness(given).hessian())
    assert same <= 1e-13 * np.linalg.norm(DifferenceWitness(given).hessian())
    assert (given.theta == problem.network("float32").flatten()).all()
