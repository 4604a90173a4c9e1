"""PyTorch modules become networks, and networks modules: every way to write a chain of layers, every refusal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import hesskern as hk

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import parametrizations  # noqa: E402
from torch_chains import Wrapped, check  # noqa: E402

import hesskern.torch  # noqa: E402

LinearNetwork = hk.LinearNetwork


class Written(nn.Module):
    """A forward with every operation that chains linear layers; layers registered in another order than applied."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.V = nn.Parameter(torch.randn(3, 4))
        self.shift = nn.Parameter(torch.randn(3))
        self.W = nn.Parameter(torch.randn(4, 5), requires_grad=False)
        self.encoder = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Identity(), nn.Dropout(0.3))
        self.U = nn.Parameter(torch.randn(2, 2))
        self.c = nn.Parameter(torch.randn(2))

    def forward(self, x):
        count = x.size(0)
        x = self.encoder(x.view(count, -1)).view(count, -1)
        x = F.dropout(x @ self.W.T, 0.5, self.training)
        x = torch.matmul(x, self.V.t()) + self.shift
        x = self.head(x.reshape(x.shape[0], -1)).contiguous()
        x = torch.addmm(input=self.c, mat1=x, mat2=self.U.transpose(0, 1))
        return torch.flatten(x, 1)


WRITTEN = ("encoder.0.weight", "W", "V", "shift", "head.weight", "head.bias", "U", "c")


def test_every_operation_of_a_chain():
    module = Written().eval()
    net, again = check(module, torch.randn(7, 2, 3), WRITTEN)
    assert net.widths == (6, 5, 4, 3, 2, 2)
    assert isinstance(again, hesskern.torch.LinearChain)
    assert repr(again).startswith("LinearChain(\n  encoder.0.weight -> W -> V -> head.weight -> U\n")
    # Either loads the state of the other.
    again.load_state_dict(module.state_dict())
    module.load_state_dict(again.state_dict())


def test_modules_of_pytorch():
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 4), nn.Sequential(nn.Identity(), nn.Linear(4, 4, bias=False), nn.Dropout(0)),
        nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    _, again = check(module, torch.randn(5, 3, 2), ["1.weight", "1.bias", "2.1.weight", "4.weight", "4.bias"])
    assert isinstance(again, nn.Sequential)
    assert isinstance(again[1][0], nn.Linear)
    again.load_state_dict(module.state_dict())
    _, alone = check(nn.Linear(3, 2), torch.randn(5, 3), ["weight", "bias"])
    assert isinstance(alone, nn.Linear)


@pytest.mark.parametrize("make", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrised_layers_have_the_weight_in_effect(make):
    check(nn.Sequential(make(nn.Linear(4, 4)), nn.Linear(4, 2)), torch.randn(3, 4), [
        "0.weight", "0.bias", "1.weight", "1.bias",
    ])  # fmt: skip


def test_spectral_norm_in_eval_mode_only():
    module = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 3)))
    with pytest.raises(ValueError, match=r"module '0' \(ParametrizedLinear\): spectral_norm .* call model.eval\(\)"):
        LinearNetwork.from_torch(module)
    check(module.eval(), torch.randn(3, 4), ["0.weight", "0.bias"])


def test_subclasses_and_unused_parameters():
    class Named(nn.Linear):
        pass

    class Rectified(nn.Linear):
        def forward(self, x):
            return torch.relu(super().forward(x))

    module = Wrapped(lambda m, x: m.a(x), a=Named(3, 2), unused=nn.Linear(2, 2))
    check(module, torch.randn(3, 3), ["a.weight", "a.bias"])
    with pytest.raises(ValueError, match=r"does not fit is the function torch.relu in the forward of Rectified"):
        LinearNetwork.from_torch(nn.Sequential(Rectified(3, 2)))


