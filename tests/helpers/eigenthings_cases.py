"""A small network, its data and its Hessian for the tests of hessian-eigenthings' calls."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import hesskern.torch  # noqa: E402

torch.manual_seed(0)
X, Y = torch.randn(12, 4, dtype=torch.float64), torch.randn(12, 2, dtype=torch.float64)


EVEN = [(X[:6], Y[:6]), (X[6:], Y[6:])]


UNEVEN = [(X[:10], Y[:10]), (X[10:], Y[10:])]


MSE = nn.functional.mse_loss


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, bias=False)).double()


def matrix():
    return hesskern.torch.hessian(net(), MSE, (X, Y))


def half_sum(predictions, targets):
    return 0.5 * ((predictions - targets) ** 2).sum()
