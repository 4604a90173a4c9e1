"""Bounds from norms, which are quick, beside those from magnitudes, which are close."""

import numpy as np

import hesskern as hk


def test_rough_bounds_are_not_below_close_ones(backend):
    """Deep, unbalanced, with biases: norms multiplied are never less than magnitudes multiplied entry by entry."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        widths = [int(width) for width in rng.integers(1, 6, int(rng.integers(3, 7)))]
        net = hk.LinearNetwork.random(widths, seed=seed, bias=bool(seed % 2))
        X, Y = rng.standard_normal((9, widths[0])), rng.standard_normal((9, widths[-1]))
        H = hk.SquaredLoss(X, Y).hessian(net)
        H.eigvalsh()
        assert H._errors.rough.jacobian >= 0.9 * H._errors.close.jacobian
        assert H._errors.rough.functional >= 0.9 * H._errors.close.functional
        assert H._errors.rough.residual >= H._errors.close.residual - 0.1
