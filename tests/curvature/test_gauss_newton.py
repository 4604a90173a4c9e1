"""Eigenvalues and eigenvectors of the Gauss-Newton matrix from the Jacobian, against the matrix of the oracle."""

from __future__ import annotations

import numpy as np
import problems
import pytest
import witness
from looped import each

from hesskern.backends.data import Data
from hesskern.backends.protocol import PlainLayers
from hesskern.curvature.gauss_newton import gauss_newton_basis
from hesskern.curvature.layer_factors import Factors
from hesskern.network.parameters import positions, select


def basis_of(problem, params=None, *, lift):
    net = problem.network()
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
    layers = PlainLayers(tuple(problem.weights), tuple(problem.biases))
    factors = Factors(layers, Data(problem.X, None, problem.Y, 0.0), scale)
    parts = select(net, params)
    return gauss_newton_basis(factors, parts, lift=lift), positions(net, parts)


@each("seed", problems.GENERAL[::4])
def test_it_is_that_of_the_matrix(seed):
    problem = problems.general(seed)
    wanted = witness.dense(problem)["gauss_newton"]
    scale = np.abs(wanted).max()
    for lift in (False, True):
        basis, _ = basis_of(problem, lift=lift)
        found = np.sort(np.repeat(basis.groups.values, basis.groups.multiplicities))
        np.testing.assert_allclose(found, np.linalg.eigvalsh(wanted), rtol=0, atol=1e-11 * scale)
    V = basis.vectors(np.eye(len(wanted)))
    np.testing.assert_allclose(V.T @ V, np.eye(len(wanted)), atol=1e-11)
    np.testing.assert_allclose(V * basis.values @ V.T, wanted, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("params", [[0], ["1.weight"], ["0.bias", "1.weight"]])
def test_of_some_of_the_parameters(params):
    problem = problems.normal([3, 4, 2], 7, bias=True)
    basis, chosen = basis_of(problem, params, lift=False)
    wanted = witness.dense(problem)["gauss_newton"][np.ix_(chosen, chosen)]
    found = np.sort(np.repeat(basis.groups.values, basis.groups.multiplicities))
    np.testing.assert_allclose(found, np.linalg.eigvalsh(wanted), rtol=0, atol=1e-12 * np.abs(wanted).max())


def test_small_eigenvalues_keep_the_digits_that_squaring_loses():
    """One layer on samples of sizes 1 and 1e-9: eigenvalues 1 and 1e-18, and the matrix holds nothing of the second."""
    X = np.diag([1.0, 1e-9])
    problem = problems.Problem([np.eye(2)[:1]], [None], X, np.zeros((2, 1)))
    basis, _ = basis_of(problem, lift=False)
    values = np.sort(np.repeat(basis.groups.values, basis.groups.multiplicities))
    np.testing.assert_allclose(values, [1e-18, 1.0], rtol=1e-14)
