"""Spectra that theory gives in closed form, at minima."""

from __future__ import annotations

import numpy as np
import pytest
from witness import relative

import hesskern as hk


def orthonormal(rng, rows, columns):
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


SHAPES = [(5, 20, 4), (3, 4, 3), (4, 2, 5), (1, 3, 1), (6, 1, 2), (3, 100, 2), (2, 3, 6)]


@pytest.mark.parametrize(("inputs", "hidden", "outputs"), SHAPES)
@pytest.mark.parametrize("kind", ["half_sum", "sum", "mean"])
def test_whitened_interpolating_minimum_of_two_layers(backend, kind, inputs, hidden, outputs):
    """X.T X = I, zero residual: σ_p²(W_1) + σ_q²(W_2) for all p, q, the rest zero."""
    rng = np.random.default_rng(0)
    W1, W2 = rng.standard_normal((hidden, inputs)), rng.standard_normal((outputs, hidden))
    X = orthonormal(rng, 10, inputs)
    Y = X @ (W2 @ W1).T
    H = hk.SquaredLoss(X, Y, kind).hessian(hk.LinearNetwork([W1, W2]))
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / Y.size}[kind]
    squares = [np.zeros(inputs), np.zeros(outputs)]
    for square, weight in zip(squares, (W1, W2), strict=True):
        values = np.linalg.svd(weight, compute_uv=False) ** 2
        square[: len(values)] = values
    sums = scale * np.add.outer(*squares).ravel()
    expected = np.sort(np.concatenate([sums, np.zeros(H.shape[0])]))[-H.shape[0] :]
    for operator in (H, H.gauss_newton()):
        relative(operator.eigvalsh(), expected, 1e-13)
        assert operator.rank() == np.count_nonzero(sums > 0)
        assert operator.cond() == pytest.approx(sums.max() / sums[sums > 0].min(), rel=1e-12)
    assert H.functional().rank() == 0


@pytest.mark.parametrize(
    "widths", [[3, 3, 3], [4, 6, 5, 3], [2, 5, 5, 5, 3], [3, 4, 4, 4, 4, 2], [4, 2, 3, 5], [1] * 6]
)
def test_balanced_minimum_of_any_depth(backend, widths):
    """W_l = U_l S^(1/L) U_{l-1}.T: Σ_l s_p^{2(L-l)/L} s_q^{2(l-1)/L} over outputs p and inputs q."""
    rng = np.random.default_rng(1)
    depth = len(widths) - 1
    strengths = np.linspace(0.5, 2.0, min(widths))
    frames = [orthonormal(rng, width, width)[:, : len(strengths)] for width in widths]
    weights = [frames[layer + 1] @ np.diag(strengths ** (1 / depth)) @ frames[layer].T for layer in range(depth)]
    X = orthonormal(rng, 8, widths[0])
    net = hk.LinearNetwork(weights)
    H = hk.SquaredLoss(X, net.forward(X)).hessian(net)
    s_out, s_in = np.zeros(widths[-1]), np.zeros(widths[0])
    s_out[: len(strengths)] = s_in[: len(strengths)] = strengths
    expected = sum(
        np.multiply.outer(s_out ** (2 * (depth - layer) / depth), s_in ** (2 * (layer - 1) / depth))
        for layer in range(1, depth + 1)
    ).ravel()
    values = np.sort(np.concatenate([expected, np.zeros(H.shape[0])]))[-H.shape[0] :]
    relative(H.eigvalsh(), values, 1e-13)
    relative(H.gauss_newton().eigvalsh(), values, 1e-13)
    assert H.rank() == H.gauss_newton().rank() == np.count_nonzero(expected)


def test_a_scalar_chain(backend):
    """Depth L, widths one: ∂²/∂w_j∂w_k of (Πw - 1)²/2 by hand."""
    w = np.array([1.5, -0.5, 2.0, 0.75])
    net = hk.LinearNetwork([np.array([[value]]) for value in w])
    H = hk.SquaredLoss(np.ones((1, 1)), np.ones((1, 1))).hessian(net)
    p = w.prod()
    expected = np.array([[p * p / (a * b) + (p - 1) * p / (a * b) for a in w] for b in w])
    expected[np.diag_indices(4)] = (p / w) ** 2
    relative(H.toarray(), expected, 1e-15)
    relative(H.eigvalsh(), np.linalg.eigvalsh(expected), 1e-14)


def test_the_saddle_at_the_origin(backend):
    """All weights zero: only the residual's part of neighbouring two layers is left, ±σ(C) each h times."""
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((9, 4)), rng.standard_normal((9, 3))
    H = hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork([np.zeros((6, 4)), np.zeros((3, 6))]))
    sigma = np.linalg.svd(Y.T @ X, compute_uv=False)
    relative(H.eigvalsh(), np.sort(np.r_[np.repeat(sigma, 6), -np.repeat(sigma, 6), np.zeros(6)]), 1e-14)
    assert H.rank() == 36
    assert H.condition().negative == 18
    deeper = hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork([np.zeros((6, 4)), np.zeros((5, 6)), np.zeros((3, 5))]))
    assert deeper.rank() == 0
    assert not deeper.toarray().any()
