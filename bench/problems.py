"""Networks, data and references that several tasks share. Nothing here comes from hesskern."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

#: Relative error allowed: rounding of sums of a few thousand terms, with room for another order of summation.
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


@dataclass(frozen=True)
class Size:
    """One rung of a ladder."""

    samples: int
    widths: tuple[int, ...]
    dtype: str = "float64"

    @property
    def label(self) -> str:
        """How a table calls it."""
        short = "" if self.dtype == "float64" else f", {self.dtype}"
        return f"N = {self.samples}, {'-'.join(map(str, self.widths))}{short}"

    @property
    def reduced(self) -> Size:
        """At most i samples, and no hidden layer wider than its two neighbours together: the same training."""
        m = self.widths  # of two neighbours at most one is too wide, and the other stays as it is when that one is cut
        hidden = [min(m[k], m[k - 1] + m[k + 1]) for k in range(1, len(m) - 1)]
        return replace(self, samples=min(self.samples, m[0]), widths=(m[0], *hidden, m[-1]))

    def draw(self) -> tuple[Array, Array, list[Array]]:
        """Return X, Y and weights of variance 1/in, always the same ones."""
        rng = np.random.default_rng(20240)
        dtype = np.dtype(self.dtype)
        X = rng.standard_normal((self.samples, self.widths[0])).astype(dtype)
        Y = rng.standard_normal((self.samples, self.widths[-1])).astype(dtype)
        weights = [
            (rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)).astype(dtype)
            for inputs, outputs in pairwise(self.widths)
        ]
        return X, Y, weights


#: Where passes take memory.
WIDE = Size(1000, (64, 256, 256, 10))
#: From overhead to arithmetic: the case's size, many samples, wide layers, depth, single precision.
VARIED = (
    Size(5, (5, 100, 5)),
    Size(100, (20, 200, 20)),
    Size(1000, (20, 200, 20)),
    Size(1000, (20, 200, 20), "float32"),
    Size(256, (128, 128, 128)),
    WIDE,
    replace(WIDE, dtype="float32"),
)
SMALLEST_SINGLE = (Size(3, (4, 6, 2), "float32"),)


def relative_error(result: Array, reference: Array) -> float:
    """Return ``max|result - reference| / max|reference|``, a few rows at a time; infinite where shapes differ."""
    if result.shape != reference.shape:
        return float("inf")
    pieces = [slice(start, start + 256) for start in range(0, len(reference), 256)]
    # numpy.max, not max: it lets no NaN pass.
    worst = np.max([np.max(np.abs(np.asarray(result[rows], np.float64) - reference[rows])) for rows in pieces])
    return float(worst / np.max(np.abs(reference))) if np.isfinite(worst) else float("inf")


def error_against(reference: Array) -> Callable[[Any], float]:
    """Return the check of an array (or torch tensor) against a reference."""
    return lambda result: relative_error(np.asarray(result), reference)


def loss_and_gradients(X: Array, Y: Array, weights: Sequence[Array]) -> tuple[float, list[Array]]:
    """Return ``‖E‖²/2`` and each layer's gradient, by the chain rule through the layers."""
    activations = [X]
    for weight in weights:
        activations.append(activations[-1] @ weight.T)
    delta = activations[-1] - Y
    loss = 0.5 * float(np.vdot(delta, delta))
    gradients: list[Array] = []
    for layer in reversed(range(len(weights))):
        gradients.append(delta.T @ activations[layer])
        if layer > 0:
            delta = delta @ weights[layer]
    return loss, gradients[::-1]


def product_loss_and_gradients(X: Array, Y: Array, weights: Sequence[Array]) -> tuple[float, list[Array]]:
    """Return the same for two layers by the product of the weights: far less work where there are many samples."""
    first, second = weights
    E = X @ (second @ first).T - Y
    G = E.T @ X
    return 0.5 * float(np.vdot(E, E)), [second.T @ G, G @ first.T]


def flat(arrays: Sequence[Array]) -> Array:
    """Return all arrays as one vector."""
    return np.concatenate([array.ravel() for array in arrays])


def forward_multiply_adds(size: Size) -> float:
    """Return the multiply-adds of a prediction in the best order of the chain ``X W_1.T ... W_L.T``."""
    edges = (size.samples, *size.widths)
    count = len(edges) - 1
    best = [[0] * count for _ in range(count)]
    for length in range(2, count + 1):
        for first in range(count - length + 1):
            last = first + length - 1
            best[first][last] = min(
                best[first][cut] + best[cut + 1][last] + edges[first] * edges[cut + 1] * edges[last + 1]
                for cut in range(first, last)
            )
    return float(best[0][-1])


def gradient_multiply_adds(size: Size) -> float:
    """Return the multiply-adds of a loss with its gradient in the cheaper order: by layers, or by the product."""
    m = size.widths
    first = m[0] * m[1]
    later = sum(a * b for a, b in pairwise(m[1:]))
    layers = size.samples * (2 * first + 3 * later)
    product = 3 * m[0] * later + 2 * size.samples * m[0] * m[-1]
    return float(min(layers, product))
