"""Fewer samples than inputs: the basis of the network with fewer inputs, transformed back, against the oracle."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from looped import each

import hesskern as hk
from hesskern.backends.data import Data
from hesskern.backends.protocol import PlainLayers
from hesskern.linalg.eigenbasis import DenseBasis
from hesskern.network.parameters import positions, select
from hesskern.reductions.inputs import InputsBasis, InputSpan


def span_of(problem):
    return InputSpan(Data(problem.X, None, problem.Y, 0.0))


@pytest.mark.parametrize("bias", [False, True])
def test_the_same_predictions(bias):
    problem = problems.normal([9, 4, 2], 3, bias=bias)
    span = span_of(problem)
    small = span.reduced(PlainLayers(tuple(problem.weights), tuple(problem.biases)))
    assert [weight.shape for weight in small.weights] == [(4, 3), (2, 4)]
    expected = oracle.forward(problem.weights, problem.biases, problem.X)
    found = oracle.forward(small.weights, small.biases, span.data.X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14 * np.abs(expected).max())


@pytest.mark.parametrize("params", [None, [0], ["0.weight", "1.weight"], ["0.bias", "0.weight", "1.bias"]], ids=str)
def test_it_diagonalises_the_whole_hessian(params):
    problem = problems.normal([9, 4, 2], 3, bias=True)
    net, span = problem.network(), span_of(problem)
    layers = PlainLayers(tuple(problem.weights), tuple(problem.biases))
    parts, small = select(net, params), span.reduced(layers)

    def hessian(weights, biases, X):
        there = problems.Problem(list(weights), list(biases), X, problem.Y)
        H = oracle.hessian(oracle.flatten(there.weights, there.biases), there)
        chosen = positions(hk.LinearNetwork(list(weights), list(biases)), parts)
        return H if chosen is None else H[np.ix_(chosen, chosen)]

    inner = hessian(small.weights, small.biases, span.data.X)
    basis = InputsBasis(span, layers, DenseBasis(*np.linalg.eigh(inner)), parts)
    expected = hessian(problem.weights, problem.biases, problem.X)
    size, scale = len(expected), np.abs(expected).max()
    V = basis.vectors(np.eye(size))
    np.testing.assert_allclose(V.T @ V, np.eye(size), atol=1e-13)
    np.testing.assert_allclose(basis.coordinates(np.eye(size)), V.T, atol=1e-13)
    np.testing.assert_allclose(V * basis.values @ V.T, expected, rtol=0, atol=1e-13 * scale)
    assert basis.groups.multiplicities[basis.groups.values == 0] == basis.structural_zeros == 4 * 6
    assert basis.groups.size == size


@each("seed", range(60), quick=20)
def test_spectra_and_vectors(seed):
    rng = np.random.default_rng([7, seed])
    depth = int(rng.integers(2, 5))
    widths = [int(rng.integers(6, 25)), *(int(width) for width in rng.integers(1, 9, depth))]
    problem = problems.normal(widths, int(rng.integers(1, widths[0])), seed, bias=seed % 2 == 1)
    expected = oracle.hessian(oracle.flatten(problem.weights, problem.biases), problem)
    H = problem.loss().hessian(problem.network())
    size = np.abs(np.linalg.eigvalsh(expected)).max()
    np.testing.assert_allclose(H.eigvalsh(), np.linalg.eigvalsh(expected), rtol=0, atol=1e-13 * size)
    values, vectors = H.eigh()
    assert np.linalg.norm(expected @ vectors - vectors * values, 2) <= 1e-12 * size
    assert np.linalg.norm(vectors.T @ vectors - np.eye(len(expected)), 2) <= 1e-12


@pytest.mark.parametrize("e", [0, 3, 8, 12])
def test_features_in_other_units_are_not_mixed(e):
    """The first weights compensate for the units of the features: a rotation would lose the small ones."""
    rng = np.random.default_rng(e)
    units = 10.0 ** np.linspace(-e, e, 12)
    problem = problems.Problem(
        [rng.standard_normal((4, 12)) / units, rng.standard_normal((2, 4))],
        [None, None],
        rng.standard_normal((5, 12)) * units,
        rng.standard_normal((5, 2)),
    )
    assert span_of(problem).mixes_features(problem.weights[0]) == (e > 0)
    H = problem.loss().hessian(problem.network())
    expected = oracle.hessian(oracle.flatten(problem.weights, problem.biases), problem)
    eigenvalues = np.linalg.eigvalsh(expected)
    np.testing.assert_allclose(H.eigvalsh(), eigenvalues, rtol=0, atol=1e-13 * eigenvalues[-1])
    second = problem.loss().hessian(problem.network(), [1])
    tail = np.linalg.eigvalsh(expected[48:, 48:])
    np.testing.assert_allclose(second.eigvalsh(), tail, rtol=0, atol=1e-13 * tail[-1])
