"""Networks that were trained, to be compared with what somebody computed of them."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk


@pytest.fixture(scope="session")
def training():
    rng = np.random.default_rng(4)
    X = rng.standard_normal((20, 4))
    loss = hk.SquaredLoss(X, X @ rng.standard_normal((4, 3)) + rng.standard_normal((20, 3)), "mean", 0.01)
    nets = [hk.LinearNetwork.random([4, 6, 3], seed=1, bias=True)]
    nets += [hk.fit(nets[0], loss, lr=0.05, max_steps=steps).network for steps in (3, 4, 50)]
    return loss, nets


@pytest.fixture(scope="session")
def case():
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    net = hk.fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=case.rtol).network
    wx = net.weights[0].dot(case.X)
    return net, loss, np.kron(wx.dot(wx.T), np.eye(5))
