"""Plain loops for two layers, compiled by Numba: no BLAS, no library call, every sum written out.

The hidden units lie along the last axis of both weights (`first` is ``W_1.T``), so that the inner loops run over
neighbours in memory and are vectorised; `fastmath` lets sums be vectorised too. Compilation is left out of every time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.loops import Loop, Trained
from bench.problems import Array, flat


def by_layers(  # noqa: PLR0912  every sum written out
    X: Array, Y: Array, first: Array, second: Array, rate: float, work: tuple[Array, ...]
) -> float:
    """Take a step layer by layer and return the loss before it."""
    hidden, delta, first_gradient, second_gradient = work
    (inputs, width), outputs, loss = first.shape, len(second), 0.0
    first_gradient[:] = 0.0
    second_gradient[:] = 0.0
    for n in range(len(X)):
        for k in range(width):
            hidden[k] = 0.0
            delta[k] = 0.0
        for a in range(inputs):
            for k in range(width):
                hidden[k] += X[n, a] * first[a, k]
        for c in range(outputs):
            error = -Y[n, c]
            for k in range(width):
                error += second[c, k] * hidden[k]
            loss += error * error
            for k in range(width):
                delta[k] += error * second[c, k]
                second_gradient[c, k] += error * hidden[k]
        for a in range(inputs):
            for k in range(width):
                first_gradient[a, k] += X[n, a] * delta[k]
    for a in range(inputs):
        for k in range(width):
            first[a, k] -= rate * first_gradient[a, k]
    for c in range(outputs):
        for k in range(width):
            second[c, k] -= rate * second_gradient[c, k]
    return 0.5 * loss


def by_product(  # noqa: PLR0912  every sum written out
    X: Array, Y: Array, first: Array, second: Array, rate: float, work: tuple[Array, ...]
) -> float:
    """Take a step by the product of the weights and return the loss before it."""
    P, G, first_gradient, second_gradient = work
    (inputs, width), outputs, loss = first.shape, len(second), 0.0
    for c in range(outputs):
        for a in range(inputs):
            entry = 0.0
            for k in range(width):
                entry += second[c, k] * first[a, k]
            P[c, a] = entry
            G[c, a] = 0.0
    for n in range(len(X)):
        for c in range(outputs):
            error = -Y[n, c]
            for a in range(inputs):
                error += X[n, a] * P[c, a]
            loss += error * error
            for a in range(inputs):
                G[c, a] += error * X[n, a]
    first_gradient[:] = 0.0
    second_gradient[:] = 0.0
    for c in range(outputs):
        for a in range(inputs):
            entry = G[c, a]
            for k in range(width):
                first_gradient[a, k] += entry * second[c, k]
                second_gradient[c, k] += entry * first[a, k]
    for a in range(inputs):
        for k in range(width):
            first[a, k] -= rate * first_gradient[a, k]
    for c in range(outputs):
        for k in range(width):
            second[c, k] -= rate * second_gradient[c, k]
    return 0.5 * loss


def workspace(start: Sequence[Array], *, product: bool) -> tuple[Array, ...]:
    """Return the arrays a step needs."""
    (width, inputs), outputs = start[0].shape, len(start[1])
    two = (np.empty((outputs, inputs)), np.empty((outputs, inputs))) if product else (np.empty(width), np.empty(width))
    return *two, np.empty((inputs, width)), np.empty((outputs, width))


@functools.cache
def compiled_step(numba: Any, *, product: bool) -> Any:
    """Return a compiled step, for loops that Numba compiles around it."""
    return numba.njit(fastmath=True)(by_product if product else by_layers)


@functools.cache
def _loop(numba: Any, *, product: bool) -> Callable[..., int]:
    step = compiled_step(numba, product=product)

    @numba.njit  # type: ignore[untyped-decorator]
    def loop(
        X: Array, Y: Array, first: Array, second: Array, rate: float, rtol: float, losses: Array, work: Any
    ) -> int:
        for k in range(len(losses)):
            losses[k] = step(X, Y, first, second, rate, work)
            if losses[k] <= rtol * losses[0]:
                return k + 1
        return len(losses)

    return loop  # type: ignore[no-any-return]


def train(
    numba: Any,
    X: Array,
    Y: Array,
    start: Sequence[Array],
    rate: float,
    steps: int,
    rtol: float = -1.0,
    *,
    product: bool = True,
) -> Loop:
    """Return the loop of so many steps, or to a loss of `rtol` times the first."""
    loop, work = _loop(numba, product=product), workspace(start, product=product)
    losses = np.empty(steps)

    def run() -> Trained:
        first, second = start[0].T.copy(), start[1].copy()
        taken = loop(X, Y, first, second, rate, rtol, losses, work)
        return Trained(taken, flat([first.T, second]))

    loop(X, Y, start[0].T.copy(), start[1].copy(), rate, 2.0, losses, work)
    return run
