"""Data that were prepared: standardised, centred, or targets that broadcast."""

from __future__ import annotations

import numpy as np
import pytest
from explained import KINDS, causes, hessian, problem

import hesskern as hk


@pytest.mark.parametrize("kind", ["half_sum", "sum", "mean"])
def test_targets_that_broadcast(kind):
    torch = pytest.importorskip("torch")
    net, loss = problem(kind)
    sizes = [parameter.size for pair in zip(net.weights, net.biases, strict=True) for parameter in pair]
    X, y = torch.tensor(loss.X), torch.tensor(loss.Y[:, 0])

    def value(theta):
        a, b, c, d = torch.split(theta, sizes)
        error = (X @ a.view(5, 4).T + b) @ c.view(1, 5).T + d - y  # (N, N)
        return {"half_sum": 0.5, "sum": 1.0}.get(kind, 1 / error.numel()) * error.square().sum()

    matrix = torch.autograd.functional.hessian(value, torch.tensor(net.flatten())).numpy()
    why = hk.explain(matrix, net, loss)
    assert causes(why) == ["targets-broadcast"] and "Y.reshape(-1, 1)" in why.findings[0].fix


@pytest.mark.parametrize(("kind", "outputs", "bias"), KINDS)
def test_data_that_were_prepared(kind, outputs, bias):
    net, loss = problem(kind, outputs=outputs, bias=bias)
    X, Y = loss.X, loss.Y
    for name, other in {
        "X-centred": (X - X.mean(0), Y),
        "X-standardised": ((X - X.mean(0)) / X.std(0), Y),
        "X-standardised[ddof=1]": ((X - X.mean(0)) / X.std(0, ddof=1), Y),
        "Y-standardised": (X, (Y - Y.mean(0)) / Y.std(0)),
        "XY-standardised": ((X - X.mean(0)) / X.std(0), (Y - Y.mean(0)) / Y.std(0)),
        "X-scaled-to-one": ((X - X.min(0)) / (X.max(0) - X.min(0)), Y),
        "X-rows-normalised": (X / np.linalg.norm(X, axis=1, keepdims=True), Y),
    }.items():
        why = hk.explain(hessian(net, loss, *other), net, loss)
        assert [name] in [causes(why), *(list(each.causes) for each in why.alternatives)], str(why)
    assert causes(hk.explain(2 * hessian(net, loss, X - X.mean(0)), net, loss)) == ["X-centred", "scale[2]"]
