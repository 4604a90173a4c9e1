"""Chains of linear layers in PyTorch, and the networks that they are."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import hesskern as hk  # noqa: E402


class Wrapped(nn.Module):
    """A module whose forward is given."""

    def __init__(self, forward, **members):
        super().__init__()
        for name, member in members.items():
            setattr(self, name, member)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def check(module, X, expected_names=None):
    """The network predicts what the module does, and goes back into one with the same state."""
    net = hk.LinearNetwork.from_torch(module)
    with torch.no_grad():
        expected = module(X)
    found = net.forward(X.reshape(len(X), -1).numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    if expected_names is not None:
        assert net.parameter_names == tuple(expected_names)
    again = net.to_torch()
    assert sorted(again.state_dict()) == sorted(net.parameter_names)
    torch.testing.assert_close(again(X.reshape(len(X), -1)), expected)
    assert hk.LinearNetwork.from_torch(again).parameter_names == net.parameter_names
    return net, again
