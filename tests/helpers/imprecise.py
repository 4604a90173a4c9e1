"""Hessians with fewer digits, by finite differences, or at other weights, made by plain NumPy from their names."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import corruptions
import numpy as np

#: Learning rate of the step that weights are off by.
RATE = 1e-5


def binary(values, bits):
    if values is None:
        return None
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)


BITS = {"float32": 24, "TF32": 11, "float16": 11, "bfloat16": 8}


def rounded_inputs(problem, name):
    """A problem with its data, its weights, or both rounded: "float32-data"."""
    bits, which = BITS[name.split("-")[0]], name.split("-")[1]
    if which in ("data", "inputs"):
        problem = replace(problem, X=binary(problem.X, bits), Y=binary(problem.Y, bits))
    if which in ("weights", "inputs"):
        weights = tuple(binary(w, bits) for w in problem.weights)
        problem = replace(problem, weights=weights, biases=tuple(binary(b, bits) for b in problem.biases))
    return problem


def stored(matrix, name):
    """A matrix rounded in the end: "bfloat16-stored", "decimals[4]", "digits[5]"."""
    if name.endswith("-stored"):
        return binary(matrix, BITS[name.split("-")[0]])
    count = corruptions.numbers(name)[0]
    if name.startswith("decimals"):
        return np.array([[float(f"{value:.{count}f}") for value in row] for row in matrix])
    return np.array([[float(f"{value:.{count - 1}e}") for value in row] for row in matrix])


def functions(problem, factor=1.0):
    """Value and gradient of the loss in the flat parameters, and where they stand."""
    sizes = [(w.shape, None if b is None else b.size) for w, b in zip(problem.weights, problem.biases, strict=True)]
    scale = factor * corruptions.scale_of(problem)

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
        return 0.5 * scale * np.sum((state - problem.Y) ** 2) + 0.5 * problem.decay * np.sum(theta**2)

    def gradient(theta):
        layers, states = split(theta), [problem.X]
        for weight, bias in layers:
            states.append(states[-1] @ weight.T + (0.0 if bias is None else bias))
        back, pieces = scale * (states[-1] - problem.Y), []
        for (weight, bias), state in zip(layers[::-1], states[-2::-1], strict=True):
            pieces = [(back.T @ state).ravel(), *([] if bias is None else [back.sum(axis=0)]), *pieces]
            back = back @ weight
        return np.concatenate(pieces) + problem.decay * theta

    pairs = zip(problem.weights, problem.biases, strict=True)
    theta = np.concatenate([np.concatenate([w.ravel(), *([] if b is None else [b])]) for w, b in pairs])
    return value, gradient, theta, split


def by_differences(problem, name, factor=1.0):
    """A Hessian by finite differences: "forward[1e-5]", "backward", "central", "symmetric", "loss" and the step."""
    kind, step = name.split("[")[0], float(name.split("[")[1][:-1])
    value, gradient, theta, _ = functions(problem, factor)
    units = step * np.eye(len(theta))
    match kind:
        case "forward":
            rows = [(gradient(theta + unit) - gradient(theta)) / step for unit in units]
        case "backward":
            rows = [(gradient(theta) - gradient(theta - unit)) / step for unit in units]
        case "central" | "symmetric":
            rows = [(gradient(theta + unit) - gradient(theta - unit)) / (2 * step) for unit in units]
        case "loss":
            rows = [
                [
                    (value(theta + a + b) - value(theta + a - b) - value(theta - a + b) + value(theta - a - b))
                    / (4 * step**2)
                    for a in units
                ]
                for b in units
            ]
    matrix = np.array(rows).T
    return 0.5 * (matrix + matrix.T) if kind == "symmetric" else matrix


def stepped(problem, rate=RATE):
    """The problem after one step of gradient descent."""
    _, gradient, theta, split = functions(problem)
    layers = split(theta - rate * gradient(theta))
    return replace(problem, weights=tuple(w for w, _ in layers), biases=tuple(b for _, b in layers))


def elsewhere(problem, seed=0):
    """The problem at other weights."""
    rng = np.random.default_rng([77, seed])
    weights = tuple(rng.standard_normal(w.shape) for w in problem.weights)
    return replace(
        problem,
        weights=weights,
        biases=tuple(None if b is None else rng.standard_normal(b.shape) for b in problem.biases),
    )


def by_torch(problem, name):
    """The Hessian that PyTorch gets in a format: "float32", "float64", ..."""
    import torch

    dtype = getattr(torch, name)
    X, Y, theta = (torch.tensor(array).to(dtype) for array in (problem.X, problem.Y, functions(problem)[2]))

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

    return torch.autograd.functional.hessian(loss, theta).double().numpy()


PRECISION = (
    "float32-data", "TF32-weights", "bfloat16-data", "float32-weights", "float32-inputs", "bfloat16-inputs",
    "float32-stored", "bfloat16-stored", "float16-stored", "decimals[4]", "digits[6]",
)  # fmt: skip
DIFFERENCES = ("forward[1e-5]", "backward[1e-4]", "central[1e-5]", "symmetric[1e-6]", "loss[1e-3]")
TIMES = ("stale", "step-ahead", "trajectory[0]")


class Made(NamedTuple):
    """A matrix that went wrong, the problem that is asked about, and the one at whose weights it was taken."""

    matrix: np.ndarray
    asked: corruptions.UserProblem
    theirs: corruptions.UserProblem


def made(problem, names):
    """Return the matrix that these names say."""
    special = [name for name in names if name in PRECISION + DIFFERENCES + TIMES]
    plain = [name for name in names if name not in special]
    if not special:
        return Made(corruptions.corrupted(problem, plain), problem, problem)
    (name,) = special
    asked = theirs = problem
    if name == "trajectory[0]":
        theirs = elsewhere(problem)
    elif name == "stale":
        asked = stepped(problem)
    elif name == "step-ahead":
        theirs = stepped(problem)
    if name in TIMES:
        return Made(corruptions.corrupted(theirs, plain), asked, theirs)
    if name in DIFFERENCES:
        changed, factor = problem, 1.0
        for key in plain:
            data, weights = corruptions.changed_data(changed, key), corruptions.changed_weights(changed, key)
            if data is not None:
                ((factor, changed),) = data
            changed = changed if weights is None else weights
            if key.startswith("scale["):
                factor = corruptions.factor(problem, key)
        matrix = by_differences(changed, name, factor)
        index = corruptions.order_index(problem, problem.names, plain)
        return Made(matrix[np.ix_(index, index)], problem, problem)
    if name.split("-")[-1] in ("data", "weights", "inputs"):
        return Made(corruptions.corrupted(rounded_inputs(problem, name), plain), problem, problem)
    return Made(stored(corruptions.corrupted(problem, plain), name), problem, problem)


def expected(names):
    """The names that `explain` has for these."""
    return ["finite-differences" if name in DIFFERENCES else name for name in names]
