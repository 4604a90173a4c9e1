"""Diagonal and trace of the Gauss-Newton matrix from the factors, against the matrix of the oracle."""

from __future__ import annotations

import math

import numpy as np
import problems
import pytest
import witness
from looped import each

from hesskern.backends.data import Data
from hesskern.backends.protocol import PlainLayers
from hesskern.curvature.diagonal import gauss_newton_diagonal, gauss_newton_trace
from hesskern.curvature.layer_factors import Factors
from hesskern.network.parameters import positions, select


def factors_of(problem):
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
    layers = PlainLayers(tuple(problem.weights), tuple(problem.biases))
    return Factors(layers, Data(problem.X, None, problem.Y, 0.0), scale)


@each("seed", problems.GENERAL[::4])
def test_they_are_those_of_the_matrix(seed):
    problem = problems.general(seed)
    expected = np.diag(witness.dense(problem)["gauss_newton"])
    factors, parts = factors_of(problem), select(problem.network(), None)
    diagonal = gauss_newton_diagonal(factors, parts)
    np.testing.assert_allclose(diagonal, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert gauss_newton_trace(factors, parts) == pytest.approx(expected.sum(), rel=1e-12)


@pytest.mark.parametrize("params", [[0], ["1.weight"], ["0.bias", "1.weight"]])
def test_of_some_of_the_parameters(params):
    problem = problems.normal([3, 4, 2], 7, bias=True)
    parts = select(problem.network(), params)
    chosen = positions(problem.network(), parts)
    expected = np.diag(witness.dense(problem)["gauss_newton"])[chosen]
    np.testing.assert_allclose(gauss_newton_diagonal(factors_of(problem), parts), expected, rtol=1e-12)
    assert gauss_newton_trace(factors_of(problem), parts) == pytest.approx(expected.sum(), rel=1e-12)


def test_what_overflows_is_infinite():
    problem = problems.Problem([np.array([[1.0]])], [None], np.array([[1e200]]), np.zeros((1, 1)))
    factors, parts = factors_of(problem), select(problem.network(), None)
    assert gauss_newton_diagonal(factors, parts).tolist() == [math.inf]
    assert gauss_newton_trace(factors, parts) == math.inf
