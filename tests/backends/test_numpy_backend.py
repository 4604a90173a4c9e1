"""The plain backend against what is plainer still: the oracle, entry by entry and difference by difference."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from looped import each
from witness import dense

from hesskern.backends.data import Data
from hesskern.backends.numpy_backend import ReferenceBackend
from hesskern.backends.protocol import Block, Side, Softmax

BACKEND = ReferenceBackend()
SCALE = {"half_sum": lambda Y: 1.0, "sum": lambda Y: 2.0, "mean": lambda Y: 2.0 / Y.size}


def given(seed):
    problem = problems.small(seed)
    floats = problems.Problem(
        [w.astype(float) for w in problem.weights], [b if b is None else b.astype(float) for b in problem.biases],
        problem.X.astype(float), problem.Y.astype(float), problem.kind,
    )  # fmt: skip
    return problem, floats, floats.network(), Data(floats.X, None, floats.Y, 0.0), SCALE[problem.kind](problem.Y)


@each("seed", problems.SMALL[::3])
def test_predictions_and_gradients_are_exact_on_integers(seed):
    problem, _, net, data, scale = given(seed)
    predictions = oracle.forward(problem.weights, problem.biases, problem.X)
    np.testing.assert_array_equal(BACKEND.forward(net, data.X), predictions)
    assert BACKEND.squared_residual(net, data) == np.sum((predictions - problem.Y) ** 2)
    wanted = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind)
    squared, gradient = BACKEND.gradient(net, data, scale)
    assert squared == BACKEND.squared_residual(net, data)
    np.testing.assert_allclose(gradient, wanted.gradient, rtol=1e-14, atol=1e-12)


@each("seed", problems.SMALL[::3])
def test_products_are_those_of_the_exact_hessian(seed):
    problem, floats, net, data, scale = given(seed)
    parts = dense(floats)
    parts["full"] = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind).hessian
    V = np.random.default_rng(seed).standard_normal((len(parts["full"]), 2))
    for name, wanted in parts.items():
        product = BACKEND.hessian_product(
            net, data, scale=scale, decay=0.5, gauss_newton=name != "functional", functional=name != "gauss_newton"
        )
        out = np.empty_like(V)
        product.apply(V, out)
        np.testing.assert_allclose(out, wanted @ V + 0.5 * V, rtol=0, atol=1e-12 * max(1.0, np.abs(wanted).max()))


def test_derivatives_of_samples_are_differences():
    problem = problems.normal([3, 4, 2], 5, bias=True)
    net = problem.network()
    delta = np.random.default_rng(0).standard_normal((5, 2))
    parameters, samples = BACKEND.backward(net, problem.X, delta, parameters=True, samples=True)
    E = problem.network().forward(problem.X) - delta  # targets that make delta the residual
    np.testing.assert_allclose(parameters, BACKEND.gradient(net, Data(problem.X, None, E, 0.0), 1.0)[1], atol=1e-13)
    for n in range(5):
        for i in range(3):
            moved = problem.X.copy()
            moved[n, i] += 1.0  # predictions are affine in a sample
            change = np.sum(delta * (net.forward(moved) - net.forward(problem.X)))
            assert samples[n, i] == pytest.approx(change, rel=1e-10, abs=1e-12)
    assert BACKEND.backward(net, problem.X, delta, parameters=False, samples=False) == (None, None)


@pytest.mark.parametrize("bias", [False, True])
def test_a_block_is_written_entry_by_entry(bias):
    rng = np.random.default_rng(3)
    row, column = Side(2, 3, bias), Side(4, 1, True)
    U, V = rng.standard_normal((2, 4)), rng.standard_normal((3 + bias, 2))
    B, W = rng.standard_normal((3 + bias, 4)), rng.standard_normal((2, 2))
    out = np.empty((2 * (3 + bias), 8))
    BACKEND.assemble([row], [column], [Block(U, V, B, W)], out)

    def places(side):
        """Pairs (outer, inner), those of the constant input last."""
        inner = [(r, s) for r in range(side.outer) for s in range(side.inner)]
        return inner + [(r, side.inner) for r in range(side.outer)] * side.bias

    for k, (r, s) in enumerate(places(row)):
        for j, (p, q) in enumerate(places(column)):
            assert out[k, j] == pytest.approx(U[r, p] * V[s, q] + B[s, p] * W[r, q], rel=1e-13)


def test_softmax_is_the_sum_over_samples():
    rng = np.random.default_rng(4)
    f, logits, scale = rng.standard_normal((5, 2)), rng.standard_normal((5, 3)), rng.random(5)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    out = np.empty((6, 6))
    BACKEND.softmax_dense(Softmax(f, p, scale, False), out)
    wanted = sum(s * np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for s, q, x in zip(scale, p, f, strict=True))
    np.testing.assert_allclose(out, wanted, atol=1e-14)
    np.testing.assert_array_equal(out, out.T)
    v, found = rng.standard_normal(6), np.empty(6)
    BACKEND.softmax_product(Softmax(f, p, scale, False), v, found)
    np.testing.assert_allclose(found, wanted @ v, atol=1e-14)


def test_triangular_factors_keep_the_gram_matrix():
    rng = np.random.default_rng(5)
    for rows in (2, 9):
        parts = [rng.standard_normal((rows, 3)), rng.standard_normal((rows, 1))]
        R = BACKEND.triangular_factor(parts)
        A = np.hstack(parts)
        assert R.shape == (4, 4)
        np.testing.assert_array_equal(R, np.triu(R))
        np.testing.assert_allclose(R.T @ R, A.T @ A, atol=1e-13)
        triangle, product = BACKEND.wide_layer(parts[:1], parts[1])
        np.testing.assert_allclose(np.abs(triangle), np.abs(R), atol=1e-13)
        np.testing.assert_allclose(product, parts[1].T @ parts[0], atol=1e-14)


def test_units_of_very_different_sizes_are_not_mixed():
    rng = np.random.default_rng(6)
    stack = rng.standard_normal((5, 40))
    assert not BACKEND.mixes_units(stack, 2)
    stack[:3] *= 10.0 ** np.linspace(-6, 6, 40)  # large weights in where those out are small
    stack[3:] /= 10.0 ** np.linspace(-6, 6, 40)
    assert BACKEND.mixes_units(stack, 2)
