"""A linear stack as one operation of PyTorch: its values and derivatives of every order against PyTorch's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

import hesskern as hk  # noqa: E402
import hesskern.torch as ht  # noqa: E402
from hesskern.torch import LinearStack, linear_stack  # noqa: E402


def layers(widths, biases, dtype=torch.float64):
    torch.manual_seed(0)
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    weights = [torch.randn(o, i, dtype=dtype, requires_grad=True) for i, o in pairs]
    return weights, [
        torch.randn(o, dtype=dtype, requires_grad=True) if b else None for (_, o), b in zip(pairs, biases, strict=True)
    ]


def plain(x, weights, biases):
    for weight, bias in zip(weights, biases, strict=True):
        x = nn.functional.linear(x, weight, bias)
    return x


CASES = {
    "samples go through": ([2, 3, 2, 2], [True, False, True], 2),
    "the product is taken": ([2, 5, 2], [False, True], 40),
    "no bias": ([3, 4, 2], [False, False], 5),
    "one layer": ([3, 2], [True], 4),
    "one layer, many samples": ([3, 2], [False], 30),
}


@pytest.mark.parametrize("case", CASES)
def test_first_and_second_derivatives(case):
    widths, has_bias, samples = CASES[case]
    weights, biases = layers(widths, has_bias)
    present = [bias for bias in biases if bias is not None]

    def stacked(x, *parameters):
        given = iter(parameters[len(weights) :])
        return linear_stack(x, parameters[: len(weights)], [None if b is None else next(given) for b in biases])

    arguments = (torch.randn(samples, widths[0], dtype=torch.float64, requires_grad=True), *weights, *present)
    assert gradcheck(stacked, arguments)
    assert gradgradcheck(stacked, arguments)


def loss_of(function, x, weights, biases):
    return (function(torch.tanh(x), weights, biases) ** 3).sum()


def gradients(function, x, parts, *, create_graph):
    weights, biases = parts
    given = [x, *weights, *(bias for bias in biases if bias is not None)]
    return torch.autograd.grad(loss_of(function, x, weights, biases), given, create_graph=create_graph)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("samples", [5, 700])
def test_inside_a_larger_model_it_is_pytorchs_own(dtype, samples):
    """Values, gradients, and gradients of their squared norm (a gradient penalty), at a size with several chunks."""
    parts = layers([7, 90, 11, 3], [True, True, False], dtype)
    for weight in parts[0]:
        weight.data *= weight.shape[1] ** -0.5
    x = torch.randn(samples, 7, dtype=dtype, requires_grad=True)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4

    def close(found, expected):
        assert found.dtype == dtype
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()

    close(linear_stack(x, *parts), plain(x, *parts))
    both = [gradients(function, x, parts, create_graph=False) for function in (linear_stack, plain)]
    second = []
    for function in (linear_stack, plain):
        first = gradients(function, x, parts, create_graph=True)
        penalty = sum(each.square().sum() for each in first)
        second.append(torch.autograd.grad(penalty, [x, *parts[0], parts[1][0], parts[1][1]]))
    for found, expected in (*zip(*both, strict=True), *zip(*second, strict=True)):
        close(found, expected)


def test_third_derivatives():
    weights, biases = layers([2, 3, 2], [True, False])
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(lambda *p: sum(each.square().sum() for each in gradients(
        linear_stack, p[0], (p[1:3], (p[3], None)), create_graph=True)), (x, *weights, biases[0]))  # fmt: skip


def test_only_what_is_asked_for_is_computed(monkeypatch):
    from hesskern import backends

    asked = []
    backward = type(backends.get("cpp")).backward

    def watched(self, *arguments, **wanted):
        asked.append(wanted)
        return backward(self, *arguments, **wanted)

    monkeypatch.setattr(type(backends.get("cpp")), "backward", watched)
    weights, biases = layers([3, 4, 2], [True, True])
    x = torch.randn(5, 3, dtype=torch.float64)
    linear_stack(x, weights, biases).sum().backward()
    assert asked.pop() == {"parameters": True, "samples": False}
    frozen = [weight.detach() for weight in weights]
    found = torch.autograd.grad(linear_stack(x.requires_grad_(), frozen).sum(), x)[0]
    assert asked.pop() == {"parameters": False, "samples": True}
    torch.testing.assert_close(found, (frozen[1] @ frozen[0]).sum(0).expand(5, 3))
    frozen[1].requires_grad_()
    linear_stack(x.detach(), frozen).sum().backward()
    assert frozen[0].grad is None
    assert frozen[1].grad is not None


def test_shapes_strides_and_no_samples():
    weights, biases = layers([3, 4, 2], [True, True])
    x = torch.randn(6, 3, 5, dtype=torch.float64).transpose(1, 2)
    torch.testing.assert_close(linear_stack(x, weights, biases), plain(x, weights, biases))
    assert linear_stack(x[0, 0], weights).shape == (2,)
    turned = [torch.randn(3, 4, dtype=torch.float64).T, torch.randn(2, 8, dtype=torch.float64)[:, ::2]]
    torch.testing.assert_close(linear_stack(x, turned), plain(x, turned, [None, None]))
    nothing = linear_stack(x[:0], weights, biases)
    nothing.sum().backward()
    assert nothing.shape == (0, 5, 2)
    assert not weights[0].grad.any()


def test_functional_transforms():
    weights, biases = layers([3, 4, 2], [True, False])
    x = torch.randn(5, 3, dtype=torch.float64)
    found = torch.func.grad(lambda w: linear_stack(x, [w, weights[1].detach()]).square().sum())(weights[0].detach())
    expected = torch.func.grad(lambda w: plain(x, [w, weights[1].detach()], [None, None]).square().sum())(
        weights[0].detach()
    )
    torch.testing.assert_close(found, expected)
    with pytest.raises(RuntimeError, match="vmap"):
        torch.func.vmap(lambda row: linear_stack(row[None], weights, biases))(x)


def test_the_module_trains_like_a_sequential():
    torch.manual_seed(1)
    reference = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2, bias=False))
    stack = LinearStack(nn.Linear(3, 8), nn.Linear(8, 2, bias=False))
    assert stack.load_state_dict(reference.state_dict())
    x, y = torch.randn(20, 3), torch.randn(20, 2)
    for model in (reference, stack):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    for found, expected in zip(stack.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_stack_is_a_linear_network():
    """torch.fx sees one operation, and its curvature is that of the layers."""
    torch.manual_seed(1)
    stack = LinearStack(nn.Linear(3, 4), nn.Linear(4, 2, bias=False)).double()
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64)
    expected = ht.hessian(nn.Sequential(*stack), nn.MSELoss(), (x, y))
    assert torch.equal(ht.hessian(stack, nn.MSELoss(), (x, y)), expected)
    assert hk.LinearNetwork.from_torch(nn.Sequential(stack, nn.Linear(2, 1).double())).widths == (3, 4, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (torch.ones(2, 3), [torch.ones(2, 3, dtype=torch.float64)]),
            TypeError,
            "weights.0. is torch.float64, but x is",
        ),
        ((torch.ones(2, 3).half(), [torch.ones(2, 3).half()]), TypeError, "x is torch.float16; expected torch.float32"),
        ((torch.ones(2, 3), [torch.ones(2, 4)]), ValueError, r"weights.0. has shape \(2, 4\); expected \(out, 3\)"),
        ((torch.ones(2, 3), [torch.ones(2, 3)], [torch.ones(3)]), ValueError, r"biases.0. has shape \(3,\); expected"),
        ((torch.ones(2, 3), [torch.ones(2, 3)], []), ValueError, "weights has 1 entries and biases 0"),
        ((torch.ones(2, 3), []), ValueError, "expected at least one layer"),
        ((torch.tensor(1.0), [torch.ones(2, 3)]), ValueError, "x has 0 dimensions"),
        (([[1.0]], [torch.ones(2, 3)]), TypeError, "x is a list"),
        ((torch.ones(2, 3, device="meta"), [torch.ones(2, 3)]), TypeError, "x is on meta; expected cpu"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        linear_stack(*arguments)


def test_bad_layers():
    with pytest.raises(TypeError, match="layer 1 is a ReLU"):
        LinearStack(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(TypeError, match="got no layers"):
        LinearStack()
    stack = LinearStack(nn.Linear(2, 2))
    stack[0].register_forward_hook(lambda *_: None)
    with pytest.raises(TypeError, match="layer 0 of LinearStack is a Linear or has forward hooks"):
        stack(torch.ones(1, 2))
