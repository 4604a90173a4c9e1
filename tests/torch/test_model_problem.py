"""A model with its loss and data as a problem: results in the order of the parameters asked for, against autograd."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hesskern.torch.model_problem import ModelProblem, RequestedParameter, network_of, slices  # noqa: E402
from hesskern.torch_modules.tracing import trace  # noqa: E402


class Backwards(nn.Module):
    """Layers registered in another order than they are applied, and one that nobody uses."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2, bias=False)
        self.spare = nn.Linear(1, 2)
        self.first = nn.Linear(3, 4)

    def forward(self, x):
        return self.last(self.first(x))


@pytest.fixture
def case():
    torch.manual_seed(0)
    return Backwards().double(), (torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64))


def by_autograd(model, data, names):
    """Value, gradient and Hessian of the mean squared error with respect to parameters in this order."""
    known = {name: parameter.detach() for name, parameter in model.named_parameters()}
    shapes = [known[name].shape for name in names]

    def loss(flat):
        parts = torch.split(flat, [shape.numel() for shape in shapes])
        moved = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return nn.functional.mse_loss(torch.func.functional_call(model, known | moved, (data[0],)), data[1])

    flat = torch.cat([known[name].reshape(-1) for name in names]).requires_grad_()
    value = loss(flat)
    (gradient,) = torch.autograd.grad(value, flat, create_graph=True)
    rows = [torch.autograd.grad(entry, flat, retain_graph=True)[0] for entry in gradient]
    return value.detach(), gradient.detach(), torch.stack(rows)


@pytest.mark.parametrize("params", [None, ["first.bias"], ["last.weight", "first.weight"]], ids=str)
def test_every_result_is_in_the_order_of_the_models_parameters(case, params):
    model, data = case
    problem = ModelProblem.of(model, nn.MSELoss(), data, params)
    names = [each.name for each in problem.requested]
    assert names == [name for name, _ in model.named_parameters() if params is None or name in params]
    value, gradient, H = by_autograd(model, data, names)
    found = problem.value_and_gradient()
    torch.testing.assert_close(found[0], value)
    torch.testing.assert_close(found[1], gradient)
    torch.testing.assert_close(problem.dense(), H)
    vectors = torch.randn(len(H), 3, dtype=torch.float64)
    torch.testing.assert_close(problem.product(vectors), H @ vectors)
    torch.testing.assert_close(problem.eigenvalues(), torch.linalg.eigvalsh(H), rtol=0, atol=1e-12)
    assert problem.trace() == pytest.approx(float(H.trace()))
    values, columns = problem.eigenpairs(2, "LA")
    torch.testing.assert_close(H @ columns, columns * values, rtol=0, atol=1e-12)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(H)[-2:])
    torch.testing.assert_close(problem.largest(), torch.linalg.eigvalsh(H)[-1])


def test_where_parameters_stand():
    wanted = [RequestedParameter("a", torch.Size([2, 3])), RequestedParameter("b", torch.Size([4]))]
    assert slices(wanted) == {"a": slice(0, 6), "b": slice(6, 10)}


def test_a_network_is_a_copy_of_the_chain(case):
    model, (X, _) = case
    net = network_of(trace(model))
    with torch.no_grad():
        wanted = model(X)
        model.first.weight.zero_()
    torch.testing.assert_close(torch.from_numpy(net.forward(X.numpy())), wanted)
    assert net.parameter_names == ("first.weight", "first.bias", "last.weight")
    assert network_of(trace(model), torch.float32).dtype == "float32"
