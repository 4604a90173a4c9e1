"""Weights that are computed from parameters: derivatives with respect to these, in every function that gives some.

The oracle is the difference of autograd's gradients at neighbouring points, for autograd's own second derivative of
weight norm is wrong on the CPU (torch 2.13): it takes the norms for constants, and its Hessian is not symmetric.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

import hesskern.torch as ht  # noqa: E402
from hesskern.compat.curvlinops import GGNLinearOperator, HessianLinearOperator  # noqa: E402
from hesskern.compat.hessian_eigenthings import (  # noqa: E402
    HessianOperator,
    HVPOperator,
    compute_hessian_eigenthings,
    lanczos,
    supervised_loss,
)
from hesskern.compat.hessian_eigenthings import trace as trace_of  # noqa: E402
from hesskern.compat.pyhessian import hessian as pyhessian  # noqa: E402
from hesskern.torch.model_problem import ModelProblem  # noqa: E402
from hesskern.torch.reparametrised import ReparametrisedHessian  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
MSE = nn.MSELoss()


class Exponential(nn.Module):
    """Positive weights."""

    def forward(self, raw):
        return raw.exp()


class Scaled(nn.Module):
    """A buffer and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("mask", torch.tensor([[1.0], [0.0], [2.0]]))

    def forward(self, raw):
        return self.scale.sin() * self.mask * raw


class Shared(nn.Module):
    """A weight that is another layer's, transposed and squared."""

    def __init__(self, other):
        super().__init__()
        self.other = [other]

    def forward(self, raw):
        return raw + self.other[0].weight[:2] ** 2 @ torch.ones(4, 3, dtype=raw.dtype)


def custom(parametrisation, attribute="weight"):
    def change(model):
        parametrize.register_parametrization(model[0], attribute, parametrisation())

    return change


def stacked(model):
    parametrizations.weight_norm(model[0])
    parametrize.register_parametrization(model[0], "bias", Exponential())
    parametrizations.orthogonal(model[1], orthogonal_map="cayley")


def pruned(model):
    prune.random_unstructured(model[0], "weight", amount=4)
    prune.l1_unstructured(model[0], "weight", amount=2)  # a container of two
    prune.random_unstructured(model[1], "bias", amount=1)


KINDS = {
    "weight_norm": lambda model: parametrizations.weight_norm(model[0]),
    "weight_norm, columns": lambda model: parametrizations.weight_norm(model[0], dim=1),
    "weight_norm, one norm": lambda model: parametrizations.weight_norm(model[1], dim=None),
    "weight_norm as a hook": lambda model: nn.utils.weight_norm(model[0]),
    "weight_norm as a hook, of both layers": lambda model: [nn.utils.weight_norm(layer) for layer in model],
    "spectral_norm": lambda model: parametrizations.spectral_norm(model[0]),
    "spectral_norm as a hook": lambda model: nn.utils.spectral_norm(model[0]),
    "matrix_exp": lambda model: parametrizations.orthogonal(model[0], orthogonal_map="matrix_exp"),
    "cayley": lambda model: parametrizations.orthogonal(model[0], orthogonal_map="cayley"),
    "householder": lambda model: parametrizations.orthogonal(model[0], orthogonal_map="householder"),
    "householder, not around a base": lambda model: parametrizations.orthogonal(
        model[0], orthogonal_map="householder", use_trivialization=False
    ),
    "pruned": pruned,
    "exponential": custom(Exponential),
    "exponential bias": custom(Exponential, "bias"),
    "scaled": custom(Scaled),
    "shared": lambda model: parametrize.register_parametrization(model[1], "weight", Shared(model[0])),
    "stacked": stacked,
}


FEW = ["weight_norm", "weight_norm as a hook", "spectral_norm as a hook", "householder", "pruned", "stacked"]


