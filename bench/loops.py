"""Loops of full-batch gradient descent in NumPy and torch: what `fit` is compared with.

Two orders of the products: layer by layer, as a model is written, ``(X W_1.T) W_2.T``; and for two layers by the
product, ``X (W_2 W_1).T``, whose gradients are ``W_2.T G`` and ``G W_1.T`` with ``G = E.T X``. The second is the best
association of all the products for every shape the tasks have. Every loop keeps the loss of each step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.problems import Array, flat, loss_and_gradients, product_loss_and_gradients, relative_error


class Trained(NamedTuple):
    """How many steps were taken, and the weights they led to, flat."""

    steps: int
    weights: Any


Loop = Callable[[], Trained]


def stable_rate(X: Array, weights: Sequence[Array]) -> float:
    """Return a learning rate far enough below 2 / lambda_max that nothing diverges."""
    gain = float(np.linalg.norm(X, 2)) ** 2
    for weight in weights:
        gain *= max(1.0, float(np.linalg.norm(weight, 2)) ** 2)
    return 0.2 / gain


def trajectory(X: Array, Y: Array, start: Sequence[Array], rate: float, stops: Sequence[int]) -> dict[int, Array]:
    """Return the weights after each of `stops` steps, in float64: the reference of the checks."""
    X, Y, *weights = (np.asarray(array, np.float64) for array in (X, Y, *start))
    cheaper = product_loss_and_gradients if len(weights) == 2 else loss_and_gradients
    found = {}
    for step in range(1, max(stops) + 1):
        _, gradients = cheaper(X, Y, weights)
        weights = [weight - rate * gradient for weight, gradient in zip(weights, gradients, strict=True)]
        if step in stops:
            found[step] = flat(weights)
    return found


def error_of_change(start: Sequence[Array], exact: Callable[[], dict[int, Array]]) -> Callable[[Any], float]:
    """Return the check of a `Trained`: relative to what the steps changed.

    Relative to the weights, a wrong gradient would be hidden behind a small rate. The reference is computed when the
    first result is checked: a process that only measures memory does without.
    """
    reference = functools.cache(exact)
    before = flat([np.asarray(weight, np.float64) for weight in start])

    def error(result: Any) -> float:
        steps, weights = result
        return relative_error(np.asarray(weights, np.float64) - before, reference()[steps] - before)

    return error


class NumpyLoop:
    """Layer by layer, with every product into an array that is there."""

    def __init__(self, X: Array, Y: Array, weights: Sequence[Array], rate: float) -> None:
        self.X, self.Y, self.start, self.rate = X, Y, weights, rate
        self.activations = [np.empty((len(X), len(weight)), X.dtype) for weight in weights]
        self.deltas = [np.empty((len(X), weight.shape[1]), X.dtype) for weight in weights]
        self.gradients = [np.empty_like(weight) for weight in weights]

    def run(self, steps: int) -> Trained:
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
        return Trained(steps, flat(weights))


def numpy_product(X: Array, Y: Array, start: Sequence[Array], rate: float, steps: int) -> Loop:
    """Return the loop of two layers by the product, in place; samples and hidden units along the last axes."""
    Xt, Yt, (width, inputs), outputs = X.T.copy(), Y.T.copy(), start[0].shape, len(start[1])
    P, G, E = np.empty((outputs, inputs), X.dtype), np.empty((outputs, inputs), X.dtype), np.empty_like(Yt)
    first_gradient, second_gradient = np.empty((inputs, width), X.dtype), np.empty((outputs, width), X.dtype)

    def run() -> Trained:
        first, second = start[0].T.copy(), start[1].copy()
        losses = np.empty(steps)
        for step in range(steps):
            np.matmul(second, first.T, out=P)
            np.matmul(P, Xt, out=E)
            np.subtract(E, Yt, out=E)
            losses[step] = 0.5 * np.vdot(E, E)
            np.matmul(E, Xt.T, out=G)
            np.multiply(G, rate, out=G)
            np.matmul(G.T, second, out=first_gradient)
            np.matmul(G, first, out=second_gradient)
            np.subtract(first, first_gradient, out=first)
            np.subtract(second, second_gradient, out=second)
        return Trained(steps, flat([first.T, second]))

    return run


def torch_flat(torch: Any, tensors: Any) -> Any:
    """Return tensors as one vector without a graph."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def torch_module(torch: Any, start: Sequence[Array]) -> Any:
    """Return `nn.Linear` layers without bias, with the given weights."""
    layers = [
        torch.nn.utils.skip_init(torch.nn.Linear, *weight.shape[::-1], bias=False, dtype=torch.tensor(weight[:0]).dtype)
        for weight in start
    ]
    net = torch.nn.Sequential(*layers)
    set_weights(torch, net, [torch.tensor(weight) for weight in start])
    return net


