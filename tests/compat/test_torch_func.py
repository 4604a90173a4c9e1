"""The same call as torch.func's and torch.autograd.functional's, and the same result in the same structure."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from functional_cases import SIDE, W1, W2, X, Y, b1, b2, product, same  # noqa: E402
from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from hesskern.compat import autograd_functional, torch_func  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Identity(), nn.Dropout(0.2), nn.Linear(4, 2)).double().eval()


def check(function, *args, argnums=0):
    same(torch_func.hessian(function, argnums)(*args), torch.func.hessian(function, argnums)(*args))


LOSSES = {
    "MSELoss": nn.MSELoss(),
    "sum": nn.MSELoss(reduction="sum"),
    "mse_loss none": lambda a, b: F.mse_loss(a, b, reduction="none").sum(1).mean() / 2,
    "half sum": lambda a, b: 0.5 * ((a - b) ** 2).sum(),
    "swapped": lambda a, b: torch.sum((b - a).pow(2)) / len(b),
    "square": lambda a, b: torch.square(torch.sub(a, b)).mean(dim=0, keepdim=True).sum(),
    "product": lambda a, b: product((a - b).reshape(-1)),
    "norm": lambda a, b: torch.linalg.norm(a - b) ** 2 / 2,
    "old norm": lambda a, b: 3 * torch.norm(b - a, p="fro").square(),
    "vector norm": lambda a, b: torch.linalg.vector_norm(a - b) ** 2,
    "halves": lambda a, b: ((-(a - b) * 0.5).flatten() ** 2).sum() + 1.0,
    "negative targets": lambda a, b: (a + (-b)).square().sum(),
    "python's sum": lambda a, b: sum([(a - b).square().sum()]) * torch.tensor(0.5),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_functional_call_of_a_module(loss):
    params = {name: parameter.detach() for name, parameter in MODEL.named_parameters()}
    check(lambda params: LOSSES[loss](functional_call(MODEL, params, (X,)), Y), params)


FUNCTIONS = {
    "transposed": lambda W1, b1, W2, b2: F.mse_loss((X @ W1.T + b1) @ W2.t() + b2, Y),
    "functional": lambda W1, b1, W2, b2: F.mse_loss(F.linear(F.linear(X, W1, b1), W2, bias=b2), Y, reduction="sum"),
    "addmm": lambda W1, b1, W2, b2: (torch.addmm(b2, torch.mm(X, W1.mT), W2.transpose(0, 1)) - Y).square().sum(),
    "a constant layer": lambda W1, b1, W2, b2: (X @ SIDE @ W2.T + b2 - Y).square().sum(),
    "a layer that stands still": lambda W1, b1, W2, b2: (b1 + X @ SIDE - Y[:, :1].expand(7, 4)).square().sum(),
    "a constant bias": lambda W1, b1, W2, b2: (torch.ones(2).double() + X @ W1.T @ W2.T - Y).square().sum(),
    "more dimensions": lambda W1, b1, W2, b2: F.mse_loss(
        F.linear(F.linear(X.reshape(7, 1, 3), W1, b1), W2), Y.reshape(7, 1, 2)
    ),
    "one output": lambda W1, b1, W2, b2: F.mse_loss((X @ W1.T @ SIDE[:1].T).squeeze(-1), Y[:, 0]),
    "one sample": lambda W1, b1, W2, b2: (F.linear(F.linear(X[0], W1, b1), W2) - Y[0]).square().sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_tensors(name):
    function, inputs = FUNCTIONS[name], (W1, b1, W2, b2)
    same(autograd_functional.hessian(function, inputs), torch.autograd.functional.hessian(function, inputs))
    check(function, *inputs, argnums=(0, 1, 2, 3))


def test_some_of_the_parameters_and_other_structures():
    check(lambda X, W, Y: (X @ W - Y).square().sum(), X, W1.T @ W2.T, Y, argnums=1)  # kept as (in, out)
    check(lambda W2, W1: F.mse_loss(X @ W1.T @ W2.T, Y), W2, W1, argnums=(1, 0))
    function = lambda W2, W1: F.mse_loss(X @ W1.T @ W2.T, Y)  # noqa: E731
    # PyTorch 2.13 itself gives zeros for a negative number.
    same(torch_func.hessian(function, -1)(W2, W1), torch.func.hessian(function, 1)(W2, W1))
    layers = [{"W": W1, "b": b1}, (W2, b2)]
    check(lambda p: F.mse_loss(F.linear(F.linear(X, p[0]["W"], p[0]["b"]), *p[1]), Y), layers)
    some = {"4.weight": MODEL[4].weight.detach(), "1.bias": MODEL[1].bias.detach()}
    check(lambda params: F.mse_loss(functional_call(MODEL, params, (X,)), Y), some)


def test_parameters_cut_out_of_a_vector():
    theta = torch.randn(3 + 12 + 4 + 8 + 2, dtype=torch.float64)

    def sliced(theta):
        return F.mse_loss(F.linear(F.linear(X, theta[3:15].view(4, 3), theta[15:19]), theta[-10:-2].reshape(2, 4)), Y)

    def split(theta):
        _, V1, c1, V2, c2 = theta.split([3, 12, 4, 8, 2])
        return F.mse_loss((X @ V1.view(3, 4) + c1) @ V2.view(2, 4).T + c2, Y)

    def narrowed(theta):
        return (X @ theta.narrow(0, 3, 24)[6:12].reshape(2, 3).T - Y).square().sum()

    for function in (sliced, split, narrowed):
        same(autograd_functional.hessian(function, theta), torch.autograd.functional.hessian(function, theta))
        check(lambda p, function=function: function(p["theta"]), {"theta": theta, "unused": b1})
    check(lambda W: F.mse_loss(X @ W.reshape(3, 4) @ W2.T, Y), W1)
    for overlapping in (
        lambda theta: F.mse_loss(X @ theta[:12].view(4, 3).T @ theta[11:19].view(2, 4).T, Y),
        lambda theta: F.mse_loss(X @ theta[:9].view(3, 3).T @ theta[:6].view(2, 3).T, Y),
    ):
        with pytest.raises(ValueError, match="a stack of independent layers has another Hessian"):
            autograd_functional.hessian(overlapping, theta)
    with pytest.raises(ValueError, match=r"method Tensor.__getitem__"):
        autograd_functional.hessian(lambda theta: F.mse_loss(X @ theta[:12:2].view(2, 3).T, Y), theta)


CALLS = {"count": 0}


def changing(W):
    CALLS["count"] += 1
    return CALLS["count"] * (X @ W.T - Y).square().sum()


W = torch.randn(2, 3, dtype=torch.float64)
REFUSED = {
    "relu": (lambda W: (torch.relu(X @ W.T) - Y).square().sum(), r"first operation .* the function torch.relu;"),
    "method": (lambda W: ((X @ W.T).tanh() - Y).square().sum(), r"does not fit is the method Tensor.tanh;"),
    "attribute": (lambda W: ((X @ W.data.T) - Y).square().sum(), r"does not fit is the attribute Tensor.data;"),
    "loss": (lambda W: F.l1_loss(X @ W.T, Y), r"torch.nn.functional.l1_loss"),
    "huber": (lambda W: F.huber_loss(X @ W.T, Y), r"torch.nn.functional.huber_loss"),
    "decay": (lambda W: F.mse_loss(X @ W.T, Y) + W.square().sum(), r"the method Tensor.square"),
    "slices": (lambda W: (X @ W[:, :].T - Y).square().sum(), r"Tensor.__getitem__"),
    "residual": (lambda W: (X @ W.T + (X @ W.T) - Y).square().sum(), r"residual connection"),
    "hidden scaling": (lambda W: ((2 * (X @ W.T)) @ W2[:, :2].T - Y).square().sum(), r"Tensor.*matmul"),
    "scaling by rows": (lambda W: (X @ W.T * X[:, :1] - Y).square().sum(), r"gives entries different weights"),
    "weights": (lambda W: ((X @ W.T - Y).square() * torch.arange(1.0, 3.0)).sum(), r"gives entries different weights"),
    "by name": (lambda W: torch.sum(input=(X @ W.T - Y) ** 2), r"does not fit is the function torch.sum"),
    "another weight": (lambda W: (X @ (W + torch.tensor(1.0)).T - Y).square().sum(), r"the method Tensor.*add"),
    "twice a bias": (lambda W: torch.add(Y[:2, :1].expand(2, 3), W, alpha=2).sum(), r"the function torch.add;"),
    "a number added": (lambda W: (X @ W.T + 1 - Y).square().sum(), r"neither a bias nor the targets"),
    "NaN": (lambda W: (X @ W.T - Y / 0 * 0).square().sum(), r"Y of data holds NaN or infinite numbers"),
    "columns": (lambda W: (W @ X.T - Y.T).square().sum(), r"Tensor.*matmul: the weight .* is the left factor"),
    "broadcast": (lambda W: (X @ W.T - Y.sum(0)).square().sum(), r"every prediction with every target"),
    "moving targets": (lambda W: F.mse_loss(X @ W.T, X @ W.T), r"the targets depend on the parameters"),
    "a number": (lambda W: F.mse_loss(X @ W.T, Y).item(), r"Tensor.item"),
    "a branch": (lambda W: F.mse_loss(X @ W.T, Y) if W.sum() > 0 else 0.0, r"Tensor.sum"),
    "in place": (lambda W: (X @ W.T).sub_(Y).square().sum(), r"Tensor.sub_"),
    "spectral norm": (lambda W: torch.linalg.norm(X @ W.T - Y, ord=2) ** 2, r"linalg_norm"),
    "rows": (lambda W: F.mse_loss(X @ W.T, Y, reduction="none").mean(1), r"returns a tensor of shape \(7,\) that"),
    "predictions": (lambda W: X @ W.T, r"returns a tensor of shape \(7, 2\)"),
    "nothing": (lambda W: None, r"returns a NoneType"),
    "negative": (lambda W: -F.mse_loss(X @ W.T, Y), r"-0.0714286 times a squared error; expected"),
    "changing": (changing, r"another function at other parameters"),
    "tied": (lambda W: (X @ (W @ torch.eye(3).double()).T - Y).square().sum(), r"Tensor.*matmul"),
    "twice": (lambda W: F.mse_loss(X @ W.T @ W, Y @ W2[:, :3]), r"used twice: a stack of independent layers has"),
    "batches": (lambda W: F.mse_loss(X[:4] @ W.T, Y[:4]) + F.mse_loss(X[4:] @ W.T, Y[4:]), r"applies a second network"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    function, message = REFUSED[case]
    for call in (lambda: torch_func.hessian(function)(W), lambda: autograd_functional.hessian(function, W)):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert str(caught.value).endswith(".")


def test_wrong_arguments_are_refused():
    def function(W):
        return F.mse_loss(X @ W.T, Y)

    with pytest.raises(ValueError, match="create_graph is True; expected False"):
        autograd_functional.hessian(function, W, create_graph=True)
    with pytest.raises(TypeError, match="inputs is a str; expected a tensor, or a tuple of tensors"):
        autograd_functional.hessian(function, "W")
    with pytest.raises(TypeError, match=r"inputs\[0\] is a float; expected a tensor"):
        autograd_functional.hessian(function, (1.0,))
    with pytest.raises(TypeError, match=r"inputs is torch.float16; expected torch.float64"):
        autograd_functional.hessian(lambda W: F.mse_loss(X.half() @ W.T, Y.half()), W.half())
    with pytest.raises(TypeError, match=r"inputs\[1\] is torch.int64; expected torch.float64"):
        autograd_functional.hessian(lambda W, n: function(W), (W, torch.tensor(1)))
    with pytest.raises(ValueError, match="argnums is 1, but func was given 1 arguments"):
        torch_func.hessian(function, 1)(W)
    with pytest.raises(TypeError, match="argnums is 'W'"):
        torch_func.hessian(function, "W")


def test_a_function_that_ignores_its_parameters():
    layer = nn.Linear(3, 2).double()
    functions = {
        "a module of its own": lambda weight: F.mse_loss(layer(X), Y),
        "a constant": lambda weight: torch.ones(()),
        "two": lambda weight, other: F.mse_loss(layer(X), Y),
    }
    for function in functions.values():
        count = function.__code__.co_argcount
        args = tuple(torch.randn(2, 3, dtype=torch.float64) for _ in range(count))
        expected = torch.autograd.functional.hessian(function, args)
        same(autograd_functional.hessian(function, args), expected, 0)
        found = torch_func.hessian(function, tuple(range(count)))(*args)
        same(found, tuple(tuple(row) for row in expected), 0)
        with pytest.raises(ValueError, match=r"strict is True, but func does not depend on inputs.*functional_call"):
            autograd_functional.hessian(function, args, strict=True)
