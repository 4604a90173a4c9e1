"""Condition numbers and ranks in exact arithmetic, against mpmath and elimination on integers."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

pytest.importorskip("torch")
from hesskern.validation import exact
from hesskern.validation.case import ValidationCase


def weighed(problem):
    return ValidationCase("", problem.network(), problem.loss())


@pytest.mark.parametrize("shape", [([3, 4, 2], 6), ([5, 3, 4, 2], 8), ([4, 6], 3), ([3, 3, 3], 3)])
def test_exact_condition_numbers_against_mpmath(shape):
    problem = problems.normal(*shape)
    for layer in range(len(problem.weights)):
        value, rank = exact.block_condition(weighed(problem), layer)
        truth, count = oracle.condition(problem.weights, problem.X, layer)
        assert oracle.relative_error(value, truth) < 1e-15 and rank == count


def test_exact_condition_numbers_where_floating_point_fails():
    problem = problems.normal([3, 4, 2], 6)
    X = problem.X * np.array([1e-12, 1.0, 1e9])
    graded = problems.Problem(problem.weights, problem.biases, X, problem.Y)
    value, rank = exact.block_condition(weighed(graded), 0)
    truth, count = oracle.condition(graded.weights, graded.X, 0)
    assert value > 1e30 and oracle.relative_error(value, truth) < 1e-14 and rank == count


def test_exact_ranks_of_integers():
    X = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 1.0, 1.0], [1.0, 3.0, 4.0]])
    problem = problems.Problem([np.ones((2, 3))], [None], X, np.zeros((4, 2)))
    assert exact.block_condition(weighed(problem), 0)[1] == 2 * 2
    nothing = problems.Problem([np.ones((2, 3)), np.zeros((1, 2))], [None, None], X, np.zeros((4, 1)))
    assert exact.block_condition(weighed(nothing), 0)[1] == 0
    biased = problems.Problem([np.ones((2, 3))], [np.zeros(2)], X, np.zeros((4, 2)))
    assert exact.block_condition(weighed(biased), 0)[1] == 2 * np.linalg.matrix_rank(np.column_stack([X, np.ones(4)]))


def test_exact_arithmetic_declines_what_would_take_long():
    assert exact.block_condition(weighed(problems.normal([20, 20], 30)), 0) is None
