"""Loops of gradient descent compiled by jax: the loss as it is written, `value_and_grad`, `jit` around the whole loop.

Compilation is left out of every time: each function here runs a step of what it returns before it returns it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.loops import Loop, Trained
from bench.problems import Array, flat


def loss_function(jax: Any, *, product: bool) -> Any:
    """Return ``‖E‖²/2``, predicted layer by layer or by the product of the weights."""

    def loss(weights: Sequence[Any], x: Any, y: Any) -> Any:
        if product:
            out = x @ functools.reduce(lambda below, weight: weight @ below, weights).T
        else:
            out = x
            for weight in weights:
                out = out @ weight.T
        return 0.5 * jax.numpy.sum((out - y) ** 2)

    return loss


def updated(weights: Sequence[Any], gradients: Sequence[Any], rate: Any) -> list[Any]:
    return [weight - rate * gradient for weight, gradient in zip(weights, gradients, strict=True)]


@functools.cache
def _fixed(jax: Any, product: bool, size: int) -> Any:
    """Return the compiled loop of a number of steps given when it runs; `size` losses have room."""
    value_and_grad = jax.value_and_grad(loss_function(jax, product=product))

    def train(weights: Any, x: Any, y: Any, rate: Any, steps: Any) -> Any:
        def step(k: Any, carry: Any) -> Any:
            weights, losses = carry
            value, gradients = value_and_grad(weights, x, y)
            return updated(weights, gradients, rate), losses.at[k].set(value)

        return jax.lax.fori_loop(0, steps, step, (weights, jax.numpy.zeros(size, x.dtype)))

    return jax.jit(train)


@functools.cache
def _until(jax: Any, product: bool) -> Any:
    """Return the compiled loop to a relative loss."""
    value_and_grad = jax.value_and_grad(loss_function(jax, product=product))

    def train(weights: Any, x: Any, y: Any, rate: Any, rtol: Any) -> Any:
        def going(carry: Any) -> Any:
            _, steps, first, last = carry
            return (steps == 0) | (last > rtol * first)

        def step(carry: Any) -> Any:
            weights, steps, first, _ = carry
            value, gradients = value_and_grad(weights, x, y)
            return updated(weights, gradients, rate), steps + 1, jax.numpy.where(steps == 0, value, first), value

        return jax.lax.while_loop(going, step, (weights, 0, 0.0, 0.0))[:2]

    return jax.jit(train)


def train(
    jax: Any, X: Array, Y: Array, start: Sequence[Array], rate: float, steps: int, *, product: bool = False
) -> Loop:
    """Return the loop of so many steps."""
    arguments = ([jax.numpy.asarray(weight) for weight in start], jax.numpy.asarray(X), jax.numpy.asarray(Y), rate)
    loop = _fixed(jax, product, steps)
    jax.block_until_ready(loop(*arguments, 1))

    def run() -> Trained:
        weights, _ = loop(*arguments, steps)
        return Trained(steps, flat([np.asarray(weight) for weight in weights]))

    return run


def train_until(
    jax: Any, X: Array, Y: Array, start: Sequence[Array], rate: float, rtol: float, *, product: bool = False
) -> Loop:
    """Return the loop to a loss of `rtol` times the first."""
    arguments = ([jax.numpy.asarray(weight) for weight in start], jax.numpy.asarray(X), jax.numpy.asarray(Y), rate)
    loop = _until(jax, product)
    jax.block_until_ready(loop(*arguments, 2.0))

    def run() -> Trained:
        weights, steps = loop(*arguments, rtol)
        return Trained(int(steps), flat([np.asarray(weight) for weight in weights]))

    return run
