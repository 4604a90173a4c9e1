"""What has the values of a squared loss of a linear network, but not its derivatives, is refused."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import hesskern as hk
import hesskern.torch
from hesskern.compat import autograd_functional
from hesskern.torch import last_layer_hessian


class Cut(nn.Module):
    """A layer whose parameters get no gradient."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        with torch.no_grad():
            hidden = self.a(x)
        return self.b(hidden)


class Reversed(torch.autograd.Function):
    """The identity with another backward."""

    @staticmethod
    def forward(ctx, x):
        return x.contiguous()

    @staticmethod
    def backward(ctx, gradient):
        return -0.5 * gradient


class Backwards(Cut):
    """A gradient that is turned around."""

    def forward(self, x):
        return self.b(Reversed.apply(self.a(x)))


class Transposed(nn.Module):
    """A weight to which another layer's is added."""

    def __init__(self, other):
        super().__init__()
        self.other = [other]

    def forward(self, weight):
        return weight + self.other[0].weight.T


class Used(nn.Module):
    """A last layer whose weight, or bias, the features are made with."""

    def __init__(self, how):
        super().__init__()
        self.how, self.head = how, nn.Linear(3, 4)

    def forward(self, x):
        if self.how == "weight":
            return self.head(torch.tanh(nn.functional.linear(x, self.head.weight.t())))
        return self.head(torch.tanh(x[:, :3] + self.head.bias[:3]))


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def data():
    return torch.randn(9, 4), torch.randn(9, 3)


@pytest.mark.parametrize("module", [Cut, Backwards])
def test_of_a_module(module, data):
    with pytest.raises(ValueError, match=r"but another derivative with respect to 'a\.weight'|chain of linear layers"):
        hesskern.torch.hessian(module(), nn.MSELoss(), data)


def test_of_a_weight_that_is_part_of_another(data):
    """It is followed to the parameters that it is computed from."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 4, bias=False))
    parametrize.register_parametrization(model[1], "weight", Transposed(model[0]))
    X = data[0]
    found = hesskern.torch.hessian(model, nn.MSELoss(), (X, X), params=["0.weight"])

    def loss(weight):
        second = model[1].parametrizations.weight.original.detach() + weight.T
        return nn.functional.mse_loss(X @ weight.T @ second.T, X)

    expected = torch.autograd.functional.hessian(loss, model[0].weight.detach()).reshape(12, 12)
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_of_a_function(data):
    X, Y = data
    module = Cut()

    def function(a, b):
        with torch.no_grad():
            hidden = nn.functional.linear(X, a)
        return nn.functional.mse_loss(nn.functional.linear(hidden, b), Y)

    with pytest.raises(ValueError, match="another derivative with respect to"):
        autograd_functional.hessian(function, (module.a.weight.detach(), module.b.weight.detach()))


@pytest.mark.parametrize(
    "loss", [lambda p, t: ((p.detach() - t) ** 2).mean(), lambda p, t: ((p - t) * (p.detach() - t)).mean()]
)
def test_of_a_loss(loss, data):
    with pytest.raises(ValueError, match="has the values of a squared loss, but not its derivative"):
        hesskern.torch.hessian(nn.Linear(4, 3), loss, data)


@pytest.mark.parametrize("how", ["weight", "bias"])
def test_of_a_last_layer_that_is_used_elsewhere(how):
    X = torch.randn(9, 4)
    with pytest.raises(ValueError, match="the features of the layer 'head' depend on its own weight or bias"):
        last_layer_hessian(Used(how).eval(), (X, X))


def test_of_a_pruned_last_layer(data):
    model = nn.Sequential(nn.Linear(4, 3))
    prune.l1_unstructured(model[0], "weight", 0.3)
    with pytest.raises(ValueError, match="the weight of the layer '0' is computed from other parameters"):
        last_layer_hessian(model, data)


def test_of_a_cross_entropy_of_its_own(data):
    class Cooler(nn.CrossEntropyLoss):
        def forward(self, given, target):
            return super().forward(given / 2, target)

    with pytest.raises(
        ValueError, match=r"loss is a Cooler with its own forward or with hooks; expected a plain nn\.Cross"
    ):
        last_layer_hessian(nn.Linear(4, 3), (data[0], data[1].argmax(1)), Cooler())


def test_in_inference_mode(data):
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    wanted = hesskern.torch.hessian(model, nn.MSELoss(), data)
    with torch.inference_mode():
        assert torch.equal(hesskern.torch.hessian(model, nn.MSELoss(), data), wanted)
        assert last_layer_hessian(model, data).shape == (21, 21)


def test_largest_eigenvalues_of_what_is_too_large_for_all():
    """More than 2000 parameters after all reductions: Lanczos, against the exact spectrum."""
    widths = [30, 40, 30]
    net = hk.LinearNetwork.random(widths, seed=0)
    model = net.to_torch()
    data = torch.randn(80, 30), torch.randn(80, 30)
    found = hesskern.torch.sharpness(model, nn.MSELoss(), data)
    loss = hk.SquaredLoss(data[0].numpy(), data[1].numpy(), kind="mean")
    assert float(found) == pytest.approx(loss.hessian(net).eigvalsh()[-1], rel=1e-12)
