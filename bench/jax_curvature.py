"""Hessians and their products by jax, compiled: forward over reverse, the way its own documentation gives.

Compilation is left out of every time: each function here has run once before it is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.jax_loops import loss_function
from bench.problems import Array, flat

Run = Callable[[], Any]


def _setting(jax: Any, X: Array, Y: Array, weights: Sequence[Array]) -> tuple[Any, Any]:
    """Return the loss of a flat vector of all weights, and that vector."""
    x, y = jax.numpy.asarray(X), jax.numpy.asarray(Y)
    loss, ends = loss_function(jax, product=False), np.cumsum([weight.size for weight in weights])[:-1]

    def of_flat(theta: Any) -> Any:
        parts = jax.numpy.split(theta, ends)
        return loss([part.reshape(weight.shape) for part, weight in zip(parts, weights, strict=True)], x, y)

    return of_flat, jax.numpy.asarray(flat(weights))


def _ready(jax: Any, compiled: Any, *arguments: Any) -> Run:
    def run() -> Any:
        return jax.block_until_ready(compiled(*arguments))

    run()
    return run


def dense(jax: Any, X: Array, Y: Array, weights: Sequence[Array]) -> Run:
    """Return ``jit(hessian)`` of the flat vector: one matrix."""
    loss, theta = _setting(jax, X, Y, weights)
    return _ready(jax, jax.jit(jax.hessian(loss)), theta)


def eigenvalues(jax: Any, X: Array, Y: Array, weights: Sequence[Array]) -> Run:
    """Return all eigenvalues of it, in one compiled function."""
    loss, theta = _setting(jax, X, Y, weights)
    hessian = jax.hessian(loss)
    return _ready(jax, jax.jit(lambda theta: jax.numpy.linalg.eigvalsh(hessian(theta))), theta)


def product(jax: Any, X: Array, Y: Array, weights: Sequence[Array], V: Array) -> Run:
    """Return the product with a vector, or vectorised with the columns of a matrix."""
    loss, theta = _setting(jax, X, Y, weights)
    gradient = jax.grad(loss)

    def one(theta: Any, v: Any) -> Any:
        return jax.jvp(gradient, (theta,), (v,))[1]

    many = jax.vmap(one, in_axes=(None, 1), out_axes=1) if V.ndim == 2 else one
    return _ready(jax, jax.jit(many), theta, jax.numpy.asarray(V))


def value_and_gradient(jax: Any, X: Array, Y: Array, weights: Sequence[Array]) -> Run:
    """Return loss and gradient, one flat vector."""
    loss, theta = _setting(jax, X, Y, weights)
    return _ready(jax, jax.jit(jax.value_and_grad(loss)), theta)


def forward(jax: Any, X: Array, weights: Sequence[Array]) -> Run:
    """Return the predictions, through the layers."""
    arrays = [jax.numpy.asarray(array) for array in (X, *weights)]

    def through(x: Any, *weights: Any) -> Any:
        for weight in weights:
            x = x @ weight.T
        return x

    return _ready(jax, jax.jit(through), *arrays)
