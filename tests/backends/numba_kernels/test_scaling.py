"""Powers of two between weights, data and Hessian: predictions come back, and nothing is rounded."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

pytest.importorskip("numba")
from hesskern.backends.numba_kernels import layout, scaling

pytestmark = pytest.mark.long


def layout_of(problem):
    widths = np.array([problem.X.shape[1], *map(len, problem.weights)])
    return layout.make_layout(widths, np.array([bias is not None for bias in problem.biases]), 8)


def test_moderate_numbers_stay_as_they_are():
    problem = problems.normal([3, 4, 2], 6, bias=True)
    flat = oracle.flatten(problem.weights, problem.biases)
    before = flat.copy()
    x, y, powers = scaling.scaled(layout_of(problem), flat, problem.X)
    assert (x, y, len(powers)) == (0, 0, 0)
    np.testing.assert_array_equal(flat, before)


@pytest.mark.parametrize("bias", [False, True])
def test_the_scaled_problem_has_the_predictions_divided_by_a_power(bias):
    problem = problems.normal([3, 4, 2], 6, bias=bias)
    weights = [np.ldexp(problem.weights[0], 400), np.ldexp(problem.weights[1], -300)]
    flat = oracle.flatten(weights, problem.biases)
    given = flat.copy()
    x, y, powers = scaling.scaled(layout_of(problem), flat, problem.X)
    assert np.abs(flat).max() <= 1.0 and len(powers) == len(flat)
    # Every parameter was divided by a power of two of its own: none lost a digit.
    np.testing.assert_array_equal(np.ldexp(flat, y - powers), given)
    own, biases = oracle.split(flat, problem)
    small = oracle.forward(own, biases, np.ldexp(problem.X, -x)).astype(float)
    plain = oracle.forward(weights, problem.biases, problem.X).astype(float)
    if not bias:  # the constant input is divided too where there are biases
        np.testing.assert_allclose(np.ldexp(small, y), plain, rtol=1e-12)


def test_vectors_and_matrices_are_multiplied_from_both_sides():
    powers = np.array([1, -2, 0])
    vectors = np.arange(6.0)
    np.testing.assert_array_equal(scaling.multiplied(powers, vectors), [0.0, 2.0, 0.5, 0.75, 4.0, 5.0])
    matrix = np.ones((2, 3))
    scaling.multiply_entries(matrix, np.array([3, 0]), powers)
    np.testing.assert_array_equal(matrix, [[16.0, 2.0, 8.0], [2.0, 0.25, 1.0]])
