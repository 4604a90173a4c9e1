"""Trainings for tests: shapes, methods and stable learning rates, and the same trainings by PyTorch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
import oracle
import problems
import pytest

import hesskern as hk

#: widths, samples, layers with a bias
SHAPES = {
    "one layer": ([4, 3], 7, [0]),
    "two layers": ([4, 6, 3], 9, []),
    "wide": ([3, 20, 2], 8, []),
    "wide with biases": ([3, 20, 2], 8, [0, 1]),
    "bias above": ([2, 9, 3, 2], 10, [1, 2]),
    "deep": ([3, 9, 4, 13, 2], 11, [0, 3]),
    "few samples": ([6, 5, 4], 3, []),
}
#: 3 does not divide the number of samples of most shapes
METHODS = {
    "plain": {},
    "heavy ball": {"momentum": 0.9},
    "Nesterov": {"momentum": 0.7, "nesterov": True},
    "minibatches": {"batch_size": 3, "seed": 5},
    "minibatches in order": {"batch_size": 2, "shuffle": False, "momentum": 0.5},
    "everything": {"batch_size": 3, "seed": 7, "momentum": 0.8, "nesterov": True},
}
#: Networks of an ensemble.
COUNT = 5


def with_biases(problem: problems.Problem, layers: Iterable[int]) -> problems.Problem:
    """Leave the biases of these layers only."""
    kept = set(layers)
    return dataclasses.replace(problem, biases=[b if k in kept else None for k, b in enumerate(problem.biases)])


@functools.cache
def training(shape: str, number: int = 0) -> problems.Problem:
    """Return the problem of a shape; its number chooses kind and weight decay."""
    widths, samples, biased = SHAPES[shape]
    kind, decay = problems.KINDS[number % 3], (0.0, 0.05)[number // 3 % 2]
    problem = problems.normal(widths, samples, 70 + number, bias=True, kind=kind, weight_decay=decay)
    return with_biases(problem, biased)


def sharpness(problem: problems.Problem) -> float:
    """Return the largest eigenvalue at the start."""
    return float(np.linalg.eigvalsh(oracle.hessian(oracle.flatten(problem.weights, problem.biases), problem))[-1])


@functools.cache
def rate(shape: str, number: int = 0) -> float:
    """Return a learning rate at which all of `METHODS` are stable."""
    return 0.15 / sharpness(training(shape, number))


PAIRS = [
    pytest.param(shape, method, (2 * s + m) % 6, id=f"{shape}, {method}")
    for s, shape in enumerate(SHAPES)
    for m, method in enumerate(METHODS)
]


def by_torch(problem: problems.Problem, lr: object, steps: int, **method: object) -> oracle.Trajectory:
    """Train by ``nn.Linear``, ``nn.MSELoss`` and ``torch.optim.SGD``."""
    torch = pytest.importorskip("torch")
    X, Y = torch.tensor(problem.X), torch.tensor(problem.Y)
    linears = [
        torch.nn.Linear(w.shape[1], w.shape[0], bias=b is not None, dtype=X.dtype)
        for w, b in zip(problem.weights, problem.biases, strict=True)
    ]
    model = torch.nn.Sequential(*linears)
    with torch.no_grad():
        for linear, weight, bias in zip(linears, problem.weights, problem.biases, strict=True):
            linear.weight.copy_(torch.tensor(weight))
            if bias is not None:
                linear.bias.copy_(torch.tensor(bias))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1.0, weight_decay=problem.weight_decay,
        momentum=method.get("momentum", 0.0), nesterov=method.get("nesterov", False),
    )  # fmt: skip
    criterion = torch.nn.MSELoss(reduction="mean" if problem.kind == "mean" else "sum")
    factor = 0.5 if problem.kind == "half_sum" else 1.0

    def flat():
        return torch.cat([p.detach().ravel() for p in model.parameters()]).numpy()

    def decay():
        return 0.5 * problem.weight_decay * float(np.sum(flat() ** 2))

    thetas, losses, batch_losses = [flat()], [], []
    order = oracle.batches(len(X), method.get("batch_size"), shuffle=method.get("shuffle", True),
                           seed=method.get("seed", 0))  # fmt: skip
    for step, rows in zip(range(steps), order, strict=False):
        optimizer.param_groups[0]["lr"] = lr(step) if callable(lr) else lr
        optimizer.zero_grad()
        value = factor * criterion(model(X[rows]), Y[rows])
        value.backward()
        batch_losses.append(value.item() + decay())
        with torch.no_grad():
            losses.append(factor * criterion(model(X), Y).item() + decay())
        optimizer.step()
        thetas.append(flat())
    with torch.no_grad():
        losses.append(factor * criterion(model(X), Y).item() + decay())
    return oracle.Trajectory(np.array(thetas), np.array(losses), np.array(batch_losses))


@functools.cache
def of_torch(shape: str, method: str, number: int, steps: int) -> oracle.Trajectory:
    """Return what PyTorch does; several backends ask for it."""
    return by_torch(training(shape, number), rate(shape, number), steps, **METHODS[method])


@functools.cache
def of_oracle(shape: str, method: str, number: int, steps: int) -> oracle.Trajectory:
    """Return what the plain loop does; several backends ask for it."""
    return oracle.train(training(shape, number), rate(shape, number), steps, **METHODS[method])


def starts(
    problem: problems.Problem, count: int = COUNT, dtype: str = "float64", spread: float = 0.3
) -> list[hk.LinearNetwork]:
    """Return networks around the one of a problem."""
    theta = oracle.flatten(problem.weights, problem.biases)
    rng = np.random.default_rng(count)
    net = problem.network(dtype)
    return [net.unflatten((theta + spread * rng.standard_normal(len(theta))).astype(dtype)) for _ in range(count)]


def same(found: hk.Run | hk.Ensemble, expected: hk.Run | hk.Ensemble) -> None:
    """Compare two runs, or two ensembles, to the bit."""
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_array_equal(found.steps, expected.steps)
    assert list(found.history) == list(expected.history)
    for name, values in expected.history.items():
        np.testing.assert_array_equal(found.history[name], values, err_msg=name)
        assert found.history[name].dtype == values.dtype
    assert found.reduction == expected.reduction
    networks = [found.network, expected.network] if hasattr(found, "network") else None
    if networks and isinstance(networks[0], hk.LinearNetwork):
        np.testing.assert_array_equal(networks[0].flatten(), networks[1].flatten())
    else:
        for weight, wanted in zip(found.weights, expected.weights, strict=True):
            np.testing.assert_array_equal(weight, wanted)
        for bias, wanted in zip(found.biases, expected.biases, strict=True):
            assert (bias is None) == (wanted is None)
            if bias is not None:
                np.testing.assert_array_equal(bias, wanted)
