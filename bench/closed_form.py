"""Hessian products by the definition in NumPy: the reference of the curvature tasks, and a peer of theirs.

The gradient ``D_l.T Z_{l-1}`` differentiated once in a direction, through all samples as they are (Pearlmutter 1994).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from bench.problems import Array, Size


class ClosedForm:
    """Products with the Hessian of ``‖E‖²/2``; what does not depend on the vector is kept."""

    def __init__(self, X: Array, Y: Array, weights: Sequence[Array]) -> None:
        self.weights = weights
        self.activations = [X]
        for weight in weights:
            self.activations.append(self.activations[-1] @ weight.T)
        self.deltas = [self.activations.pop() - Y]
        for weight in weights[:0:-1]:
            self.deltas.insert(0, self.deltas[0] @ weight)
        ends = list(accumulate((weight.size for weight in weights), initial=0))
        self.parts = [slice(start, stop) for start, stop in pairwise(ends)]
        self.size = ends[-1]

    def product(self, V: Array) -> Array:
        """Return ``H V`` for a (P,) or (P, k) array."""
        columns = V.reshape(self.size, -1)
        directions = [
            np.ascontiguousarray(columns[part].T).reshape(-1, *weight.shape)
            for part, weight in zip(self.parts, self.weights, strict=True)
        ]
        # Forward: the derivative of each layer's input; zero for the first.
        moved: list[Array | None] = [None]
        for weight, direction, into in zip(self.weights, directions, self.activations, strict=True):
            output = into @ direction.transpose(0, 2, 1)
            if moved[-1] is not None:
                output += moved[-1] @ weight.T
            moved.append(output)
        last = moved[-1]
        assert last is not None
        change: Array = last
        out = np.empty_like(columns)
        for layer in reversed(range(len(self.weights))):
            product = change.transpose(0, 2, 1) @ self.activations[layer]
            before = moved[layer]
            if before is not None:
                product += self.deltas[layer].T @ before
            out[self.parts[layer]] = product.reshape(len(product), -1).T
            if layer > 0:
                change = change @ self.weights[layer] + self.deltas[layer] @ directions[layer]
        return out.reshape(V.shape)

    def matrix(self) -> Array:
        """Return the dense Hessian, some columns at a time."""
        out = np.empty((self.size, self.size))
        for start in range(0, self.size, 200):
            columns = slice(start, min(start + 200, self.size))
            unit = np.zeros((self.size, columns.stop - start))
            unit[range(start, columns.stop), range(columns.stop - start)] = 1.0
            out[:, columns] = self.product(unit)
        return out


def qr_reduced(X: Array, Y: Array) -> tuple[Array, Array]:
    """Return data of at most i rows with the same Hessian."""
    if len(X) <= X.shape[1]:
        return X, Y
    Q, R = np.linalg.qr(X)
    return R, Q.T @ Y


def product_multiply_adds(size: Size) -> float:
    """Return the multiply-adds of a Hessian-vector product on reduced data, all that is fixed being there.

    The cheaper of two orders: layer by layer with ``min(N, i)`` rows, or (two layers) by products of weights.
    """
    m = size.widths
    rows = min(size.samples, m[0])
    layers = [a * b for a, b in pairwise(m)]
    # Two products a layer in each of three passes: forward, backward, gradients. The input and its delta do not move.
    by_layers = rows * (6 * sum(layers) - (4 * layers[0] if len(layers) > 1 else 5 * layers[0]))
    if len(layers) != 2:
        return float(by_layers)
    inputs, hidden, outputs = m
    return float(min(by_layers, 6 * inputs * hidden * outputs + rows * inputs * outputs))
