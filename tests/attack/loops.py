"""The plain training loop, in any precision: what `fit`, `fit_ensemble` and the jitted steps are judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from attack.generator import RandomProblem


@dataclass(slots=True)
class Path:
    """Parameters before every step and after the last, losses of all samples and of the batches before every step."""

    thetas: list[np.ndarray]
    losses: list[Any]
    batch_losses: list[Any]
    gradient_norms: list[Any]
    status: str


@dataclass(slots=True)
class RunPlan:
    """The arguments of a run."""

    rates: list[float]
    steps: int
    rtol: float | None = None
    batch_size: int | None = None
    shuffle: bool = True
    seed: int = 0
    momentum: float = 0.0
    nesterov: bool = False

    def arguments(self) -> dict[str, Any]:
        """The same for `fit`."""
        return {
            "lr": np.array(self.rates) if len(set(self.rates)) > 1 else self.rates[0], "max_steps": self.steps,
            "rtol": self.rtol, "batch_size": self.batch_size, "shuffle": self.shuffle, "seed": self.seed,
            "momentum": self.momentum, "nesterov": self.nesterov,
        }  # fmt: skip


def flat(problem: RandomProblem, dtype: Any) -> np.ndarray:
    """Return all parameters in this precision."""
    pieces = []
    for weight, bias in zip(problem.weights, problem.biases, strict=True):
        pieces += [weight.ravel()] if bias is None else [weight.ravel(), bias]
    return np.concatenate(pieces).astype(dtype)


def split(problem: RandomProblem, theta: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Return views of the vector: weights and biases."""
    weights, biases, at = [], [], 0
    for weight, bias in zip(problem.weights, problem.biases, strict=True):
        weights.append(theta[at : at + weight.size].reshape(weight.shape))
        at += weight.size
        biases.append(None if bias is None else theta[at : at + bias.size])
        at += 0 if bias is None else bias.size
    return weights, biases


def loss_and_gradient(
    problem: RandomProblem, theta: np.ndarray, X: np.ndarray, Y: np.ndarray
) -> tuple[Any, np.ndarray]:
    """Return the loss over these samples and its gradient, weight decay included."""
    weights, biases = split(problem, theta)
    inputs = [X]
    for weight, bias in zip(weights, biases, strict=True):
        following = inputs[-1] @ weight.T
        inputs.append(following if bias is None else following + bias)
    residual = inputs.pop() - Y
    kind = theta.dtype.type
    scale = kind({"half_sum": 1, "sum": 2, "mean": 2}[problem.kind]) / kind(Y.size if problem.kind == "mean" else 1)
    decay = kind(problem.weight_decay)
    value = scale / 2 * (residual**2).sum() + decay / 2 * (theta**2).sum()
    back, pieces = scale * residual, []
    for weight, bias, given in zip(weights[::-1], biases[::-1], inputs[::-1], strict=True):
        if bias is not None:
            pieces.append(back.sum(0))
        pieces.append((back.T @ given).ravel())
        back = back @ weight
    return value, np.concatenate(pieces[::-1]) + decay * theta


def path(problem: RandomProblem, plan: RunPlan, dtype: Any) -> Path:
    """Train as the documentation says: v = m v + g; theta -= lr v, or lr (g + m v)."""
    X, Y = problem.X.astype(dtype), problem.Y.astype(dtype)
    theta = flat(problem, dtype)
    kind, velocity = theta.dtype.type, np.zeros_like(theta)
    found = Path([theta], [], [], [], "max_steps")
    order: list[int] = []
    epoch = 0
    for step in range(plan.steps):
        value, gradient = loss_and_gradient(problem, theta, X, Y)
        found.gradient_norms.append(np.sqrt((gradient**2).sum()))
        if not np.isfinite(value):
            found.status = "diverged"
            break
        found.losses.append(value)
        if plan.batch_size is not None:
            if not order:
                order = list(range(len(X)))
                if plan.shuffle:
                    order = list(np.random.default_rng([plan.seed, epoch]).permutation(len(X)))
                epoch += 1
            batch, order = order[: plan.batch_size], order[plan.batch_size :]
            value_of_batch, gradient = loss_and_gradient(problem, theta, X[batch], Y[batch])
            found.batch_losses.append(value_of_batch)
        velocity = kind(plan.momentum) * velocity + gradient
        moved = gradient + kind(plan.momentum) * velocity if plan.nesterov else velocity
        theta = theta - kind(plan.rates[step]) * moved
        found.thetas.append(theta)
        if plan.rtol is not None and value <= plan.rtol * found.losses[0]:
            found.status = "converged"
            break
    return found
