"""Losses are recognised by calling them: every multiple of the squared error, and nothing else."""

from __future__ import annotations

import functools
import math

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

import hesskern.torch  # noqa: E402
from hesskern.compat.curvlinops import HessianLinearOperator  # noqa: E402
from hesskern.compat.hessian_eigenthings import (  # noqa: E402
    HessianOperator,
    compute_hessian_eigenthings,
    supervised_loss,
)
from hesskern.compat.pyhessian import hessian as pyhessian  # noqa: E402
from hesskern.torch.losses import comparison, recognised  # noqa: E402

CPU = torch.device("cpu")


def half_sum(predictions, targets):
    return 0.5 * torch.sum((predictions - targets) ** 2)


SQUARED = {
    "MSELoss": (nn.MSELoss(), lambda n, o: 2 / (n * o)),
    "MSELoss mean": (nn.MSELoss(reduction="mean"), lambda n, o: 2 / (n * o)),
    "MSELoss sum": (nn.MSELoss(reduction="sum"), lambda n, o: 2.0),
    "mse_loss": (F.mse_loss, lambda n, o: 2 / (n * o)),
    "partial": (functools.partial(F.mse_loss, reduction="sum"), lambda n, o: 2.0),
    "half sum": (half_sum, lambda n, o: 1.0),
    "swapped": (lambda a, b: half_sum(b, a), lambda n, o: 1.0),
    "norm": (lambda a, b: torch.norm(a - b, p="fro") ** 2 / 2, lambda n, o: 1.0),
    "rows": (lambda a, b: (a - b).square().sum(dim=1).mean(), lambda n, o: 2 / n),
    "outputs": (lambda a, b: (a - b).square().mean(dim=1).sum(), lambda n, o: 2 / o),
    "length": (lambda a, b: half_sum(a, b) / len(a), lambda n, o: 1 / n),
    "any number": (lambda a, b: 0.3 * F.mse_loss(a, b, reduction="sum"), lambda n, o: 0.6),
    "single precision": (lambda a, b: half_sum(a.float(), b.float()), lambda n, o: 1.0),
    "inner product": (lambda a, b: torch.trace((a - b) @ (a - b).T), lambda n, o: 2.0),
}


@pytest.mark.parametrize("name", SQUARED)
@pytest.mark.parametrize("outputs", [1, 3])
def test_squared_losses(name, outputs):
    loss_fn, scale = SQUARED[name]
    found = recognised(loss_fn, [outputs], CPU)
    for samples in (1, 7, 1000):
        assert math.isclose(found.of(samples), scale(samples, outputs), rel_tol=1e-15)


NOT_SQUARED = {
    "absolute": nn.L1Loss(),
    "Huber": nn.HuberLoss(reduction="sum"),
    "Huber that turns late": nn.HuberLoss(delta=1e4),
    "smooth L1": nn.SmoothL1Loss(),
    "smooth L1 that turns early": nn.SmoothL1Loss(beta=1e-2),
    "weighted outputs": lambda a, b: ((a - b).square() * torch.arange(1.0, 4.0)).sum(),
    "weighted samples": lambda a, b: ((a - b).square().sum(1) * torch.arange(1.0, 1 + len(a))).sum(),
    "one side": lambda a, b: (a - b).relu().square().sum(),
    "asymmetric": lambda a, b: torch.where(a > b, 2.0, 1.0).mul((a - b).square()).sum(),
    "relative": lambda a, b: ((a - b) / (1 + b.abs())).square().sum(),
    "clipped": lambda a, b: (a - b).clamp(-10, 10).square().sum(),
    "quartic": lambda a, b: (a - b).pow(4).sum(),
    "root": lambda a, b: (a - b).square().sum().sqrt(),
    "logarithm": lambda a, b: (a - b).square().sum().log1p(),
    "cosine": lambda a, b: 1 - F.cosine_similarity(a + 1e-9, b + 1e-9).mean(),
    "regularised": lambda a, b: half_sum(a, b) + 1e-6 * a.square().sum(),
    "sum of all errors": lambda a, b: (a - b).sum().square(),
}


@pytest.mark.parametrize("name", NOT_SQUARED)
def test_other_losses_are_refused(name):
    with pytest.raises(ValueError, match=r"loss_fn \(.*(is not a squared loss|as for a squared loss|equal to the)"):
        recognised(NOT_SQUARED[name], [3], CPU)


