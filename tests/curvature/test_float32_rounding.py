"""Float32 networks: what rounding their numbers may have made does not count, what they determine does."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk


@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_large_targets_of_a_float32_network(decay):
    rng, f = np.random.default_rng(0), np.float32
    X = rng.standard_normal((200, 5)).astype(f)
    Y = (X @ rng.standard_normal((5, 3)) + 1e7).astype(f)
    random = hk.LinearNetwork.random([5, 8, 3], seed=0, bias=True, dtype=f)
    net = hk.LinearNetwork(random.weights, [random.biases[0], np.full(3, 1e7, f)])
    H = hk.SquaredLoss(X, Y, weight_decay=decay).hessian(net)
    dense = H.toarray().astype(np.float64)
    values = np.linalg.eigvalsh(dense)
    assert H.rank() >= int(np.sum(np.abs(values) > 1e-3 * np.abs(values).max()))
    assert H.condition().largest == pytest.approx(np.abs(values).max(), rel=1e-5)
    b = np.ones(len(dense), f)
    x = H.solve(b, damping=1.0)
    assert np.linalg.norm(dense @ x + x - b) <= 1e-4 * np.linalg.norm(b)


def test_a_float32_network_has_the_rank_that_its_numbers_determine():
    """As the same numbers in float64, and as numbers moved by half a unit in the last place."""
    rng, f = np.random.default_rng(0), np.float32
    weights = hk.LinearNetwork.random([5] * 7, seed=1, dtype=f).weights
    X, Y = (rng.standard_normal((50, 5)).astype(f) for _ in range(2))

    def condition(parts, x, y):
        return hk.SquaredLoss(x, y).hessian(hk.LinearNetwork(parts)).condition()

    wide = [a.astype(np.float64) for a in weights]
    here, same = condition(weights, X, Y), condition(wide, X.astype(float), Y.astype(float))
    moved = condition([w * (1 + 3e-8 * rng.standard_normal(w.shape)) for w in wide], X.astype(float), Y.astype(float))
    assert here.value > 1e6
    assert here.rank == same.rank == moved.rank
    assert here.value == pytest.approx(same.value, rel=1e-6)
    assert abs(moved.value / here.value - 1) <= here.uncertainty < 0.1


def test_what_rounding_to_float32_has_made_is_no_rank():
    """The last input is the sum of two others, rounded: its own direction is rounding noise."""
    rng, f = np.random.default_rng(1), np.float32
    X = rng.standard_normal((50, 4)).astype(f)
    X[:, 3] = X[:, 0] + X[:, 1]
    Y = rng.standard_normal((50, 2)).astype(f)
    net = hk.LinearNetwork.random([4, 3, 2], seed=0, dtype=f)
    exact = np.column_stack([X[:, :3].astype(float), X[:, 0].astype(float) + X[:, 1].astype(float)])
    wide = hk.LinearNetwork([w.astype(float) for w in net.weights])
    expected = hk.SquaredLoss(exact, Y.astype(float)).hessian(wide)
    H = hk.SquaredLoss(X, Y).hessian(net)
    assert H.gauss_newton().rank() == expected.gauss_newton().rank()