def test_a_network_is_a_copy_of_the_module():
    module = nn.Linear(2, 2)
    net = LinearNetwork.from_torch(module)
    again = net.to_torch()
    with torch.no_grad():
        module.weight += 1
        again.weight += 2
    assert np.abs(net.weights[0] + 1 - module.weight.detach().numpy()).max() < 1e-15


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


linear = nn.Linear


def _forgotten(x):
    x.relu_()
    return x


def _aliased(module, x):
    before = x
    x += module.b
    return before


def _views():
    first, second = linear(3, 3), linear(3, 3)
    second.weight.data = first.weight.data
    return first, second


REFUSED = {
    "activation": (lambda: nn.Sequential(linear(3, 3), nn.ReLU()), r"does not fit is the module '1' \(ReLU\)"),
    "norm": (lambda: nn.Sequential(linear(3, 3), nn.BatchNorm1d(3)), r"does not fit is the module '1' \(BatchNorm1d\)"),
    "conv": (lambda: nn.Sequential(nn.Conv1d(1, 1, 1)), r"does not fit is the module '0' \(Conv1d\)"),
    "function": (lambda: Wrapped(lambda m, x: torch.tanh(m.a(x)), a=linear(3, 3)), r"torch.tanh in the forward of Wra"),
    "functional": (lambda: Wrapped(lambda m, x: F.gelu(m.a(x)), a=linear(3, 3)), r"torch.nn.functional.gelu in the"),
    "method": (lambda: Wrapped(lambda m, x: m.a(x).sigmoid(), a=linear(3, 3)), r"the method Tensor.sigmoid in"),
    "attribute": (lambda: Wrapped(lambda m, x: m.a(x).real, a=linear(3, 3)), r"the attribute Tensor.real"),
    "scaling": (lambda: Wrapped(lambda m, x: 2 * m.a(x), a=linear(3, 3)), r"does not fit is the function operator.mul"),
    "residual": (
        lambda: Wrapped(lambda m, x: x + m.a(x), a=linear(3, 3)),
        r"operator.add .* \(a residual connection\)",
    ),
    "in place": (
        lambda: Wrapped(lambda m, x: _forgotten(m.a(x)), a=linear(3, 3)),
        r"does not fit is the method Tensor.relu_",
    ),
    "aliased": (
        lambda: Wrapped(lambda m, x: _aliased(m, m.a(x)), a=linear(3, 3, bias=False), b=nn.Parameter(torch.ones(3))),
        r"something else than the chain of linear layers that torch.fx traces",
    ),
    "offset": (lambda: Wrapped(lambda m, x: m.a(x) + 1, a=linear(3, 3)), r"it adds a tensor that is not a bias"),
    "early bias": (
        lambda: Wrapped(lambda m, x: m.a(x + m.b), a=linear(3, 3), b=nn.Parameter(torch.ones(3))),
        r"adds the parameter 'b' to the data, before the first layer",
    ),
    "second bias": (
        lambda: Wrapped(lambda m, x: m.a(x) + m.b, a=linear(3, 3), b=nn.Parameter(torch.ones(3))),
        r"adds the parameter 'b' after a layer that has the bias 'a.bias'",
    ),
    "wide bias": (
        lambda: Wrapped(lambda m, x: m.a(x) + m.b, a=linear(3, 3, bias=False), b=nn.Parameter(torch.ones(1))),
        r"'b' has shape \(1,\); expected \(3,\) for the bias of the layer of 'a.weight'",
    ),
    "untransposed": (lambda: Wrapped(lambda m, x: x @ m.W, W=nn.Parameter(torch.eye(3))), r"expected x @ W.T"),
    "no matrix": (
        lambda: Wrapped(lambda m, x: x @ m.W, W=nn.Parameter(torch.ones(3))),
        r"shape \(3,\); expected a",
    ),
    "widths": (
        lambda: nn.Sequential(linear(3, 4), linear(5, 2)),
        r"'1' \(Linear\): the weight '1.weight' takes 5 inputs, but the layer before it has 4 outputs",
    ),
    "buffer": (
        lambda: Wrapped(lambda m, x: F.linear(x, m.W), W=nn.Buffer(torch.eye(3))),
        r"the tensor 'W': it is a buffer or a constant; expected parameters of the model",
    ),
    "twice": (
        lambda: Wrapped(lambda m, x: m.a(m.a(x)), a=linear(3, 3)),
        r"'a.weight' is used twice: a stack of independent layers has another Hessian",
    ),
    "tied": (lambda: Wrapped(lambda m, x: F.linear(m.a(x), m.a.weight), a=linear(3, 3)), r"'a.weight' is used twice"),
    "views": (lambda: nn.Sequential(*_views()), r"'0.weight' and '1.weight' are the same tensor \(tied weights\)"),
    "dropout": (lambda: nn.Sequential(linear(3, 3), nn.Dropout()), r"'1' \(Dropout\): .* call model.eval\(\)"),
    "F.dropout": (lambda: Wrapped(lambda m, x: F.dropout(m.a(x)), a=linear(3, 3)), r"functional.dropout .*model.eval"),
    "flatten": (lambda: nn.Sequential(nn.Flatten(0), linear(3, 3)), r"'0' \(Flatten\): expected start_dim=1"),
    "view": (lambda: Wrapped(lambda m, x: m.a(x).view(-1, 1), a=linear(3, 3)), r"Tensor.view .*: it splits rows"),
    "other view": (lambda: Wrapped(lambda m, x: m.a(x).view(3), a=linear(3, 3)), r"Tensor.view .* expected rows"),
    "no layer": (nn.Identity, r"module applies no linear layer"),
    "two outputs": (lambda: Wrapped(lambda m, x: (m.a(x), x), a=linear(3, 3)), r"returns a tuple"),
    "two inputs": (lambda: nn.Bilinear(3, 3, 3), r"'' \(Bilinear\)"),
    "branch": (Branches, r"cannot be traced \(TraceError: symbolically traced variables .* control flow"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), r"call the model once"),
    "half": (lambda: linear(3, 3).half(), r"weight is torch.float16; expected torch.float64 .* call model.double\(\)"),
    "bfloat16": (lambda: linear(3, 3).bfloat16(), r"weight is torch.bfloat16"),
    "complex": (lambda: linear(3, 3, dtype=torch.complex128), r"weight is torch.complex128"),
    "mixed": (lambda: nn.Sequential(linear(3, 3), linear(3, 3).float()), r"1.weight is torch.float32 on cpu, but 0.w"),
    "meta": (
        lambda: nn.Sequential(linear(3, 3), linear(3, 3)).to("meta"),
        r"0.weight is on meta; expected cpu or",
    ),
    "script": (lambda: torch.jit.trace(linear(3, 3), torch.ones(1, 3)), r"ScriptModule"),
    "compiled": (lambda: torch.compile(linear(3, 3)), r"pass module._orig_mod"),
    "no module": (lambda: torch.eye(3), r"module is a Tensor; expected a torch.nn.Module"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_refused(case):
    make, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        LinearNetwork.from_torch(make())
    assert str(caught.value).endswith(".")


def test_data_parallel_is_the_module_in_it():
    torch.manual_seed(0)
    model = nn.Sequential(linear(4, 3), linear(3, 2))
    data = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    wrapped = nn.DataParallel(model)
    found = hesskern.torch.hessian(wrapped, nn.MSELoss(), data, form="dict")
    expected = hesskern.torch.hessian(model, nn.MSELoss(), data, form="dict")
    assert list(found) == [name for name, _ in wrapped.named_parameters()]
    for row, column in itertools.product(expected, expected):
        assert torch.equal(found[f"module.{row}"][f"module.{column}"], expected[row][column])
    wrapped.register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.raises(ValueError, match=r"operator\.mul in the forward of DataParallel"):
        hesskern.torch.hessian(wrapped, nn.MSELoss(), data)
