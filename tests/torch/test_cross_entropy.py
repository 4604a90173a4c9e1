"""Softmax cross-entropy as PyTorch has it: weights, ignored samples, smoothing."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from last_layer_models import CLASS_WEIGHTS, C, Reshaped, agree, autograd, head_only, targets  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import hesskern as hk  # noqa: E402
import hesskern.torch  # noqa: E402
from hesskern.torch import last_layer_hessian  # noqa: E402


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, CLASS_WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("kind", ["labels", "ignored", "soft"])
def test_cross_entropy(model, X, kind, weight, smoothing, reduction):
    loss, Y = nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing), targets(kind)
    expected = head_only(model, X, lambda out: loss(out, Y))
    H = last_layer_hessian(model, DataLoader(TensorDataset(X, Y), batch_size=5), loss)
    assert isinstance(H, hk.SoftmaxHessian)
    agree(H.toarray(), expected)
    agree(H @ np.eye(len(expected)), expected)
    assert H.rank() == (C - 1) * 9


def test_targets_in_another_shape_than_the_predictions():
    torch.manual_seed(0)
    model, X, Y = (
        nn.Sequential(nn.Tanh(), nn.Linear(6, 1)).double(),
        torch.randn(9, 6).double(),
        torch.randn(9).double(),
    )
    for loss in (lambda a, b: (a.view(-1) - b).square().mean(), lambda a, b: nn.functional.mse_loss(a[:, 0], b)):
        expected = autograd(model[1], X.tanh(), lambda out, loss=loss: loss(out, Y))
        agree(last_layer_hessian(model, (X, Y), loss).toarray(), expected)
    with pytest.warns(UserWarning, match="target size"), pytest.raises(ValueError, match="loss_fn"):
        last_layer_hessian(model, (X, Y), nn.functional.mse_loss)  # broadcasts


CROSS_ENTROPY_REFUSED = {
    "labels of rows of the layer": (lambda out: out.flatten(1), torch.zeros(40, dtype=torch.int64)),
    "labels of samples": (lambda out: out.flatten(1), torch.zeros(10, dtype=torch.int64)),
    "tokens": (lambda out: out, torch.zeros(10, 4, dtype=torch.int64)),
    "one row": (lambda out: out.reshape(1, -1), torch.zeros(40, dtype=torch.int64)),
    "other rows": (lambda out: out.reshape(-1, 2), torch.zeros(60, dtype=torch.int64)),
    "probabilities of another shape": (lambda out: out.flatten(0, 1), torch.full((10, 4, 3), 1 / 3).double()),
    "labels as a column": (lambda out: out.flatten(0, 1), torch.zeros(40, 1, dtype=torch.int64)),
    "negative labels": (lambda out: out.flatten(0, 1), torch.full((40,), -1)),
    "32-bit labels": (lambda out: out.flatten(0, 1), torch.zeros(40, dtype=torch.int32)),
    "truth values": (lambda out: out.flatten(0, 1), torch.zeros(40, dtype=torch.bool)),
}


@pytest.mark.parametrize("case", CROSS_ENTROPY_REFUSED)
def test_cross_entropy_takes_what_pytorch_takes(case):
    torch.manual_seed(0)
    reshape, labels = CROSS_ENTROPY_REFUSED[case]
    model, X = Reshaped(3, reshape).double(), torch.randn(10, 4, 6, dtype=torch.float64)
    with pytest.raises((TypeError, ValueError)):
        last_layer_hessian(model, (X, labels), nn.CrossEntropyLoss())
    model.reshape, labels = lambda out: out.flatten(0, 1), torch.randint(3, (40,))
    expected = autograd(model.head, X, lambda out: nn.functional.cross_entropy(out.flatten(0, 1), labels))
    agree(last_layer_hessian(model, (X, labels), nn.CrossEntropyLoss()).toarray(), expected)
