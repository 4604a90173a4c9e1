"""curvlinops' operators: the same calls, and the same numbers as the real library where it is installed."""

from __future__ import annotations

import importlib
import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import hesskern.torch  # noqa: E402
from hesskern.compat.curvlinops import GGNLinearOperator, HessianLinearOperator  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

torch.manual_seed(0)
X, Y = torch.rand(11, 4, dtype=torch.float64), torch.rand(11, 2, dtype=torch.float64)
UNEVEN = [(X[:4], Y[:4]), (X[4:8], Y[4:8]), (X[8:], Y[8:])]


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5, bias=False), nn.Linear(5, 2)).double()


def close(found, expected, tolerance=1e-10):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture(scope="module")
def theirs():
    """The real library, and how it takes parameters: a list until 3.0, a dict later."""
    library = pytest.importorskip("curvlinops")
    as_list = "block_sizes" in inspect.signature(library.HessianLinearOperator).parameters
    return library, (lambda named: list(named.values())) if as_list else dict, as_list


@pytest.mark.parametrize("name", ["HessianLinearOperator", "GGNLinearOperator"])
@pytest.mark.parametrize("form", [dict, lambda named: list(named.values())], ids=["dict", "list"])
def test_side_by_side_with_the_library(theirs, name, form):
    library, native, as_list = theirs
    model = net()
    # Another order than the model's, and not all.
    named = dict(reversed([each for each in model.named_parameters() if each[0] != "1.weight"]))
    ours = {"HessianLinearOperator": HessianLinearOperator, "GGNLinearOperator": GGNLinearOperator}[name]
    for reduction, options in (("mean", {}), ("sum", {}), ("mean", {"num_data": 22})):
        arguments = nn.MSELoss(reduction=reduction), UNEVEN
        real = getattr(library, name)(model, arguments[0], native(named), arguments[1], **options)
        mine = ours(model, arguments[0], form(named), arguments[1], **options)
        assert (mine.shape, mine.dtype, mine.device) == (real.shape, real.dtype, real.device)
        V = torch.randn(mine.shape[0], 3, dtype=torch.float64)
        close(mine @ V, real @ V)
        close(mine @ V[:, 0], real @ V[:, 0])
        pieces = [torch.randn(*p.shape, 2, dtype=torch.float64) for p in named.values()]
        for left, right in zip(mine @ pieces, real @ pieces, strict=True):
            close(left, right)
        for left, right in zip(mine @ [p[..., 0] for p in pieces], real @ [p[..., 0] for p in pieces], strict=True):
            close(left, right)
        scipy_mine, scipy_real = mine.to_scipy(), real.to_scipy()
        assert (scipy_mine.shape, scipy_mine.dtype) == (scipy_real.shape, scipy_real.dtype)
        np.testing.assert_allclose(scipy_mine @ V.numpy(), scipy_real @ V.numpy(), rtol=1e-9, atol=1e-12)
    if as_list and name == "HessianLinearOperator":
        blocks = {"block_sizes": [1, len(named) - 1]}
        real = library.HessianLinearOperator(model, nn.MSELoss(), native(named), UNEVEN, **blocks)
        close(HessianLinearOperator(model, nn.MSELoss(), form(named), UNEVEN, **blocks) @ V, real @ V)


def test_the_librarys_own_estimators_take_ours(theirs):
    library, native, _ = theirs
    model = net()
    arguments = model, nn.MSELoss(), native(dict(model.named_parameters())), UNEVEN
    ours, real = GGNLinearOperator(*arguments), library.GGNLinearOperator(*arguments)
    estimates = []
    for operator in (ours, real):
        torch.manual_seed(2)
        estimates.append(library.hutchinson_trace(operator, num_matvecs=5))
    close(*estimates)
    make = importlib.import_module("curvlinops.examples").IdentityLinearOperator
    identity = make([p.shape for p in model.parameters()], ours.device, ours.dtype)
    v = torch.randn(ours.shape[0], dtype=torch.float64)
    close((ours + 0.5 * identity) @ v, real @ v + 0.5 * v)
    inverse = library.CGInverseLinearOperator(ours + 0.5 * identity, eps=0, tolerance=1e-9)
    close((ours @ (inverse @ v)) + 0.5 * (inverse @ v), v, 1e-6)