REFUSED = {
    "decay in a closure": (
        lambda a, b: half_sum(a, b) + 0.1, ValueError, r"is 0.1 where .* are equal to the targets; expected 0",
    ),
    "negative": (lambda a, b: -half_sum(a, b), ValueError, r"is -0.5 for an error of 1"),
    "unbiased": (lambda a, b: half_sum(a, b) / (len(a) + 1), ValueError, r"1, 2 and 4 samples by 0.25, 0.166667, 0.1;"),
    "not reduced": (nn.MSELoss(reduction="none"), TypeError, r"MSELoss\) returns a tensor of shape \(1, 3\); .*red"),
    "a float": (lambda a, b: float(half_sum(a, b)), TypeError, r"returns a float; expected a 0-dimensional tensor"),
    "classes": (nn.NLLLoss(), ValueError, r"NLLLoss\) raises RuntimeError for \(1, 3\) predictions and targets"),
    "a word": ("mse", TypeError, r"loss_fn is a str; expected nn.MSELoss\(\) or a function"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_loss_is_refused(name):
    loss_fn, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        recognised(loss_fn, [3], CPU)
    assert str(caught.value).endswith(".")


def test_the_random_numbers_of_the_caller_stay():
    state = torch.get_rng_state()
    recognised(nn.MSELoss(), [2], CPU)
    assert torch.equal(torch.get_rng_state(), state)


OTHER_ON_MANY_SAMPLES = {
    "another factor": lambda a, b: half_sum(a, b) * (1 if len(a) < 5 else 2),
    "another power": lambda a, b: half_sum(a, b) if len(a) < 5 else (a - b).pow(4).sum(),
    "some samples": lambda a, b: half_sum(a[:4], b[:4]),
    "clipped divisor": lambda a, b: half_sum(a, b) / min(len(a), 4),
    "other entries": lambda a, b: half_sum(a[:6], b[:6]) if len(a) > 6 else half_sum(a, b),
    "detached": lambda a, b: half_sum(a.detach() if len(a) > 4 else a, b),
}


@pytest.mark.parametrize("name", OTHER_ON_MANY_SAMPLES)
def test_losses_are_compared_with_themselves_on_real_batches(name):
    torch.manual_seed(0)
    loss, model = OTHER_ON_MANY_SAMPLES[name], nn.Linear(4, 3).double()
    data = [(torch.randn(n, 4).double(), torch.randn(n, 3).double()) for n in (3, 9)]
    doors = {
        "hessian": lambda: hesskern.torch.hessian(model, loss, data),
        "hvp": lambda: hesskern.torch.hvp(model, loss, data[1], torch.zeros(15).double()),
        "curvlinops": lambda: HessianLinearOperator(model, loss, list(model.parameters()), data),
        "pyhessian": lambda: pyhessian(model, loss, dataloader=data, cuda=False),
        "old eigenthings": lambda: compute_hessian_eigenthings(model, data, loss, 1, use_gpu=False),
        "eigenthings": lambda: HessianOperator(model, data, supervised_loss(loss)),
    }
    for door, call in doors.items():
        with pytest.raises(ValueError, match=r"is another loss for |by the model's predictions alone"):
            call()
            pytest.fail(door)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("outputs", [[3], [2, 5], []])
def test_pytorchs_own_loss_is_known_without_a_call(monkeypatch, reduction, outputs):
    known = recognised(nn.MSELoss(reduction=reduction), outputs, torch.device("cpu"))
    monkeypatch.setattr("hesskern.torch.losses.mean_squared_error", lambda loss_fn: None)
    measured = recognised(nn.MSELoss(reduction=reduction), outputs, torch.device("cpu"))
    assert known.per_sample == measured.per_sample
    assert known.factor == pytest.approx(measured.factor, rel=1e-12)


def test_only_other_losses_are_compared_on_batches():
    scale = recognised(nn.MSELoss(), [2], torch.device("cpu"))
    assert comparison(nn.MSELoss(), scale) is None
    other = comparison(F.l1_loss, scale)
    with pytest.raises(ValueError, match="another loss for a batch"):
        other(torch.ones(3, 2), torch.zeros(3, 2), "a batch")
