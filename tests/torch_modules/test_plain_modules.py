"""Which modules and losses are PyTorch's own: everything that changes what they compute is noticed."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

from hesskern.torch_modules import tracing  # noqa: E402
from hesskern.torch_modules.plain_modules import mean_squared_error, plain_modules  # noqa: E402


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Identity(), nn.Linear(4, 2, bias=False)))


def test_plain_modules_give_the_chain_that_tracing_gives(monkeypatch):
    module = net()
    assert plain_modules(module) == ["0.0", "0.1.0", "0.1.1"]
    assert plain_modules(nn.Linear(2, 3)) == ["0"]
    quick = tracing.trace(module)
    monkeypatch.setattr(tracing, "plain_modules", lambda module: None)
    slow = tracing.trace(module)
    assert (
        [p.name for p in quick.parameters] == [p.name for p in slow.parameters] == ["0.weight", "0.bias", "1.1.weight"]
    )
    assert all(one.tensor is other.tensor for one, other in zip(quick.parameters, slow.parameters, strict=True))
    assert (quick.flat, quick.outputs) == (slow.flat, slow.outputs)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2.0 * super().forward(x)


def with_hook(register):
    module = net()
    getattr(module[0], register)(lambda *arguments: None)
    return module


def with_own_forward():
    module = net()
    module[0].forward = lambda x: 2.0 * nn.functional.linear(x, module[0].weight, module[0].bias)
    return module


def with_tied_weights():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    return module


def with_submodule():
    module = net()
    module[0].extra = nn.Linear(1, 1)
    return module


def pruned():
    module = net()
    prune.l1_unstructured(module[0], "weight", 0.5)
    return module


def twice():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, layer)


CHANGED = {
    "subclass": lambda: nn.Sequential(Doubled(3, 4)),
    "forward hook": lambda: with_hook("register_forward_hook"),
    "pre-hook": lambda: with_hook("register_forward_pre_hook"),
    "backward hook": lambda: with_hook("register_full_backward_hook"),
    "own forward": with_own_forward,
    "parametrised": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4))),
    "pruned": pruned,
    "tied": with_tied_weights,
    "twice": twice,
    "submodule": with_submodule,
    "activation": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU()),
    "flatten": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 4)),
    "lazy": lambda: nn.LazyLinear(3),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_is_not_plain(name):
    assert plain_modules(CHANGED[name]()) is None


@contextlib.contextmanager
def global_hook():
    handle = nn.modules.module.register_module_forward_hook(lambda *arguments: None)
    try:
        yield
    finally:
        handle.remove()


class Watching(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [global_hook, Watching, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_modes_that_may_change_every_call(mode):
    assert plain_modules(net()) and mean_squared_error(nn.MSELoss())
    with mode():
        assert plain_modules(net()) is None and mean_squared_error(nn.MSELoss()) is None


def test_functions_of_pytorch_that_were_replaced(monkeypatch):
    monkeypatch.setattr(nn.functional, "mse_loss", nn.functional.l1_loss)
    assert mean_squared_error(nn.MSELoss()) is None and plain_modules(net()) is None


def test_losses():
    assert mean_squared_error(nn.MSELoss()) == "mean" and mean_squared_error(nn.MSELoss(reduction="sum")) == "sum"
    assert mean_squared_error(nn.MSELoss(reduction="none")) is None
    assert mean_squared_error(nn.functional.mse_loss) is None and mean_squared_error(nn.L1Loss()) is None
    hooked = nn.MSELoss()
    hooked.register_forward_hook(lambda *arguments: None)
    assert mean_squared_error(hooked) is None
