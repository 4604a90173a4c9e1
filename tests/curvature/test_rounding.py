"""Bounds on rounding errors are those of the numbers as they are: no clear eigenvalue is dropped, no loss unsaid."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

import hesskern as hk


def product(left, right):
    """The product of two float64 matrices, rounded once."""

    def entry(row, column):
        return float(sum(Fraction(a) * Fraction(b) for a, b in zip(row, column, strict=True)))

    return np.array([[entry(row, column) for column in right.T] for row in left])


def exact_hessian(weights, X, Y):
    """The Hessian of the half-sum loss over all weights in mpmath's precision, from its definition."""
    mp = mpmath.mp
    W, A, T = [mp.matrix(w.tolist()) for w in weights], mp.matrix(X.tolist()), mp.matrix(Y.tolist())
    sizes = [(w.rows, w.cols) for w in W]
    places = [(layer, i, j) for layer, (rows, columns) in enumerate(sizes) for i in range(rows) for j in range(columns)]

    def chain(changes):
        found = A
        for layer, w in enumerate(W):
            w = changes.get(layer, w)
            found = found * w.T
        return found

    def unit(place):
        layer, i, j = place
        found = mp.zeros(*sizes[layer])
        found[i, j] = 1
        return layer, found

    units = [unit(place) for place in places]
    E = chain({}) - T
    first = [chain({layer: u}) for layer, u in units]
    found = mp.zeros(len(places))
    for a, (one, u) in enumerate(units):
        for b, (two, v) in enumerate(units):
            value = sum(x * y for x, y in zip(first[a], first[b], strict=True))
            if one != two:
                value += sum(x * y for x, y in zip(E, chain({one: u, two: v}), strict=True))
            found[a, b] = value
    return found


@pytest.mark.parametrize("decades", [4, 8, 12])
@pytest.mark.parametrize("mode", ["full", "gauss_newton"])
def test_hidden_units_of_other_scales_hide_no_eigenvalue(backend, decades, mode):
    rng = np.random.default_rng(0)
    units = 10.0 ** rng.uniform(-decades, decades, 20)
    into, out_of = rng.standard_normal((20, 3)) * units[:, None], rng.standard_normal((3, 20)) / units
    rest = [rng.standard_normal((3, 3)) for _ in range(2)]
    X, Y = rng.standard_normal((30, 3)), rng.standard_normal((30, 3))
    H = hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork([into, out_of, *rest]), [2, 3])
    H = H if mode == "full" else H.gauss_newton()
    below = torch.from_numpy(X @ product(out_of, into).T)
    one, two = map(torch.from_numpy, rest)

    def prediction(theta):
        return below @ (theta[9:].reshape(3, 3) @ theta[:9].reshape(3, 3)).T

    theta = torch.cat([one.ravel(), two.ravel()])
    if mode == "full":
        dense = torch.autograd.functional.hessian(
            lambda t: 0.5 * (prediction(t) - torch.from_numpy(Y)).square().sum(), theta
        ).numpy()
        sizes = np.abs(np.linalg.eigvalsh(dense))
        rank = 18
    else:
        jacobian = torch.autograd.functional.jacobian(prediction, theta).reshape(-1, 18).numpy()
        dense = jacobian.T @ jacobian
        sizes = np.sort(np.linalg.svd(jacobian, compute_uv=False) ** 2)[9:]  # 9 directions change nothing
        rank = 9
    found = H.condition()
    assert found.rank == rank
    assert found.value == pytest.approx(sizes.max() / sizes.min(), rel=max(found.uncertainty, 1e-9))
    assert found.uncertainty < 1e-6
    x = H.solve(np.ones(18), damping=1.0)
    assert np.linalg.norm(dense @ x + x - 1) <= 1e-10 * np.linalg.norm(dense, 2) * np.linalg.norm(x)


@pytest.mark.parametrize("size", [1.0, 1e4, 1e8])
def test_what_cancels_in_the_products_stands_in_the_uncertainty(backend, size):
    """Two features are nearly the same, and their weights nearly opposite."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((2, 2))
    X[:, 1] = X[:, 0] * (1 + 1e-15 * rng.integers(1, 5, 2))
    W = [rng.standard_normal((2, 2)), rng.standard_normal((2, 2)), rng.standard_normal((1, 2))]
    large = size * rng.standard_normal(2)
    W[0][:, 0] += large
    W[0][:, 1] -= large
    Y = rng.standard_normal((2, 1))
    H = hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork(W))
    found = H.condition()
    with mpmath.workdps(60):
        exact = np.sort([float(abs(value)) for value in mpmath.eigsy(exact_hessian(W, X, Y), eigvals_only=True)])
    off = np.abs(np.sort(np.abs(H.eigvalsh())) - exact).max()
    assert off <= found.tolerance * found.largest
    true = exact[-1] / exact[-found.rank]
    assert abs(found.value / true - 1) <= found.uncertainty
    if size == 1.0:
        assert found.uncertainty < 1e-9


def test_small_features_beside_biases_do_not_make_a_regular_system_singular(backend):
    rng = np.random.default_rng(0)
    X, Y = 1e-60 * rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    weights = [1e60 * rng.standard_normal((4, 3)), 1e-70 * rng.standard_normal((2, 4))]
    net = hk.LinearNetwork(weights, [rng.standard_normal(4), 1e-70 * rng.standard_normal(2)])
    H = hk.SquaredLoss(X, Y).hessian(net, [0])
    largest = float(np.abs(H.eigvalsh()).max())
    dense = H.toarray() / largest
    x = H.solve(np.ones(H.shape[0]), damping=largest) * largest
    np.testing.assert_allclose(dense @ x + x, 1, rtol=0, atol=1e-12)
    H = hk.SquaredLoss(X, Y).hessian(net)
    damping = 2 * float(np.abs(H.eigvalsh()).max())
    dense = H.toarray() / damping
    x = H.solve(np.ones(H.shape[0]), damping=damping) * damping
    np.testing.assert_allclose(dense @ x + x, 1, rtol=0, atol=1e-12)