# The library's examples of eigenvalues and of products, without their activation functions and in few lines. Only the
# first line is another.
SCRIPT = """
import torch, scipy
from torch import nn
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
N, D_in, D_hidden, D_out = 20, 7, 5, 3
X1, y1, X2, y2 = torch.rand(N, D_in), torch.rand(N, D_out), torch.rand(N, D_in), torch.rand(N, D_out)
model = nn.Sequential(nn.Linear(D_in, D_hidden), nn.Linear(D_hidden, D_hidden), nn.Linear(D_hidden, D_out))
params = {PARAMS}
loss_function = nn.MSELoss(reduction="mean")
data = [(X1, y1), (X2, y2)]
H = HessianLinearOperator(model, loss_function, params, data)
GGN = GGNLinearOperator(model, loss_function, params, data)
D = H.shape[0]
results = [H @ torch.eye(D), GGN @ torch.eye(D)]
torch.manual_seed(1)  # the operators may have drawn numbers
M_list = [torch.rand(*p.shape, 3) for p in model.parameters()]
results += H @ M_list
top = scipy.sparse.linalg.eigsh(H.to_scipy(), k=3, which="LM", v0=[1.0] * D)[0]
results.append(torch.as_tensor(top))
torch.set_default_dtype(torch.float32)
"""


def test_the_librarys_examples_with_another_import(theirs):
    as_list = theirs[2]
    params = "list(model.parameters())" if as_list else "dict(model.named_parameters())"
    found = []
    for module in ("curvlinops", "hesskern.compat.curvlinops"):
        names = {}
        line = f"from {module} import HessianLinearOperator, GGNLinearOperator"
        exec(line + SCRIPT.replace("{PARAMS}", params), names)
        found.append(names["results"])
    for real, ours in zip(*found, strict=True):
        close(ours, real)


# Without the library ------------------------------------------------------------------------------------------------


def test_products_are_those_of_the_matrix():
    model = net()
    H = HessianLinearOperator(model, nn.MSELoss(), list(model.parameters()), UNEVEN)
    matrix = hesskern.torch.hessian(model, nn.MSELoss(), (X, Y))
    V = torch.randn(H.shape[0], 2, dtype=torch.float64)
    close(H @ V, matrix @ V)
    close(V.T @ H, V.T @ matrix)
    close(V[:, 0] @ H, V[:, 0] @ matrix)
    rows = [part.movedim(-1, 0) for part in H @ [torch.ones(*p.shape, 2).double() for p in model.parameters()]]
    for left, right in zip([torch.ones(2, *p.shape).double() for p in model.parameters()] @ H, rows, strict=True):
        close(left, right)
    close((H - 2 * H) @ V, -matrix @ V)
    close((H @ (H / 2)) @ V, matrix @ matrix @ V / 2)
    close((H @ H).adjoint() @ V, matrix @ matrix @ V)
    assert H.adjoint() is H
    np.testing.assert_allclose(H.to_scipy(np.float32) @ V.float().numpy(), (matrix @ V).numpy(), rtol=1e-4, atol=1e-6)


def test_parameters_that_are_changed_are_followed():
    model = net()
    H = HessianLinearOperator(model, nn.MSELoss(), list(model.parameters()), UNEVEN)
    v = torch.randn(H.shape[0], dtype=torch.float64)
    before = H @ v
    with torch.no_grad():
        model[0].weight.mul_(2.0)
    assert not torch.allclose(H @ v, before)
    close(H @ v, hesskern.torch.hvp(model, nn.MSELoss(), (X, Y), v))
    last = HessianLinearOperator(model, nn.MSELoss(), [model[2].weight], UNEVEN)
    with torch.no_grad():
        model[0].weight.mul_(2.0)  # not among its parameters
    close(last @ v[:10], hesskern.torch.hvp(model, nn.MSELoss(), (X, Y), v[:10], ["2.weight"]))


