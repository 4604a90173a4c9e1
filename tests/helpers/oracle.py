"""What the package is checked against: slow, exact, and sharing no line with it.

The squared residual of a linear network is a polynomial of degree two in every single parameter, so second differences
with step one *are* its second derivatives. Evaluated on integers, in integer arithmetic, they carry no error at all.
Singular values come from mpmath with hundreds of digits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

DIGITS = 220
#: Eigenvalues of a Gram matrix below this fraction of the largest are zero: the inputs are floats, so what is not zero
#: is far above, and rounding at DIGITS is far below.
ZERO = mpmath.mpf(10) ** -180


@dataclass(frozen=True)
class Exact:
    """Loss, gradient (P,) and Hessian (P, P), with the slice of each layer's parameters."""

    loss: float
    gradient: np.ndarray
    hessian: np.ndarray
    layers: tuple[slice, ...]

    def block(self, layer: int) -> np.ndarray:
        """The diagonal block of one layer."""
        return self.hessian[self.layers[layer], self.layers[layer]]


def layer_slices(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray | None]) -> tuple[slice, ...]:
    """Where each layer's weight and bias lie in the flat vector."""
    slices, at = [], 0
    for weight, bias in zip(weights, biases, strict=True):
        size = weight.size + (0 if bias is None else bias.size)
        slices.append(slice(at, at + size))
        at += size
    return tuple(slices)


def flatten(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray | None]) -> np.ndarray:
    """The parameters one after the other: weight row by row, then bias."""
    values = []
    for weight, bias in zip(weights, biases, strict=True):
        for row in weight:
            values.extend(row)
        if bias is not None:
            values.extend(bias)
    return np.array(values)


def forward(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray | None], X: np.ndarray) -> np.ndarray:
    """Predictions, one sample, one output and one input at a time."""
    rows = []
    for sample in X:
        values = list(sample)
        for weight, bias in zip(weights, biases, strict=True):
            shift = [0] * len(weight) if bias is None else bias
            values = [
                sum((w * v for w, v in zip(row, values, strict=True)), start=b)
                for row, b in zip(weight, shift, strict=True)
            ]
        rows.append(values)
    return np.array(rows)


def _squared_residuals(
    thetas: np.ndarray, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray | None], X: np.ndarray, Y: np.ndarray
) -> np.ndarray:
    """Sum of squared residuals for every row of `thetas` (flat parameters), in the integers."""
    assert thetas.dtype == X.dtype == Y.dtype == np.int64
    values = np.broadcast_to(X, (len(thetas), *X.shape))
    at = 0
    for weight, bias in zip(weights, biases, strict=True):
        batch = thetas[:, at : at + weight.size].reshape(-1, *weight.shape)
        at += weight.size
        values = np.einsum("bni,boi->bno", values, batch)
        if bias is not None:
            values = values + thetas[:, None, at : at + bias.size]
            at += bias.size
    return np.einsum("bno->b", (values - Y) ** 2)


def exact(
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray | None],
    X: np.ndarray,
    Y: np.ndarray,
    kind: str = "half_sum",
    weight_decay: float = 0.0,
) -> Exact:
    """Loss, gradient and full dense Hessian of integer problems by exact differences."""
    theta = flatten(weights, biases)
    count = len(theta)
    unit = np.eye(count, dtype=np.int64)

    def squared(thetas: np.ndarray) -> np.ndarray:
        return _squared_residuals(thetas, weights, biases, X, Y)

    here = squared(theta[None])[0]
    up, down = squared(theta + unit), squared(theta - unit)
    hessian = np.diag(up - 2 * here + down)
    j, k = np.triu_indices(count, 1)
    if len(j):
        mixed = (
            squared(theta + unit[j] + unit[k])
            - squared(theta + unit[j] - unit[k])
            - squared(theta - unit[j] + unit[k])
            + squared(theta - unit[j] - unit[k])
        )
        assert not np.any(mixed % 4)
        hessian[j, k] = hessian[k, j] = mixed // 4
    factor = {"half_sum": 0.5, "sum": 1.0, "mean": 1.0 / Y.size}[kind]
    return Exact(
        loss=float(factor * here + 0.5 * weight_decay * np.sum(theta**2)),
        gradient=factor * (up - down) / 2 + weight_decay * theta,
        hessian=factor * hessian + weight_decay * np.eye(count),
        layers=layer_slices(weights, biases),
    )


def singular_values(*factors: np.ndarray) -> list[mpmath.mpf]:
    """Nonzero singular values of the product of the factors, descending, from the exact values of the floats."""
    with mpmath.workdps(DIGITS):
        product = mpmath.matrix(factors[0].tolist())
        for factor in factors[1:]:
            product = product * mpmath.matrix(factor.tolist())
        gram = product.T * product if product.cols <= product.rows else product * product.T
        eigenvalues = sorted(mpmath.eigsy(gram, eigvals_only=True), reverse=True)
        if eigenvalues[0] <= 0:
            return []
        return [mpmath.sqrt(value) for value in eigenvalues if value > ZERO * eigenvalues[0]]


def condition(weights: Sequence[np.ndarray], X: np.ndarray, layer: int) -> tuple[mpmath.mpf, int]:
    """Condition number and rank of the block of one layer, without biases: squares of products of singular values."""
    inner = singular_values(X, *(weight.T for weight in weights[:layer]))
    outer = [mpmath.mpf(1)] * len(weights[layer])
    if layer + 1 < len(weights):
        outer = singular_values(*reversed(weights[layer + 1 :]))
    if not inner or not outer:
        return mpmath.nan, 0
    with mpmath.workdps(DIGITS):
        return (inner[0] / inner[-1] * outer[0] / outer[-1]) ** 2, len(inner) * len(outer)