def made(kind, dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    KINDS[kind](model)
    model(torch.randn(5, 4))  # power iterations
    return model.to(dtype).eval()


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(1)
    return torch.randn(20, 4, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)


def differences(model, data, names=None, loss=MSE):
    """The Hessian from differences of gradients."""
    known = dict(model.named_parameters())
    names = list(known) if names is None else names
    sizes, shapes = [known[name].numel() for name in names], [known[name].shape for name in names]

    def gradient(flat):
        flat = flat.clone().requires_grad_()
        parts = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        value = loss(functional_call(model, dict(zip(names, parts, strict=True)), (data[0],)), data[1])
        return torch.autograd.grad(value, flat)[0]

    at, width = torch.cat([known[name].detach().reshape(-1) for name in names]), 1e-5
    rows = [(gradient(at + width * e) - gradient(at - width * e)) / (2 * width) for e in torch.eye(len(at)).double()]
    return torch.stack(rows)


def oracle(kind, model, data):
    """Differences; where the weights jump with numbers whose derivative is zero, autograd's Hessian."""
    if "householder" not in kind:
        return differences(model, data)
    known = dict(model.named_parameters())
    sizes = [each.numel() for each in known.values()]

    def loss(flat):
        parts = [part.reshape(each.shape) for part, each in zip(flat.split(sizes), known.values(), strict=True)]
        return MSE(functional_call(model, dict(zip(known, parts, strict=True)), (data[0],)), data[1])

    return torch.autograd.functional.hessian(loss, torch.cat([each.detach().reshape(-1) for each in known.values()]))


def agree(found, expected, tolerance=1e-7):
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrix(kind, data):
    model = made(kind)
    H = ht.hessian(model, MSE, data)
    agree(H, oracle(kind, model, data))
    assert torch.equal(H, H.T)


@pytest.mark.parametrize("kind", FEW)
def test_every_function_has_the_derivatives_of_the_raw_parameters(kind, data):
    model = made(kind)
    expected = oracle(kind, model, data)
    values, size = torch.linalg.eigvalsh(expected), len(expected)
    by_size = values[values.abs().argsort(descending=True)]
    v = torch.randn(size, 2, dtype=torch.float64)

    agree(ht.hvp(model, MSE, data, v), expected @ v)
    agree(ht.spectrum(model, MSE, data), values)
    agree(ht.sharpness(model, MSE, data), values[-1])

    params, loader = list(model.parameters()), [(data[0][:15], data[1][:15]), (data[0][15:], data[1][15:])]
    operator = HessianLinearOperator(model, MSE, params, loader)
    agree(operator @ v, expected @ v)
    found = pyhessian(model, MSE, data=data, cuda=False)
    agree(torch.tensor(found.eigenvalues(top_n=2)[0]).double(), by_size[:2])
    assert found.trace()[0] == pytest.approx(float(expected.trace()), rel=1e-7)
    old = compute_hessian_eigenthings(model, loader, MSE, 2, use_gpu=False)[0]
    agree(torch.tensor(old).abs().sort().values, by_size[:2].abs().sort().values)
    agree(HVPOperator(model, loader, MSE, use_gpu=False).apply(v[:, 0]), expected @ v[:, 0])
    new = HessianOperator(model, loader, supervised_loss(nn.functional.mse_loss))
    agree(lanczos(new, k=2).eigenvalues, by_size[:2])
    assert trace_of(new).estimate == pytest.approx(float(expected.trace()), rel=1e-7)


@pytest.mark.parametrize("kind", [*FEW, "shared", "scaled"])
def test_gradient_gauss_newton_and_parts(kind, data):
    model = made(kind)
    params = list(model.parameters())
    loader = [data]
    gradient, loss = HessianLinearOperator(model, MSE, params, loader).gradient_and_loss()
    value = MSE(model(data[0]), data[1])
    assert float(loss) == pytest.approx(value.item(), rel=1e-12)
    for found, true in zip(gradient, torch.autograd.grad(value, params, allow_unused=True), strict=True):
        agree(found, torch.zeros_like(found) if true is None else true, 1e-12)

    names = [name for name, _ in model.named_parameters()]
    theirs = {name: p.detach().clone() for name, p in model.named_parameters()}
    J = torch.cat(
        [
            part.reshape(40, -1)
            for part in torch.autograd.functional.jacobian(
                lambda *p: functional_call(model, dict(zip(names, p, strict=True)), (data[0],)), tuple(theirs.values())
            )
        ],
        dim=1,
    )
    G = GGNLinearOperator(model, MSE, params, loader) @ torch.eye(len(J.T)).double()
    agree(G, J.T @ J * (2 / 40), 1e-12)
    whole = oracle(kind, model, data)
    places, at = {}, 0
    for name, parameter in model.named_parameters():
        places[name] = slice(at, at := at + parameter.numel())
    rows = torch.cat([torch.arange(len(whole))[places[name]] for name in names[::2]])
    part = ht.hessian(model, MSE, data, params=names[::2])
    assert (part - whole[rows[:, None], rows]).abs().max() <= 1e-7 * whole.abs().max()
    blocks = (
        HessianLinearOperator(model, MSE, params, loader, block_sizes=[1] * len(params)) @ torch.eye(len(J.T)).double()
    )
    for own in places.values():
        assert (blocks[own, own] - whole[own, own]).abs().max() <= 1e-7 * whole.abs().max()


@pytest.mark.parametrize("kind", FEW)
def test_changes_of_raw_parameters_and_buffers_are_followed(kind, data):
    model = made(kind)
    params = list(model.parameters())
    operator = HessianLinearOperator(model, MSE, params, [data])
    last = HessianLinearOperator(model, MSE, params[-1:], [data])
    found = pyhessian(model, MSE, data=data, cuda=False)
    new = HessianOperator(model, [data], supervised_loss(nn.functional.mse_loss))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "householder" not in kind or name == "1.weight":
                parameter.mul_(1.2).add_(0.03)
            elif "original" in name:
                parameter.add_(0.1 * torch.randn_like(parameter).tril(-1))
        for name, buffer in model.named_buffers():
            if "mask" in name:
                buffer.copy_(1 - buffer)
    expected = oracle(kind, model, data)
    eye, end = torch.eye(len(expected)).double(), params[-1].numel()
    agree(operator @ eye, expected)
    agree(last @ torch.eye(end).double(), expected[-end:, -end:])
    agree(torch.tensor(found.trace()[0]), expected.trace())
    agree(new @ eye[0], expected[0])


@pytest.mark.parametrize("kind", FEW)
def test_single_precision(kind, data):
    model = made(kind, torch.float32)
    single = tuple(each.float() for each in data)
    H = ht.hessian(model, MSE, single)
    assert H.dtype == torch.float32
    agree(H.double(), oracle(kind, model.double(), tuple(each.double() for each in single)), 1e-6)


def state(model):
    plain = {id(m): {k: v for k, v in vars(m).items() if isinstance(v, torch.Tensor)} for m in model.modules()}
    return plain, {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("kind", FEW)
def test_the_model_is_left_as_it_was(kind, data):
    model = made(kind)
    model(data[0])
    plain, tensors = state(model)
    ht.hessian(model, MSE, data)
    HessianLinearOperator(model, MSE, list(model.parameters()), [data])
    after, kept = state(model)
    assert all(after[m][k] is plain[m][k] for m in plain for k in plain[m])
    assert all(torch.equal(tensors[name], kept[name]) for name in tensors)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["spectral_norm", "spectral_norm as a hook"])
def test_power_iterations_are_refused_and_not_done(kind, data):
    model = made(kind)
    operator = HessianLinearOperator(model, MSE, list(model.parameters()), [data])
    model.train()
    _, tensors = state(model)
    with pytest.raises(ValueError, match=r"changes its weight with each call in training mode; call model\.eval"):
        ht.hessian(model, MSE, data)
    with torch.no_grad():
        model[1].weight.add_(1.0)
        tensors["1.weight"].add_(1.0)
    with pytest.raises(ValueError, match=r"call model\.eval"):
        operator @ torch.zeros(operator.shape[0], dtype=torch.float64)
    assert all(torch.equal(tensors[name], each) for name, each in model.state_dict().items())


class Counting(nn.Module):
    """Changes a buffer whenever it is called."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, raw):
        self.calls += 1
        return raw * (1 + 0 * self.calls)


def test_a_state_that_changes_is_refused_and_given_back(data):
    model = made("exponential")
    parametrize.register_parametrization(model[1], "weight", Counting())
    model.double()
    before = float(model[1].parametrizations.weight[0].calls)
    with pytest.raises(ValueError, match=r"changes its buffer '1\.parametrizations\.weight\.0\.calls'"):
        ht.hessian(model, MSE, data)
    assert float(model[1].parametrizations.weight[0].calls) == before


class WrongBackward(torch.autograd.Function):
    """A square whose second derivative is missing."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.detach())
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * gradient


class Square(nn.Module):
    def forward(self, raw):
        return WrongBackward.apply(raw)


class Once(torch.autograd.Function):
    """What cannot be differentiated twice."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class SquareOnce(nn.Module):
    def forward(self, raw):
        return Once.apply(raw)


class Rounded(nn.Module):
    """The straight-through estimator: values of one function, derivatives of another."""

    def forward(self, raw):
        return raw + (raw.round() - raw).detach()


class Detached(nn.Module):
    def forward(self, raw):
        return raw + 2 * raw.detach()


@pytest.mark.parametrize("parametrisation", [Square, SquareOnce, Rounded, Detached])
def test_a_wrong_or_missing_second_derivative_is_refused(parametrisation, data):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    parametrize.register_parametrization(model[0], "weight", parametrisation())
    calls = {
        "hessian": lambda: ht.hessian(model, MSE, data),
        "curvlinops": lambda: HessianLinearOperator(model, MSE, list(model.parameters()), [data]),
        "pyhessian": lambda: pyhessian(model, MSE, data=data, cuda=False),
        "old eigenthings": lambda: compute_hessian_eigenthings(model, [data], MSE, 1, use_gpu=False),
        "eigenthings": lambda: HessianOperator(model, [data], supervised_loss(nn.functional.mse_loss)),
    }
    for call in calls.values():
        with pytest.raises(ValueError, match=r"PyTorch('s (second )?derivative| cannot differentiate twice)"):
            call()
    names = ["1.weight", "1.bias"]  # the other layer's derivatives need none of that
    agree(ht.hessian(model, MSE, data, params=names), differences(model, data, names))


def test_the_condition_number_is_that_of_the_dense_matrix(data):
    model = made("exponential")
    expected = torch.linalg.eigvalsh(differences(model, data)).abs()
    kappa = ht.condition(model, MSE, data)
    assert kappa.decision.size == len(expected)
    nonzero = expected[expected > 1e-6 * expected.max()]
    assert kappa.decision.rank == len(nonzero)
    assert float(kappa) == pytest.approx(float(nonzero.max() / nonzero.min()), rel=1e-4)


def test_errors_of_the_network_are_errors_here():
    """Large hidden numbers cancel in what follows the layer, which has few digits, and with it the Hessian."""

    def condition(seed, moved):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        torch.manual_seed(seed)
        first = parametrizations.weight_norm(nn.Linear(3, 4, bias=False))
        model = nn.Sequential(first, nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).double()
        X, Y, along = normal(9, 3), normal(9, 4), normal(4, 1)
        with torch.no_grad():
            model[1].weight += 1e7 * along @ normal(1, 4)
            model[2].weight -= model[2].weight @ along @ along.T / (along.T @ along)
            for parameter in model.parameters():
                parameter *= 1 + moved * normal(*parameter.shape).clamp(-1, 1)
        names = [f"0.parametrizations.weight.original{k}" for k in (0, 1)]
        return ht.condition(model, MSE, (X, Y), params=names).decision

    for seed in range(5):
        here, there = condition(seed, 0.0), condition(seed, 2e-16)
        assert here.rank == there.rank
        assert abs(there.value / here.value - 1) < here.uncertainty


def test_a_layer_that_is_replaced_is_refused(data):
    model = made("exponential")
    operator = HessianLinearOperator(model, MSE, list(model.parameters()), [data])
    found = pyhessian(model, MSE, data=data, cuda=False)
    parametrize.remove_parametrizations(model[0], "weight")
    v = torch.zeros(operator.shape[0], dtype=torch.float64)
    for call in (lambda: operator @ v, found.trace):
        with pytest.raises(ValueError, match="create this object again"):
            call()


def test_a_parameter_that_is_replaced_is_followed(data):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    found = pyhessian(model, MSE, data=data, cuda=False)
    model[0].weight = nn.Parameter(2 * model[0].weight.detach())
    assert found.trace()[0] == pytest.approx(float(differences(model, data).trace()), rel=1e-7)


class LowRank(nn.Module):
    """Parameters of its own, which two layers share."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 4))

    def forward(self, raw):
        return raw + self.one @ self.other


def test_a_parametrisation_that_two_layers_share():
    torch.manual_seed(0)
    model, shared = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), LowRank()
    for layer in model:
        parametrize.register_parametrization(layer, "weight", shared)
    model.double()
    X, Y = torch.randn(2, 9, 4, dtype=torch.float64)
    before = dict(model.named_parameters())
    numbers = [parameter.detach().clone() for parameter in model.parameters()]
    found = ht.hessian(model, MSE, (X, Y))
    operator = HessianLinearOperator(model, MSE, list(model.parameters()), [(X, Y)])
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert all(map(torch.equal, numbers, model.parameters()))
    sizes = [each.numel() for each in numbers]
    names = [name.replace("parametrizations.weight.", "") for name in before]

    def loss(flat):
        parts = zip(flat.split(sizes), numbers, strict=True)
        named = dict(zip(names, [part.reshape(each.shape) for part, each in parts], strict=True))
        together = named["0.0.one"] @ named["0.0.other"]
        hidden = nn.functional.linear(X, named["0.original"] + together, named["0.bias"])
        return MSE(nn.functional.linear(hidden, named["1.original"] + together, named["1.bias"]), Y)

    expected = torch.autograd.functional.hessian(loss, torch.cat([each.reshape(-1) for each in numbers]))
    agree(found, expected, 1e-12)
    agree(operator @ torch.eye(len(expected)).double(), expected, 1e-12)