def set_weights(torch: Any, net: Any, initial: Sequence[Any]) -> None:
    """Put a module back to where it began."""
    with torch.no_grad():
        for parameter, tensor in zip(net.parameters(), initial, strict=True):
            parameter.copy_(tensor)


def torch_eager(
    torch: Any, X: Array, Y: Array, start: Sequence[Array], rate: float, steps: int, device: str = "cpu"
) -> Loop:
    """Return the usual loop: nn.Linear, autograd and optim.SGD."""
    x, y, *initial = (torch.tensor(array, device=device) for array in (X, Y, *start))
    net = torch_module(torch, start).to(device)

    def run() -> Trained:
        set_weights(torch, net, initial)
        optimizer = torch.optim.SGD(net.parameters(), lr=rate)
        losses = torch.empty(steps, device=device)
        for step in range(steps):
            optimizer.zero_grad()
            loss = 0.5 * torch.nn.functional.mse_loss(net(x), y, reduction="sum")
            loss.backward()
            optimizer.step()
            losses[step] = loss.detach()
        return Trained(steps, torch_flat(torch, net.parameters()))

    return run


def torch_gradients(torch: Any, x: Any, y: Any, weights: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Return loss and gradients by the chain rule through the layers, as tensors."""
    activations = [x]
    for weight in weights:
        activations.append(activations[-1] @ weight.T)
    delta = activations.pop() - y
    value, gradients = 0.5 * delta.square().sum(), []
    for layer in reversed(range(len(weights))):
        gradients.append(delta.T @ activations[layer])
        if layer > 0:
            delta = delta @ weights[layer]
    return value, gradients[::-1]


def torch_compiled(torch: Any, X: Array, Y: Array, start: Sequence[Array], rate: float, steps: int) -> Loop:
    """Return the loop of a compiled step: gradients by hand and the update in one graph, in place."""
    x, y, *initial = (torch.tensor(array) for array in (X, Y, *start))

    def step(weights: list[Any]) -> Any:
        value, gradients = torch_gradients(torch, x, y, weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.sub_(gradient, alpha=rate)
        return value

    compiled = torch.compile(step, dynamic=False)

    def run() -> Trained:
        weights = [weight.clone() for weight in initial]
        with torch.no_grad():
            losses = torch.empty(steps, dtype=x.dtype)
            for k in range(steps):
                losses[k] = compiled(weights)
        return Trained(steps, torch_flat(torch, weights))

    return run


def torch_in_place(torch: Any, X: Array, Y: Array, start: Sequence[Array], rate: float, steps: int) -> Loop:
    """Return the loop layer by layer with gradients by hand, no graph, in place."""
    x, y, *initial = (torch.tensor(array) for array in (X, Y, *start))

    def run() -> Trained:
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
        return Trained(steps, torch_flat(torch, weights))

    return run


def torch_product(torch: Any, X: Array, Y: Array, start: Sequence[Array], rate: float, steps: int) -> Loop:
    """Return the loop of two layers by the product, in place; samples and hidden units along the last axes.

    In this layout the same products take up to half as long as with samples in rows.
    """
    xt, yt, *initial = (torch.tensor(np.ascontiguousarray(array)) for array in (X.T, Y.T, start[0].T, start[1]))

    def run() -> Trained:
        first, second = (weight.clone() for weight in initial)
        with torch.inference_mode():
            losses = torch.empty(steps)
            E, gradient = torch.empty_like(yt), torch.empty_like(second)
            P = torch.empty(len(yt), len(xt), dtype=xt.dtype)
            G = torch.empty_like(P)
            for step in range(steps):
                torch.mm(second, first.T, out=P)
                torch.mm(P, xt, out=E).sub_(yt)
                losses[step] = torch.linalg.vector_norm(E)
                torch.mm(E, xt.T, out=G)
                torch.mm(G, first, out=gradient)
                first.addmm_(G.T, second, alpha=-rate)
                second.add_(gradient, alpha=-rate)
        return Trained(steps, torch_flat(torch, (first.T, second)))

    return run