def relative_error(value: float, truth: mpmath.mpf) -> float:
    """The difference in units of the truth."""
    with mpmath.workdps(DIGITS):
        return float(abs(mpmath.mpf(value) / truth - 1))


# Training


@dataclass(frozen=True)
class Trajectory:
    """Every step of a run: flat parameters and the loss over all samples, before each update and after the last."""

    thetas: np.ndarray  # (steps + 1, P)
    losses: np.ndarray  # (steps + 1,)
    batch_losses: np.ndarray  # (steps,), of the samples that the step saw

    def before(self, every: int = 1) -> np.ndarray:
        """The parameters before steps 0, every, 2 * every, ..."""
        return self.thetas[:-1:every]


def batches(samples: int, size: int | None, *, shuffle: bool = True, seed: int = 0) -> Iterator[np.ndarray]:
    """The samples of each step, without end."""
    for epoch in itertools.count():
        order = list(range(samples))
        if size is not None and shuffle:
            order = list(np.random.default_rng([seed, epoch]).permutation(samples))
        while order:
            yield np.array(order[:size])
            order = order[len(order) if size is None else size :]


def split(theta: np.ndarray, problem: Any) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Weights and biases of a flat vector: the inverse of `flatten`."""
    weights, biases, at = [], [], 0
    for weight, bias in zip(problem.weights, problem.biases, strict=True):
        weights.append(theta[at : at + weight.size].reshape(weight.shape))
        at += weight.size
        biases.append(None if bias is None else theta[at : at + bias.size])
        at += 0 if bias is None else bias.size
    return weights, biases


def loss_and_gradient(theta: np.ndarray, problem: Any, rows: Any = slice(None)) -> tuple[Any, np.ndarray]:
    """Loss and flat gradient over these samples, layer by layer; arrays of mpmath numbers do as well."""
    weights, biases = split(theta, problem)
    X, Y = problem.X[rows], problem.Y[rows]
    inputs = [X]
    for weight, bias in zip(weights, biases, strict=True):
        inputs.append(inputs[-1] @ weight.T + (0 if bias is None else bias))
    residual = inputs.pop() - Y
    half, twice = {"half_sum": (0.5, 1), "sum": (1, 2), "mean": (1 / Y.size, 2 / Y.size)}[problem.kind]
    loss = half * (residual**2).sum()
    if problem.weight_decay:
        loss = loss + problem.weight_decay / 2 * (theta**2).sum()
    delta, parts = twice * residual, []
    for weight, bias, given in zip(weights[::-1], biases[::-1], inputs[::-1], strict=True):
        if bias is not None:
            parts.append(delta.sum(0))
        parts.append((delta.T @ given).ravel())
        delta = delta @ weight
    return loss, np.concatenate(parts[::-1]) + problem.weight_decay * theta


def train(
    problem: Any,
    lr: Any,
    steps: int,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
) -> Trajectory:
    """Stochastic gradient descent as the documentation of torch.optim.SGD writes it down, dampening zero."""
    rates = [lr(step) if callable(lr) else lr for step in range(steps)] if np.ndim(lr) == 0 else list(lr)
    theta = flatten(problem.weights, problem.biases)
    velocity = 0 * theta
    thetas, losses, batch_losses = [theta], [], []
    order = batches(len(problem.X), batch_size, shuffle=shuffle, seed=seed)
    for rate, rows in zip(rates[:steps], order, strict=False):
        losses.append(loss_and_gradient(theta, problem)[0])
        value, gradient = loss_and_gradient(theta, problem, rows)
        batch_losses.append(value)
        velocity = momentum * velocity + gradient
        theta = theta - rate * (gradient + momentum * velocity if nesterov else velocity)
        thetas.append(theta)
    losses.append(loss_and_gradient(theta, problem)[0])
    return Trajectory(np.array(thetas), np.array(losses), np.array(batch_losses))


def hessian(theta: np.ndarray, problem: Any) -> np.ndarray:
    """The dense Hessian in floating point: the gradient of `loss_and_gradient`, differentiated line by line."""
    weights, biases = split(theta, problem)
    directions = [split(unit, problem) for unit in np.eye(len(theta))]
    turned = [np.array([unit[0][layer] for unit in directions]) for layer in range(len(weights))]  # (P, out, in)
    inputs, changes = [problem.X], [np.zeros((len(theta), *problem.X.shape))]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        change = changes[-1] @ weight.T + inputs[-1] @ turned[layer].transpose(0, 2, 1)
        if bias is not None:
            change = change + np.array([unit[1][layer] for unit in directions])[:, None, :]
        inputs.append(inputs[-1] @ weight.T + (0 if bias is None else bias))
        changes.append(change)
    twice = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
    delta, moved, parts = twice * (inputs.pop() - problem.Y), twice * changes.pop(), []
    for layer in reversed(range(len(weights))):
        if biases[layer] is not None:
            parts.append(moved.sum(1))
        block = moved.transpose(0, 2, 1) @ inputs[layer] + delta.T @ changes[layer]
        parts.append(block.reshape(len(theta), -1))
        delta, moved = delta @ weights[layer], moved @ weights[layer] + delta @ turned[layer]
    return np.hstack(parts[::-1]) + problem.weight_decay * np.eye(len(theta))


def balance(theta: np.ndarray, problem: Any) -> list[np.ndarray]:
    """Return ``W_{l+1}.T W_{l+1} - W_l W_l.T - b_l b_l.T`` of each hidden layer."""
    weights, biases = split(theta, problem)
    differences = []
    for weight, bias, above in zip(weights[:-1], biases[:-1], weights[1:], strict=True):
        differences.append(above.T @ above - weight @ weight.T - (0 if bias is None else np.outer(bias, bias)))
    return differences