def test_gradient_and_loss():
    model = net()
    params = list(model.parameters())[::-1]
    for data in (UNEVEN, [(X[:2], Y[:2])]):  # reduced, and fewer samples than inputs
        loss = nn.MSELoss()(model(torch.cat([x for x, _ in data])), torch.cat([y for _, y in data]))
        found, value = GGNLinearOperator(model, nn.MSELoss(), params, data).gradient_and_loss()
        close(value, loss.detach())
        for left, right in zip(found, torch.autograd.grad(loss, params), strict=True):
            close(left, right)


def test_a_dict_holds_other_values_than_the_module():
    model, other = net(), net()
    with torch.no_grad():
        other[2].weight.add_(1.0)
    moved = {name: parameter.detach().clone() for name, parameter in other.named_parameters()}
    v = torch.randn(sum(map(torch.numel, moved.values())), dtype=torch.float64)
    close(
        HessianLinearOperator(model, nn.MSELoss(), moved, UNEVEN) @ v,
        hesskern.torch.hvp(other, nn.MSELoss(), (X, Y), v),
    )


@pytest.mark.parametrize("operator", [HessianLinearOperator, GGNLinearOperator])
def test_a_function_of_parameters_and_samples(operator):
    model = net()
    params = {"a": model[0].weight, "c": model[2].weight, "b": model[0].bias}

    def function(params, X):
        return nn.functional.linear(X, params["a"], params["b"]) @ model[1].weight.T @ params["c"].T + model[2].bias

    expected = operator(model, nn.MSELoss(), list(params.values()), UNEVEN, num_data=5)
    found = operator(function, nn.MSELoss(), params, UNEVEN, num_data=5)
    v = torch.randn(found.shape[0], dtype=torch.float64)
    close(found @ v, expected @ v)


def test_progress_and_data_that_are_read_again(capsys):
    pytest.importorskip("tqdm")
    model = net()
    data = TensorDataset(X, Y)
    steady = DataLoader(data, batch_size=4, shuffle=True)
    H = HessianLinearOperator(model, nn.MSELoss(), list(model.parameters()), steady, progressbar=True)
    assert (H @ torch.ones(H.shape[0]).double()).isfinite().all()
    assert "HessianLinearOperator._matmat" in capsys.readouterr().err
    dropped = DataLoader(data, batch_size=4, shuffle=True, drop_last=True)
    arguments = model, nn.MSELoss(), list(model.parameters()), dropped
    with pytest.raises(RuntimeError, match="other samples when it is read again"):
        HessianLinearOperator(*arguments)
    HessianLinearOperator(*arguments, check_deterministic=False)


class Mean(nn.Module):
    reduction = "sum"

    def forward(self, prediction, target):
        return nn.functional.mse_loss(prediction, target)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model_func": nn.Sequential(nn.Linear(4, 2), nn.ReLU()).double()}, ValueError, "keep curvlinops.Hessian"),
        ({"loss_func": nn.HuberLoss()}, ValueError, "not a squared loss.*keep curvlinops.HessianLinearOperator"),
        ({"loss_func": Mean()}, ValueError, "reduction is 'sum', but it divides"),
        ({"params": [torch.ones(2)]}, ValueError, "not a parameter of the model"),
        ({"params": {"x": torch.ones(2)}}, ValueError, "params holds 'x'"),
        ({"params": {"0.bias": torch.ones(2)}}, ValueError, r"params\['0.bias'\] has shape \(2,\); expected \(3,\)"),
        ({"params": {"0.bias": torch.ones(3)}}, TypeError, "0.bias is torch.float32"),
        ({"params": "0.weight"}, TypeError, "expected a list of parameters"),
        ({"block_sizes": [2]}, ValueError, "numbers that sum to 5"),
        ({"block_sizes": len}, TypeError, "pass batch_size_fn by its name"),
        ({"model_func": len}, TypeError, "expected a torch.nn.Module, or a function"),
    ],
    ids=lambda each: None,
)
def test_refused(change, error, message):
    model = net()
    arguments = {"model_func": model, "loss_func": nn.MSELoss(), "params": list(model.parameters()), "data": UNEVEN}
    with pytest.raises(error, match=message):
        HessianLinearOperator(**(arguments | change))


