"""A diagonal block of the Hessian is its two factors, never a dense matrix."""

from __future__ import annotations

import tracemalloc

import numpy as np
import problems
import pytest
from looped import each
from witness import relative

import hesskern as hk
from hesskern.curvature.hessian import KroneckerHessian


def hessian(seed, dtype="float64"):
    problem = problems.general(seed)
    return problem, problem.loss(dtype).hessian(problem.network(dtype))


@each("seed", problems.GENERAL, quick=16)
def test_diagonal_blocks_show_their_factors(backend, seed):
    problem, H = hessian(seed)
    for layer, weight in enumerate(problem.weights):
        block = H.block(layer, layer)
        assert isinstance(block, KroneckerHessian)
        assert block.layer == layer
        U, V = block.output_factor, block.input_factor
        outputs, inputs = weight.shape
        bias = problem.biases[layer] is not None
        assert U.shape == (outputs, outputs)
        assert V.shape == (inputs + bias, inputs + bias)
        dense = np.kron(U, V)
        order = np.arange(len(dense)).reshape(outputs, -1)
        order = np.concatenate([order[:, :inputs].ravel(), order[:, inputs:].ravel()])
        relative(block.toarray(), dense[np.ix_(order, order)] + problem.weight_decay * np.eye(len(dense)))


def test_a_diagonal_block_is_never_dense():
    """Everything through the factors: 40000 parameters, whose matrix would take 12 GiB."""
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([30, 200, 200, 20], seed=0)
    X = rng.standard_normal((400, 30))
    loss = hk.SquaredLoss(X, rng.standard_normal((400, 20)), weight_decay=0.5)
    H = loss.hessian(net)
    block = H.block(1, 1)
    b = rng.standard_normal(40_000)
    tracemalloc.start()
    try:
        x = block.solve(b)
        eigenvalues, vectors = block.eigh(3)
        spectrum = block.spectrum()
        logdet, trace, diagonal, product = block.logdet(), block.trace(), block.diagonal(), block @ b
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * b.nbytes
    W1, _, W3 = net.weights
    U, V = W3.T @ W3, W1 @ X.T @ X @ W1.T
    B = b.reshape(200, 200)
    relative(product, (U @ B @ V + 0.5 * B).ravel())
    relative((U @ x.reshape(200, 200) @ V).ravel() + 0.5 * x, b, 1e-10)
    values = np.outer(np.linalg.eigvalsh(U), np.linalg.eigvalsh(V)).ravel() + 0.5
    relative(spectrum.expand(), np.sort(values))
    relative(eigenvalues, np.sort(values)[-3:])
    relative(block @ vectors, vectors * eigenvalues, 1e-11)
    assert logdet == pytest.approx(np.log(np.maximum(values, 0.5)).sum(), rel=1e-9)
    assert trace == pytest.approx(values.sum(), rel=1e-12)
    relative(diagonal, np.outer(np.diag(U), np.diag(V)).ravel() + 0.5)
