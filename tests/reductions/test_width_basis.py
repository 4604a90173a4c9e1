"""The eigenbasis of a wide network, put together from that of the reduced one, against the matrix of the oracle."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

import hesskern as hk
from hesskern import backends
from hesskern.backends.data import Data
from hesskern.backends.protocol import PlainLayers
from hesskern.curvature.layer_factors import Factors
from hesskern.linalg.eigenbasis import DenseBasis
from hesskern.network.parameters import positions, select
from hesskern.reductions.width_basis import WidthBasis
from hesskern.reductions.width_reduction import WidthReduction


@pytest.mark.parametrize("params", [None, [0], [1], ["0.bias", "1.weight"]], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_it_diagonalises_the_whole_hessian(bias, params):
    if params == ["0.bias", "1.weight"] and not bias:
        params = ["1.weight"]
    problem = problems.normal([2, 12, 3], 6, bias=bias)
    net = problem.network()
    parts = select(net, params)
    layers = PlainLayers(tuple(problem.weights), tuple(problem.biases))
    data = Data(problem.X, None, problem.Y, 0.0)
    reduction = WidthReduction(layers, 0, {part.layer: part for part in parts})
    small, across = reduction.reduced(backends.get("numpy"), lift=True)
    assert len(small.weights[0]) == reduction.kept == 5 + bias

    def hessian(weights, biases, like):
        there = problems.Problem(list(weights), list(biases), problem.X, problem.Y)
        H = oracle.hessian(oracle.flatten(there.weights, there.biases), there)
        chosen = positions(like, parts)
        return H if chosen is None else H[np.ix_(chosen, chosen)]

    inner = hessian(small.weights, small.biases, hk.LinearNetwork(list(small.weights), list(small.biases)))
    coupling = reduction.coupling(lambda: Factors(small, data, 1.0, {0: across}).residual_gram(1, 0).value)
    basis = WidthBasis(reduction, small, coupling, DenseBasis(*np.linalg.eigh(inner)), parts, min(coupling.shape))

    wanted = hessian(problem.weights, problem.biases, net)
    size, scale = len(wanted), np.abs(wanted).max()
    V = basis.vectors(np.eye(size))
    np.testing.assert_allclose(V.T @ V, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(basis.coordinates(np.eye(size)), V.T, atol=1e-12)
    np.testing.assert_allclose(V * basis.values @ V.T, wanted, rtol=0, atol=1e-12 * scale)
    expanded = np.repeat(basis.groups.values, basis.groups.multiplicities)
    np.testing.assert_allclose(np.sort(expanded), np.linalg.eigvalsh(wanted), rtol=0, atol=1e-12 * scale)
