"""The full matrix and every block, against autograd, exact second differences and differences of the gradient."""

from __future__ import annotations

from itertools import product

import numpy as np
import oracle
import problems
import pytest
import witness
from looped import each
from problems import KINDS
from witness import relative


def slices(problem):
    return oracle.layer_slices(problem.weights, problem.biases)


def check_parts(problem, full, gauss_newton, tolerance=1e-12):
    """Compare the matrix, both of its parts and every block of all three."""
    functional = full - gauss_newton - problem.weight_decay * np.eye(len(full))
    scale = np.abs(full).max()
    H = problem.loss().hessian(problem.network())
    relative(H.toarray(), full, tolerance)
    relative(H.gauss_newton().toarray(), gauss_newton, tolerance)
    np.testing.assert_allclose(H.functional().toarray(), functional, rtol=0, atol=tolerance * scale)
    for (row, at), (column, there) in product(enumerate(slices(problem)), repeat=2):
        block = H.block(row, column)
        assert block.shape == full[at, there].shape
        relative(block.toarray(), full[at, there], tolerance)
        relative(block.gauss_newton().toarray(), gauss_newton[at, there], tolerance)
        difference = block.functional().toarray() - functional[at, there]
        assert np.abs(difference).max() <= tolerance * scale


@each("seed", problems.GENERAL, quick=16)
def test_autograd_agrees(backend, seed):
    check_parts(problems.general(seed), *witness.of_general(seed))


def test_the_random_problems_are_what_they_should_be():
    made = [problems.general(seed) for seed in problems.GENERAL]
    seen = set()
    for problem in made:
        widths = [problem.X.shape[1], *(len(weight) for weight in problem.weights)]
        biases = [bias is not None for bias in problem.biases]
        seen.add(("depth", len(biases), problem.kind))
        seen.add(("decay", problem.weight_decay > 0, len(biases)))
        seen.add(("bias", "all" if all(biases) else "some" if any(biases) else "none", len(biases)))
        seen |= {("one", 1 in widths[1:-1]), ("one input", widths[0] == 1), ("one output", widths[-1] == 1)}
        seen.add(("few", len(problem.X) < widths[0]))
        wide = [h > i + b + o for i, b, h, o in zip(widths, biases, widths[1:], widths[2:], strict=False)]
        seen.add(("wide", min(sum(wide), 2)))
        seen.add(("bottleneck", len(widths) > 2 and min(widths[1:-1]) < min(widths[0], widths[-1])))
    wanted = {("depth", depth, kind) for depth in range(1, 6) for kind in KINDS}
    wanted |= {("decay", decay, depth) for decay in (False, True) for depth in range(1, 6)}
    wanted |= {("bias", some, depth) for some in ("all", "none") for depth in range(1, 6)}
    wanted |= {("bias", "some", depth) for depth in range(2, 6)} | {("wide", count) for count in range(3)}
    wanted |= {(what, True) for what in ("one", "one input", "one output", "few", "bottleneck")}
    assert not wanted - seen


@each("seed", range(0, 120, 2), quick=20)
@pytest.mark.quick_in_cpp
def test_exact_on_integers(backend, seed):
    problem = problems.deep_integers(seed)
    truth = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    check_parts(problem, truth.hessian, witness.exact_gauss_newton(problem))


@each("seed", problems.GENERAL, quick=16)
def test_differences_of_the_gradient_agree(seed):
    problem = problems.general(seed)
    H = problem.loss().hessian(problem.network())
    differences = witness.finite_differences(problem)
    relative(H.toarray(), differences)


@each("seed", problems.GENERAL, quick=16)
def test_float32(backend, close, seed):
    problem = problems.general(seed)
    full, gauss_newton = witness.of_general(seed)
    H = problem.loss("float32").hessian(problem.network("float32"))
    for found, expected in ((H, full), (H.gauss_newton(), gauss_newton)):
        dense = found.toarray()
        assert dense.dtype == found.dtype == found.diagonal().dtype == np.float32
        close(dense, expected, "float32")
        close(found.diagonal(), np.diag(expected), "float32")


@each("seed", problems.GENERAL, quick=16)
def test_diagonal_and_trace(backend, seed):
    problem = problems.general(seed)
    full, gauss_newton = witness.of_general(seed)
    H = problem.loss().hessian(problem.network())
    for found, expected in ((H, full), (H.gauss_newton(), gauss_newton)):
        relative(found.diagonal(), np.diag(expected))
        assert found.trace() == pytest.approx(np.trace(expected), rel=1e-12)
    assert not H.functional().diagonal().any()
    assert H.functional().trace() == 0.0
    for layer, at in enumerate(slices(problem)):
        block = H.block(layer, layer)
        relative(block.diagonal(), np.diag(full)[at])
        assert block.trace() == pytest.approx(np.trace(full[at, at]), rel=1e-12)


def test_a_hundred_thousand_samples(backend):
    """The same matrix as by sums over the samples, from data that the backend sees reduced."""
    problem = problems.normal([6, 8, 4], 100_000, bias=True)
    H = problem.loss().hessian(problem.network())
    ones = np.ones((100_000, 1))
    inputs = [np.hstack([problem.X, ones])]
    inputs.append(np.hstack([problem.X @ problem.weights[0].T + problem.biases[0], ones]))
    E = inputs[1] @ np.column_stack([problem.weights[1], problem.biases[1]]).T - problem.Y
    W2 = problem.weights[1]
    first, second = (H.block(layer, layer).toarray() for layer in (0, 1))
    relative(first[:48, :48], np.kron(W2.T @ W2, problem.X.T @ problem.X))
    relative(second[:32, :32], np.kron(np.eye(4), inputs[1][:, :-1].T @ inputs[1][:, :-1]))
    # d²L / dW_1[k,a] dW_2[c,n] = W_2[c,k] (X.T Z)[a,n] + (E.T X)[c,a] delta_kn
    cross = np.einsum("ck,an->kacn", W2, problem.X.T @ inputs[1][:, :-1])
    cross += np.einsum("ca,kn->kacn", E.T @ problem.X, np.eye(8))
    relative(H.block(0, 1).toarray()[:48, :32], cross.reshape(48, 32))
    v = np.random.default_rng(0).standard_normal(H.shape[0])
    relative(H @ v, H.toarray() @ v)
