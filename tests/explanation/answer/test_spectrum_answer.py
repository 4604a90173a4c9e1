"""What is said of eigenvalues that say nothing."""

from __future__ import annotations

import numpy as np
from looped import each

import hesskern as hk


@each("values", [[0, 0], np.zeros(26), [-3.7, -3.7], [1.25, 7.5], np.full(26, 1e-320), np.full(26, 1e308)], quick=1)
def test_eigenvalues_that_say_nothing(values):
    """Zeros, and one or two values: a factor and a shift make these of any others; squares of 1e-320 are zero."""
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([3, 4, 2], seed=0, bias=True)
    loss = hk.SquaredLoss(rng.standard_normal((20, 3)), rng.standard_normal((20, 2)))
    assert net.num_parameters == 26
    assert hk.explain(values, net, loss).status == "unexplained"