def test_a_few_eigenvalues_come_from_products(monkeypatch):
    """With a certificate by the dense matrix, which is left out where its columns are too many."""
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(12, 20)), nn.Linear(20, 8)).double()
    X, Y = torch.randn(40, 12, dtype=torch.float64), torch.randn(40, 8, dtype=torch.float64)
    operator = ModelProblem.of(model, nn.MSELoss(), (X, Y), None).operator
    assert isinstance(operator, ReparametrisedHessian)
    exact = np.linalg.eigvalsh(operator.toarray())
    for which, wanted in (("LA", exact[-3:]), ("SA", exact[:3])):
        pairs = operator.eigsh(3, which)
        assert pairs.certified and "factorisation of 448 rows" in pairs.note
        np.testing.assert_allclose(pairs.values, wanted, rtol=0, atol=1e-13 * exact[-1])
    assert operator.eigsh(3, "SM").note == "all 448 eigenvalues were computed"
    monkeypatch.setattr("hesskern.torch.reparametrised._MOST_COLUMNS", 400)
    pairs = operator.eigsh(3)
    np.testing.assert_allclose(pairs.values, exact[-3:], rtol=0, atol=1e-13 * exact[-1])
    assert not pairs.certified and pairs.note == "not certified: it takes all 448 columns of the Hessian"
