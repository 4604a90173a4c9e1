"""Wide hidden layers of networks in training: the stack's basis, there and back. Runs are in tests/training."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.backends.protocol import PlainLayers
from hesskern.reductions.widths import orthogonal_basis, reduce_widths

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("rank", [5, 3, 1])
def test_the_basis_of_a_stack(rank):
    stack = RNG.standard_normal((40, rank)) @ RNG.standard_normal((rank, 5))
    basis, inside = orthogonal_basis(stack)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), rtol=0, atol=1e-14)
    np.testing.assert_allclose(basis @ inside, stack, rtol=0, atol=1e-13)
    assert int((np.abs(inside).sum(axis=1) > 0).sum()) == rank  # rounding errors are zeros


def test_two_layers_there_and_back():
    shapes = [(20, 3), (2, 20), (15, 2), (1, 15)]
    layers = PlainLayers(tuple(RNG.standard_normal(s) for s in shapes), (RNG.standard_normal(20), None, None, None))
    stages, small = reduce_widths(layers)
    assert [weight.shape for weight in small.weights] == [(6, 3), (2, 6), (3, 2), (1, 3)]
    changes = [RNG.standard_normal(w.shape) for w in small.weights]
    moved = small._replace(weights=tuple(w + c for w, c in zip(small.weights, changes, strict=True)))
    same, lifted = small, moved
    for stage in reversed(stages):
        same, lifted = stage.lift(same, 1.0), stage.lift(lifted, 0.5)
    assert all((a == b).all() for a, b in zip(same.weights, layers.weights, strict=True))
    product = moved.weights[3] @ moved.weights[2] @ moved.weights[1] @ moved.weights[0]
    wide = lifted.weights[3] @ lifted.weights[2] @ lifted.weights[1] @ lifted.weights[0]
    np.testing.assert_allclose(wide, product, rtol=0, atol=1e-12)


def test_narrow_layers_stay():
    layers = PlainLayers((RNG.standard_normal((5, 3)), RNG.standard_normal((2, 5))), (None, None))
    assert reduce_widths(layers) == ([], layers)
