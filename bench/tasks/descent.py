"""One step of full-batch gradient descent, from runs of many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import hesskern as hk
from bench import peak
from bench.peers import with_torch
from bench.problems import (
    Array,
    Size,
    flat,
    gradient_multiply_adds,
    ladder,
    loss_and_gradients,
    relative_error,
)
from bench.runner import ProblemResult
from bench.task import Contestant, Problem, Target

NAME = "descent"
SUMMARY = "A step of gradient descent: time of `fit` over the steps it takes."
SIZES = (
    Size(5, (5, 10, 5)),
    Size(5, (5, 100, 5)),
    Size(5, (5, 100, 5), "float32"),
    Size(5, (5, 1000, 5)),
    Size(5, (5, 10_000, 5)),
    Size(100, (20, 200, 20)),
    Size(1000, (20, 200, 20)),
    Size(256, (128, 128, 128)),
    Size(256, (128, 128, 128), "float32"),
    Size(100, (10, 30, 30, 30, 10)),
    Size(1000, (64, 256, 256, 10)),
)
TOLERANCE = {"float64": 1e-10, "float32": 5e-3}  # of what the steps changed, which is less than the weights


def stable_rate(X: Array, weights: Sequence[Array]) -> float:
    """Return a learning rate far enough below 2 / lambda_max that nothing diverges."""
    gain = np.linalg.norm(X, 2) ** 2
    for weight in weights:
        gain *= max(1.0, np.linalg.norm(weight, 2) ** 2)
    return float(0.2 / gain)


class NumpyLoop:
    """The loop with every product into an array that is there."""

    def __init__(self, X: Array, Y: Array, weights: Sequence[Array], rate: float) -> None:
        self.X, self.Y, self.start, self.rate = X, Y, weights, rate
        self.activations = [np.empty((len(X), len(weight)), X.dtype) for weight in weights]
        self.deltas = [np.empty((len(X), weight.shape[1]), X.dtype) for weight in weights]
        self.gradients = [np.empty_like(weight) for weight in weights]

    def run(self, steps: int) -> Array:
        """Take so many steps and return the weights, flat."""
        weights = [weight.copy() for weight in self.start]
        losses = np.empty(steps)
        for step in range(steps):
            into = self.X
            for weight, out in zip(weights, self.activations, strict=True):
                into = np.matmul(into, weight.T, out=out)
            delta = np.subtract(into, self.Y, out=into)
            losses[step] = 0.5 * np.vdot(delta, delta)
            for layer in reversed(range(len(weights))):
                np.matmul(delta.T, self.X if layer == 0 else self.activations[layer - 1], out=self.gradients[layer])
                if layer > 0:
                    delta = np.matmul(delta, weights[layer], out=self.deltas[layer])
            for weight, gradient in zip(weights, self.gradients, strict=True):
                np.multiply(gradient, self.rate, out=gradient)
                np.subtract(weight, gradient, out=weight)
        return flat(weights)


def torch_in_place(
    torch: Any, X: Array, Y: Array, start: Sequence[Array], rate: float, steps: int
) -> Callable[[], object]:
    """Return the loop with gradients by hand, no graph, in place: the least that torch's eager mode can do."""
    x, y = torch.tensor(X), torch.tensor(Y)
    initial = [torch.tensor(weight) for weight in start]

    def run() -> object:
        weights = [weight.clone() for weight in initial]
        with torch.inference_mode():
            losses = torch.empty(steps)
            for step in range(steps):
                activations = [x]
                for weight in weights:
                    activations.append(activations[-1] @ weight.T)
                delta = activations[-1].sub_(y)
                losses[step] = torch.linalg.vector_norm(delta)
                for layer in reversed(range(len(weights))):
                    below = delta @ weights[layer] if layer > 0 else None
                    weights[layer].addmm_(delta.T, activations[layer], alpha=-rate)
                    delta = below
        return torch.cat([weight.reshape(-1) for weight in weights])

    return run


def torch_eager(
    torch: Any, X: Array, Y: Array, start: Sequence[Array], rate: float, steps: int
) -> Callable[[], object]:
    """Return the usual loop: autograd and optim.SGD."""
    x, y = torch.tensor(X), torch.tensor(Y)

    def run() -> object:
        weights = [torch.tensor(weight, requires_grad=True) for weight in start]
        optimizer = torch.optim.SGD(weights, lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            out = x
            for weight in weights:
                out = torch.nn.functional.linear(out, weight)
            loss = 0.5 * torch.nn.functional.mse_loss(out, y, reduction="sum")
            loss.backward()
            optimizer.step()
        return torch.cat([weight.detach().reshape(-1) for weight in weights])

    return run


def problems(quick: bool) -> Iterator[Problem]:
    for size in ladder(quick, SIZES):
        yield _problem(size, 3 if quick else 200 if gradient_multiply_adds(size) < 5e6 else 20)


def _problem(size: Size, steps: int) -> Problem:
    X, Y, weights = size.draw()
    rate = stable_rate(X, weights)
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)

    def fit(reduce: str) -> Callable[[], Array]:
        def train() -> Array:
            return hk.fit(net, loss, lr=rate, max_steps=steps, reduce=reduce).network.flatten()

        return train

    wide = [array.astype(np.float64) for array in (X, Y, *weights)]
    moved = wide[2:]
    for _ in range(steps):
        _, gradients = loss_and_gradients(wide[0], wide[1], moved)
        moved = [weight - rate * gradient for weight, gradient in zip(moved, gradients, strict=True)]
    exact, before = flat(moved), flat(wide[2:])

    def error(result: Any) -> float:
        # Of what the steps changed, not of the weights, which would hide a wrong gradient behind a small rate.
        return relative_error(np.asarray(result, np.float64) - before, exact - before)

    loop = NumpyLoop(X, Y, weights, rate)
    reduced = size.samples > size.widths[0]
    rows = min(size.samples, size.widths[0])
    return Problem(
        label=size.label,
        contestants=[
            Contestant(
                name="hesskern",
                run=fit("auto"),
                role="ours",
                note='fit(reduce="auto"); the QR of the data is kept by the loss and not timed',
                units=steps,
            ),
            *([Contestant(name="hesskern, reduce=none", run=fit("none"), units=steps)] if reduced else []),
            Contestant(name="NumPy in place", run=lambda: loop.run(steps), note="no allocation", units=steps),
            with_torch(
                "torch in place",
                lambda torch: torch_in_place(torch, X, Y, weights, rate, steps),
                note="gradients by hand, inference mode",
                units=steps,
            ),
            with_torch(
                "torch",
                lambda torch: torch_eager(torch, X, Y, weights, rate, steps),
                note="autograd, optim.SGD",
                units=steps,
            ),
            peak.floor(gradient_multiply_adds(Size(rows, size.widths)), size.dtype),
        ],
        error=error,
        tolerance=TOLERANCE[size.dtype],
        targets=[
            Target(contestant="hesskern", kind="faster", bound=1, than="NumPy in place"),
            Target(contestant="hesskern", kind="faster", bound=1, than="torch in place"),
        ],
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
