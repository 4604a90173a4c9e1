"""The width reduction of MATH.md, from its own QR: spec(H) = spec(H_reduced) ∪ (h - r) × {±σ(C)} ∪ zeros."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from witness import relative

import hesskern as hk


def reduced(weights, biases, layer):
    """The network of r units, by the thin QR of everything that touches the layer."""
    bias = [] if biases[layer] is None else [biases[layer][:, None]]
    R = np.linalg.qr(np.hstack([weights[layer], *bias, weights[layer + 1].T]))[1]
    inputs = weights[layer].shape[1]
    weights, biases = list(weights), list(biases)
    weights[layer], weights[layer + 1] = R[:, :inputs].copy(), R[:, inputs + len(bias) :].T.copy()
    if bias:
        biases[layer] = R[:, inputs].copy()
    return weights, biases


def coupling(problem, layer):
    """(W_L ... W_{l+2}).T G (W_{l-1} ... W_1).T, with biases on inputs and a constant."""
    activation = problem.X
    for weight, bias in zip(problem.weights[:layer], problem.biases[:layer], strict=True):
        activation = activation @ weight.T + (0 if bias is None else bias)
    if problem.biases[layer] is not None:
        activation = np.hstack([activation, np.ones((len(activation), 1))])
    back = problem.network().forward(problem.X) - problem.Y
    for weight in problem.weights[: layer + 1 : -1]:
        back = back @ weight
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
    return scale * back.T @ activation


CASES = [
    ([5, 40, 5], 0, False),
    ([3, 30, 4], 0, True),
    ([4, 20, 3, 2], 0, False),
    ([4, 3, 20, 2], 1, True),
    ([3, 4, 25, 5, 2], 1, True),
    ([3, 4, 5, 25, 2], 2, False),
    ([2, 3, 4, 22, 3, 2], 2, True),
]


@pytest.mark.parametrize("kind", problems.KINDS)
@pytest.mark.parametrize(("widths", "layer", "bias"), CASES)
def test_the_theorem(backend, widths, layer, bias, kind):
    problem = problems.normal(widths, 12, bias=bias, kind=kind)
    H = problem.loss().hessian(problem.network())
    weights, biases = reduced(problem.weights, problem.biases, layer)
    small = problem.loss().hessian(hk.LinearNetwork(weights, biases))
    left_over = widths[layer + 1] - len(weights[layer])
    C = coupling(problem, layer)
    sigma = np.linalg.svd(C, compute_uv=False)
    pieces = [np.linalg.eigvalsh(small.toarray()), *[np.concatenate([sigma, -sigma])] * left_over]
    rest = np.zeros(left_over * (sum(C.shape) - 2 * len(sigma)))
    predicted = np.sort(np.concatenate([*pieces, rest]))
    relative(predicted, np.linalg.eigvalsh(H.toarray()), 1e-12)  # the theorem
    relative(H.eigvalsh(), predicted, 1e-12)  # and its use


@pytest.mark.parametrize(("widths", "layer", "bias"), CASES)
def test_gauss_newton_only_gains_zeros(backend, widths, layer, bias):
    problem = problems.normal(widths, 12, bias=bias)
    G = problem.loss().hessian(problem.network()).gauss_newton()
    weights, biases = reduced(problem.weights, problem.biases, layer)
    small = np.linalg.eigvalsh(problem.loss().hessian(hk.LinearNetwork(weights, biases)).gauss_newton().toarray())
    predicted = np.sort(np.concatenate([small, np.zeros(G.shape[0] - len(small))]))
    relative(G.eigvalsh(), predicted, 1e-12)
    zero = G.spectrum().multiplicities[G.spectrum().values == 0]
    assert zero.sum() >= G.shape[0] - len(small)


def test_a_stack_that_is_rank_deficient(backend):
    """Units that are copies or zero: R has zero rows, the theorem holds all the same."""
    rng = np.random.default_rng(0)
    W1 = np.repeat(rng.standard_normal((2, 3)), 8, axis=0)
    W2 = np.zeros((2, 16))
    X, Y = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    for second in (W2, np.tile(rng.standard_normal((2, 1)), 16)):
        H = hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork([W1, second]))
        relative(H.eigvalsh(), np.linalg.eigvalsh(H.toarray()), 1e-12)
        values, vectors = H.eigh()
        relative(vectors @ np.diag(values) @ vectors.T, H.toarray(), 1e-12)
    H = hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork([np.zeros((16, 3)), W2]))
    sigma = np.linalg.svd(Y.T @ X, compute_uv=False)
    spectrum = H.spectrum()
    assert spectrum.size == 80
    relative(spectrum.expand(), np.sort(np.r_[np.repeat(sigma, 16), -np.repeat(sigma, 16), np.zeros(16)]))


def test_graded_units_keep_their_digits(backend):
    """A wide layer with units of sizes from 1 to 1e-9: eigenvalues to the norm, as eigvalsh would give them."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** -np.linspace(0, 9, 30)
    weights = [rng.standard_normal((30, 3)) * sizes[:, None], rng.standard_normal((2, 30)) * sizes[::-1]]
    H = hk.SquaredLoss(rng.standard_normal((9, 3)), rng.standard_normal((9, 2))).hessian(hk.LinearNetwork(weights))
    relative(H.eigvalsh(), np.linalg.eigvalsh(H.toarray()), 1e-13)
