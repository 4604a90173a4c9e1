"""SquaredLoss: value and gradient against exact integer arithmetic and against autograd."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from looped import each

import hesskern as hk


@each("seed", problems.SMALL)
def test_value_and_gradient_are_exact_on_small_problems(backend, close, seed):
    problem = problems.small(seed)
    truth = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    loss, net = problem.loss(), problem.network()
    value, gradient = loss.value_and_gradient(net)
    close(value, truth.loss)
    close(gradient, truth.gradient)
    close(loss(net), truth.loss)
    close(loss.gradient(net), truth.gradient)


@each("seed", range(21))
def test_float32_stays_float32(backend, close, seed):
    problem = problems.small(seed)
    truth = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    value, gradient = problem.loss("float32").value_and_gradient(problem.network("float32"))
    assert isinstance(value, float)
    assert gradient.dtype == np.float32
    close(value, truth.loss, "float32")
    close(gradient, truth.gradient, "float32")


@each("seed", problems.SMALL)
def test_torch_autograd_agrees(seed):
    torch = pytest.importorskip("torch")
    small = problems.small(seed)
    widths = [small.X.shape[1], *(len(weight) for weight in small.weights)]
    problem = problems.normal(widths, len(small.X), seed, bias=seed % 2 == 1, kind=small.kind)
    net = problem.network()
    theta = [torch.tensor(p, requires_grad=True) for p in _in_order(problem)]
    prediction, at = torch.tensor(problem.X), 0
    for bias in problem.biases:
        prediction = torch.nn.functional.linear(prediction, theta[at], None if bias is None else theta[at + 1])
        at += 1 if bias is None else 2
    reduction = "mean" if problem.kind == "mean" else "sum"
    expected = torch.nn.functional.mse_loss(prediction, torch.tensor(problem.Y), reduction=reduction)
    expected = expected * (0.5 if problem.kind == "half_sum" else 1.0)
    parts = torch.autograd.grad(expected, theta)
    value, gradient = problem.loss().value_and_gradient(net)
    assert value == pytest.approx(expected.item(), rel=1e-13)
    wanted = torch.cat([part.ravel() for part in parts]).numpy()
    # Sums of at most 20 terms, a few deep: some tens of rounding units.
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-13 * max(1.0, np.abs(wanted).max()))


def _in_order(problem):
    for weight, bias in zip(problem.weights, problem.biases, strict=True):
        yield weight
        if bias is not None:
            yield bias


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("widths", "samples"),
    [
        ([300, 330, 290], 270),  # above the BLAS threshold
        ([3, 200, 2], 5000),  # many samples, in chunks
        ([90, 4, 100], 300),
        ([6, 7, 8, 9, 5], 33),
        ([33, 17], 1000),
    ],
)
@pytest.mark.quick_in_cpp
def test_large_gradients_match_einsum(backend, close, dtype, widths, samples, bias):
    problem = problems.normal(widths, samples, bias=bias, kind="mean", weight_decay=0.1)
    inputs = [problem.X]
    for weight, shift in zip(problem.weights, problem.biases, strict=True):
        inputs.append(np.einsum("ni,oi->no", inputs[-1], weight) + (0 if shift is None else shift))
    residual = inputs.pop() - problem.Y
    delta, parts = 2 * residual / residual.size, []
    for weight, shift, given in reversed(list(zip(problem.weights, problem.biases, inputs, strict=True))):
        if shift is not None:
            parts.append(np.einsum("no->o", delta))
        parts.append(np.einsum("no,ni->oi", delta, given).ravel())
        delta = np.einsum("no,oi->ni", delta, weight)
    theta = oracle.flatten(problem.weights, problem.biases)
    value, gradient = problem.loss(dtype).value_and_gradient(problem.network(dtype))
    close(gradient, np.concatenate(parts[::-1]) + 0.1 * theta, dtype)
    close(value, np.mean(residual**2) + 0.05 * np.sum(theta**2), dtype)


def test_the_loss_does_not_cancel_near_a_minimum(backend):
    # Predictions of size one with residuals of 1e-12: the expansion with X.T X would leave no digit of 1e-24.
    rng = np.random.default_rng(5)
    net = hk.LinearNetwork.random([6, 20, 4], seed=1)
    X = rng.standard_normal((50, 6))
    Y = net.forward(X) + 1e-12 * rng.choice([-1.0, 1.0], (50, 4))
    # Rounding of predictions is 1e-16 relative to residuals of 1e-12: 1e-3 is ten times what is seen.
    assert hk.SquaredLoss(X, Y)(net) == pytest.approx(100 * 1e-24, rel=1e-3)


def test_kinds_are_multiples(backend):
    problem = problems.normal([4, 5, 3], 7)
    net = problem.network()
    half, whole, mean = (hk.SquaredLoss(problem.X, problem.Y, kind)(net) for kind in ("half_sum", "sum", "mean"))
    assert whole == pytest.approx(2 * half, rel=1e-15)
    assert mean == pytest.approx(2 * half / 21, rel=1e-14)


def test_backend_of_the_loss_wins(monkeypatch):
    from hesskern import backends

    problem = problems.normal([2, 3, 1], 4)
    expected = problem.loss()(problem.network())
    monkeypatch.setattr(type(backends.get("cpp")), "squared_residual", lambda *_: pytest.fail("cpp was called"))
    found = hk.SquaredLoss(problem.X, problem.Y, backend="numpy")(problem.network())
    assert found == pytest.approx(expected, rel=1e-14)


def test_repr():
    problem = problems.normal([2, 3, 1], 4)
    text = repr(hk.SquaredLoss(problem.X, problem.Y, weight_decay=0.5))
    assert text == "SquaredLoss(X (4, 2), Y (4, 1), kind='half_sum', weight_decay=0.5, float64)"
