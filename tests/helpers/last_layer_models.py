"""Models that end in a linear layer, and autograd's Hessian with respect to it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402

N, C = 23, 3


class Convolutions(nn.Module):
    """The last layer is registered first; dropout and batch normalisation are in evaluation mode."""

    def __init__(self, *, bias=True):
        super().__init__()
        self.head = nn.Linear(8, C, bias=bias)
        self.body = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.GELU(), nn.MaxPool1d(2), nn.Flatten())
        self.end = nn.Dropout(0.5)

    def forward(self, x):
        return self.end(self.head(self.features(x)))

    def features(self, x):
        return torch.tanh(self.body(x))


def autograd(layer, features, value):
    """The Hessian of ``value(layer(features))`` with respect to the layer's parameters, row by row."""
    known = dict(layer.named_parameters())

    def loss(flat):
        parts = torch.split(flat, [parameter.numel() for parameter in known.values()])
        return value(
            functional_call(
                layer, {n: p.reshape(known[n].shape) for n, p in zip(known, parts, strict=True)}, (features,)
            )
        )

    flat = torch.cat([parameter.detach().reshape(-1) for parameter in known.values()])
    return torch.autograd.functional.hessian(loss, flat).numpy()


def head_only(model, X, value):
    return autograd(model.head, model.features(X).detach(), value)


def agree(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def targets(kind):
    torch.manual_seed(2)
    labels = torch.randint(C, (N,))
    if kind == "ignored":
        labels[::4] = -100
    return torch.rand(N, C, dtype=torch.float64) if kind == "soft" else labels


CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 1.25], dtype=torch.float64)


class Reshaped(nn.Module):
    """A head on the rows of (N, 4, 6) samples, and what a model makes of its result."""

    def __init__(self, outputs, reshape):
        super().__init__()
        self.head, self.reshape = nn.Linear(6, outputs), reshape

    def forward(self, x):
        return self.reshape(self.head(x))
