"""Hessians and their products by torch's autograd, each in the fastest form found for it.

The weights are given layer by layer, never as one flat vector, and results stay as torch returns them: putting blocks
together is left out of the times. `dense` and `flat_vectors` do it for the check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.problems import Array

Run = Callable[[], Any]


class Autograd:
    """A problem in tensors."""

    def __init__(self, torch: Any, X: Array, Y: Array, weights: Sequence[Array]) -> None:
        self.torch = torch
        self.x, self.y = torch.tensor(X), torch.tensor(Y)
        self.weights = tuple(torch.tensor(weight) for weight in weights)
        self.numbers = tuple(range(len(weights)))

    def loss(self, *weights: Any) -> Any:
        """Half the squared residual."""
        out = self.x
        for weight in weights:
            out = out @ weight.T
        return 0.5 * (out - self.y).square().sum()

    def graph(self) -> tuple[list[Any], tuple[Any, ...]]:
        """Return leaves and their gradients, with the graph of the gradients."""
        leaves = [weight.clone().requires_grad_() for weight in self.weights]
        return leaves, self.torch.autograd.grad(self.loss(*leaves), leaves, create_graph=True)

    def directions(self, V: Array) -> list[Any]:
        """Return the columns of V as tensors shaped like the weights; a leading axis counts the columns of a (P, k)."""
        pieces, at = [], 0
        for weight in self.weights:
            piece = self.torch.tensor(np.ascontiguousarray(V[at : at + weight.numel()].T))
            pieces.append(piece.reshape(*V.shape[1:], *weight.shape))
            at += weight.numel()
        return pieces

    # Dense ------------------------------------------------------------------------------------------------------------

    def func_hessian(self) -> Run:
        """Forward over reverse, vectorised over all parameters."""
        return lambda: self.torch.func.hessian(self.loss, argnums=self.numbers)(*self.weights)

    def chunked_hessian(self, rows: int = 256) -> Run:
        """Forward over reverse, some rows at a time: what is vectorised stays in the caches, memory is bounded."""
        func, torch = self.torch.func, self.torch
        gradient = func.grad(self.loss, argnums=self.numbers)
        sizes = [weight.numel() for weight in self.weights]

        def row(unit: Any) -> Any:
            pieces = zip(unit.split(sizes), self.weights, strict=True)
            direction = tuple(part.reshape(weight.shape) for part, weight in pieces)
            return torch.cat([part.reshape(-1) for part in func.jvp(gradient, self.weights, direction)[1]])

        many = func.vmap(row, chunk_size=rows)
        return lambda: many(torch.eye(sum(sizes), dtype=self.x.dtype))

    def compiled_hessian(self) -> Run:
        """Forward over reverse, compiled as a whole."""
        whole = self.torch.compile(self.torch.func.hessian(self.loss, argnums=self.numbers), dynamic=False)
        return lambda: whole(*self.weights)

    def functional_hessian(self) -> Run:
        """Reverse over reverse, vectorised over all parameters."""
        return lambda: self.torch.autograd.functional.hessian(self.loss, self.weights, vectorize=True)

    def row_loop(self) -> Run:
        """One backward pass for each row through the graph of the gradient."""

        def run() -> Any:
            torch = self.torch
            leaves, gradients = self.graph()
            size = sum(leaf.numel() for leaf in leaves)
            matrix, row = torch.empty(size, size, dtype=self.x.dtype), 0
            for gradient in gradients:
                units = torch.eye(gradient.numel(), dtype=gradient.dtype).reshape(-1, *gradient.shape)
                for unit in units.unbind():
                    found = torch.autograd.grad(gradient, leaves, unit, retain_graph=True, materialize_grads=True)
                    torch.cat([part.reshape(-1) for part in found], out=matrix[row])
                    row += 1
            return matrix

        return run

    # Products ---------------------------------------------------------------------------------------------------------

    def double_backward(self, V: Array) -> Run:
        """Return the second backward pass alone, from vectors that have the layers' shapes already."""
        leaves, gradients = self.graph()
        given, batched = self.directions(V), V.ndim == 2
        grad = self.torch.autograd.grad
        return lambda: grad(gradients, leaves, given, retain_graph=True, is_grads_batched=batched)

    def of_inner_product(self, v: Array) -> Run:
        """Return the gradient of ``g @ v``, g flat."""
        leaves, gradients = self.graph()
        flat = self.torch.cat([gradient.reshape(-1) for gradient in gradients])
        vector = self.torch.tensor(v)
        return lambda: self.torch.autograd.grad(flat @ vector, leaves, retain_graph=True)

    def jvp_of_grad(self, V: Array, *, compiled: bool = False) -> Run:
        """Return forward over reverse; nothing can be kept between products."""
        func, given = self.torch.func, tuple(self.directions(V))
        gradient = func.grad(self.loss, argnums=self.numbers)

        def one(*direction: Any) -> Any:
            return func.jvp(gradient, self.weights, direction)[1]

        many = func.vmap(one) if V.ndim == 2 else one
        if compiled:
            many = self.torch.compile(many, dynamic=False)
        return lambda: many(*given)


def dense(result: Any) -> Array:
    """Return a Hessian, matrix or nested blocks, as one array."""
    if not isinstance(result, tuple):
        return np.asarray(result)
    sizes = [int(np.prod(result[0][layer].shape[result[0][0].ndim // 2 :])) for layer in range(len(result))]
    return np.block(
        [
            [np.asarray(block).reshape(rows, columns) for block, columns in zip(line, sizes, strict=True)]
            for line, rows in zip(result, sizes, strict=True)
        ]
    )


def flat_vectors(result: Any, shape: tuple[int, ...]) -> Array:
    """Return a product, an array or a tuple with one tensor a layer, in the shape of the vectors."""
    if not isinstance(result, tuple):
        return np.asarray(result)
    count = shape[1] if len(shape) == 2 else 1
    columns = np.concatenate([np.asarray(part).reshape(count, -1) for part in result], axis=1).T
    return columns.reshape(shape)