def test_refused_products_and_samples():
    model = net()
    H = HessianLinearOperator(model, nn.MSELoss(), list(model.parameters()), UNEVEN)
    with pytest.raises(ValueError, match=r"X has shape \(3,\)"):
        H @ torch.ones(3).double()
    with pytest.raises(TypeError, match=r"torch.float32 .*pass X.to"):
        H @ torch.ones(H.shape[0])
    with pytest.raises(ValueError, match="X has the shapes"):
        H @ [torch.ones(3).double()]
    with pytest.raises(TypeError, match="expected a tensor or a list"):
        H @ np.ones(H.shape[0])
    with pytest.raises(ValueError, match="mc_samples is 1"):
        GGNLinearOperator(model, nn.MSELoss(), list(model.parameters()), UNEVEN, mc_samples=1)
    for wrong in (lambda: H + 1, lambda: H * "2", lambda: "2" @ H):
        with pytest.raises(TypeError, match=r"unsupported operand|can't multiply"):
            wrong()
    with pytest.raises(ValueError, match="data holds no samples"):
        HessianLinearOperator(lambda params, X: X @ params["a"], nn.MSELoss(), {"a": model[0].weight.T}, [])
    with pytest.raises(ValueError, match="cannot add"):
        H + HessianLinearOperator(model, nn.MSELoss(), [model[0].bias], UNEVEN)


class Spare(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.spare = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x):
        return self.a(x)


def test_parameters_that_forward_does_not_use_have_zeros():
    torch.manual_seed(0)
    model, loss = Spare().double(), nn.MSELoss()
    X, Y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 4, dtype=torch.float64)
    spare = HessianLinearOperator(model, loss, [model.spare.weight, model.spare.bias], [(X, Y)])
    assert torch.equal(spare @ torch.eye(16).double(), torch.zeros(16, 16).double())
    gradient, value = spare.gradient_and_loss()
    assert [float(each.abs().max()) for each in gradient] == [0.0, 0.0]
    assert float(value) == pytest.approx(loss(model(X), Y).item(), rel=1e-12)
    expected = torch.zeros(24, 24, dtype=torch.float64)
    alone = HessianLinearOperator(model, loss, [model.a.weight], [(X, Y)]) @ torch.eye(12).double()
    expected[:12, :12] = alone
    params = {"a.weight": model.a.weight.detach(), "spare.weight": model.spare.weight.detach()}

    def function(params, X):
        return torch.func.functional_call(model, params, (X,))

    for given, chosen in ((model, list(params.values())), (function, params)):
        chosen = [model.a.weight, model.spare.weight] if given is model else chosen
        for sizes in ([2], [1, 1]):
            found = HessianLinearOperator(given, loss, chosen, [(X, Y)], block_sizes=sizes) @ torch.eye(24).double()
            assert (found - expected).abs().max() <= 1e-14
    for blind in (lambda params, X: model(X), lambda params, X: torch.zeros(8, 4).double()):
        with pytest.raises(ValueError, match=r"model_func does not depend on a.weight, spare.weight: it uses tensors"):
            HessianLinearOperator(blind, loss, params, [(X, Y)])
