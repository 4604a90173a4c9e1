"""Fewer digits and finite differences, made by NumPy and PyTorch, told apart by size and pattern."""

from __future__ import annotations

from dataclasses import replace

import corruptions
import judged
import numpy as np
import pytest

import hesskern as hk


def binary(values, bits):
    if values is None:
        return None
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)


FORMATS = [("float32", 24), ("TF32", 11), ("bfloat16", 8)]
PROBLEMS = [1, 2, 6, 8]


def causes(matrix, problem):
    why = hk.explain(matrix, *judged.given(problem))
    return [finding.cause for finding in why.findings]


@pytest.mark.parametrize(("name", "bits"), FORMATS)
@pytest.mark.parametrize("seed", PROBLEMS)
def test_rounded_inputs(seed, name, bits):
    problem = corruptions.random_problem(seed)
    data = {"X": binary(problem.X, bits), "Y": binary(problem.Y, bits)}
    weights = {"weights": tuple(binary(w, bits) for w in problem.weights)}
    weights["biases"] = tuple(binary(b, bits) for b in problem.biases)
    assert causes(corruptions.hessian(replace(problem, **data)), problem) == [f"{name}-data"]
    assert causes(corruptions.hessian(replace(problem, **weights)), problem) == [f"{name}-weights"]
    assert causes(corruptions.hessian(replace(problem, **data, **weights)), problem) == [f"{name}-inputs"]


def test_rounded_data_of_a_transposed_problem():
    problem = corruptions.random_problem(6)
    assert problem.X.shape[0] == problem.X.shape[1]
    matrix = corruptions.corrupted(replace(problem, X=binary(problem.X, 24), Y=binary(problem.Y, 24)), ["X-transposed"])
    assert causes(matrix, problem) == ["X-transposed", "float32-data"]


@pytest.mark.parametrize(("name", "bits"), [("float32", 24), ("float16", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("seed", PROBLEMS)
def test_rounded_results(seed, name, bits):
    problem = corruptions.random_problem(seed)
    assert causes(binary(corruptions.hessian(problem), bits), problem) == [f"{name}-stored"]


@pytest.mark.parametrize(("name", "dtype"), [("float32", "float32"), ("bfloat16", "bfloat16"), (None, "float64")])
@pytest.mark.parametrize("seed", PROBLEMS)
def test_arithmetic_of_torch(seed, name, dtype):
    torch = pytest.importorskip("torch")
    problem = corruptions.random_problem(seed)
    net, _ = judged.given(problem)
    X, Y, theta = (torch.tensor(array).to(getattr(torch, dtype)) for array in (problem.X, problem.Y, net.flatten()))

    def loss(flat):
        at, state = 0, X
        for weight, bias in zip(problem.weights, problem.biases, strict=True):
            state = state @ flat[at : at + weight.size].reshape(weight.shape).T
            at += weight.size
            if bias is not None:
                state = state + flat[at : at + bias.size]
                at += bias.size
        factor = 0.5 * corruptions.scale_of(problem)
        return factor * ((state - Y) ** 2).sum() + 0.5 * problem.decay * (flat**2).sum()

    matrix = torch.autograd.functional.hessian(loss, theta).double().numpy()
    assert causes(matrix, problem) == ([f"{name}-arithmetic"] if name else [])


def test_arithmetic_of_a_gpu():
    """TF32: factors rounded to eleven digits, products summed in float32."""
    rng = np.random.default_rng(1)
    weights = tuple(rng.standard_normal(shape) for shape in ((9, 6), (4, 9)))
    problem = corruptions.Problem(weights, (None, None), rng.standard_normal((30, 6)), rng.standard_normal((30, 4)))

    def times(left, right):
        return (binary(left, 11).astype(np.float32) @ binary(right, 11).astype(np.float32)).astype(np.float64)

    hidden = times(problem.X, weights[0].T)
    why = hk.explain(np.kron(np.eye(4), times(hidden.T, hidden)), *judged.given(problem), params=[1])
    assert [finding.cause for finding in why.findings] == ["TF32-arithmetic"]
    assert "allow_tf32 = False" in why.findings[0].mend


def gradient_of(problem):
    sizes = [(w.shape, None if b is None else b.size) for w, b in zip(problem.weights, problem.biases, strict=True)]

    def split(theta):
        at, layers = 0, []
        for shape, shift in sizes:
            weight = theta[at : at + shape[0] * shape[1]].reshape(shape)
            at += weight.size
            layers.append((weight, None if shift is None else theta[at : at + shift]))
            at += shift or 0
        return layers

    def value(theta):
        state = problem.X
        for weight, bias in split(theta):
            state = state @ weight.T + (0.0 if bias is None else bias)
        squares = np.sum((state - problem.Y) ** 2)
        return 0.5 * corruptions.scale_of(problem) * squares + 0.5 * problem.decay * np.sum(theta**2)

    def gradient(theta):
        layers, states = split(theta), [problem.X]
        for weight, bias in layers:
            states.append(states[-1] @ weight.T + (0.0 if bias is None else bias))
        back, pieces = corruptions.scale_of(problem) * (states[-1] - problem.Y), []
        for (weight, bias), state in zip(layers[::-1], states[-2::-1], strict=True):
            pieces = [(back.T @ state).ravel(), *([] if bias is None else [back.sum(axis=0)]), *pieces]
            back = back @ weight
        return np.concatenate(pieces) + problem.decay * theta

    theta = judged.given(problem)[0].flatten()
    return value, gradient, theta


@pytest.mark.parametrize("step", [1e-4, 1e-5, 2.0**-20])
@pytest.mark.parametrize("seed", PROBLEMS)
def test_differences_of_the_gradient(seed, step):
    problem = corruptions.random_problem(seed)
    _, gradient, theta = gradient_of(problem)
    units = step * np.eye(len(theta))
    forward = np.array([(gradient(theta + unit) - gradient(theta)) / step for unit in units])
    central = np.array([(gradient(theta + unit) - gradient(theta - unit)) / (2 * step) for unit in units]).T
    said = {"forward": forward, "central": central, "made symmetric": (central + central.T) / 2}
    net, loss = judged.given(problem)
    for words, matrix in said.items():
        why = hk.explain(matrix, net, loss)
        (finding,) = why.findings
        assert finding.cause == "finite-differences" and words in finding.words
        assert f"h = {step:.3g}" in finding.words
        assert why.after < why.before or words != "forward"


def test_second_differences_of_the_loss():
    problem = corruptions.random_problem(8)
    value, _, theta = gradient_of(problem)
    units = 1e-3 * np.eye(len(theta))
    matrix = [
        [
            (value(theta + a + b) - value(theta + a - b) - value(theta - a + b) + value(theta - a - b)) / 4e-6
            for a in units
        ]
        for b in units
    ]
    (finding,) = hk.explain(np.array(matrix), *judged.given(problem)).findings
    assert "second differences of the loss" in finding.words and "h = 0.001" in finding.words


@pytest.mark.parametrize("size", [1e-3, 1e-7, 1e-10])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("seed", PROBLEMS)
def test_noise_is_neither(seed, symmetric, size):
    problem = corruptions.random_problem(seed)
    H = corruptions.hessian(problem)
    noise = np.random.default_rng(seed).standard_normal(H.shape)
    noise = noise + noise.T if symmetric else noise
    why = hk.explain(H + size * noise, *judged.given(problem))
    assert why.status == "unexplained" and why.findings == ()
