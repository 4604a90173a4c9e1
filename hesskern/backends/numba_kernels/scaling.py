"""Powers of two between weights, data and Hessian, where squares of them would overflow or vanish.

As in `hesskern.curvature.scaled_product`: weights and data are scaled to order one, and the Hessian of that problem is
multiplied by ``2**powers`` from both sides.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.layout import BIAS, PAD, WIDTH, Layout


@jit
def _exponent(numbers: Array, first: int, count: int) -> int:
    largest = 0.0
    for k in range(first, first + count):
        largest = max(largest, abs(np.float64(numbers[k])))
    return math.frexp(largest)[1] if largest > 0 else 0


@jit
def scaled(layout: Layout, flat: Array, X: Array) -> tuple[int, int, NDArray[np.int64]]:
    """Scale the parameters (P,) in place; return the powers to divide X and Y by, and the powers of the Hessian.

    Return zeros and an empty array if everything is of moderate size already.
    """
    limit = 40 if flat.itemsize == 4 else 330
    largest = 0.0
    for n in range(X.shape[0]):
        for a in range(X.shape[1]):
            largest = max(largest, abs(np.float64(X[n, a])))
    x = math.frexp(largest)[1] if largest > 0 else 0
    total, at = abs(x), 0
    for l in range(1, len(layout)):
        count = layout[l, WIDTH] * layout[l - 1, WIDTH]
        total += abs(_exponent(flat, at, count))
        at += count + layout[l, WIDTH] * layout[l, BIAS]
    if total <= limit:
        return 0, 0, np.zeros(0, np.int64)
    x = max(x, 0) if layout[0, BIAS] else x
    powers, reached, at = np.zeros(len(flat), np.int64), x, 0
    for l in range(1, len(layout)):
        count, biases = layout[l, WIDTH] * layout[l - 1, WIDTH], layout[l, WIDTH] * layout[l, BIAS]
        after = reached + _exponent(flat, at, count)
        if biases > 0:
            after = max(after, _exponent(flat, at + count, biases))
        for k in range(at, at + count + biases):
            powers[k] = after - reached if k < at + count else after
            flat[k] = math.ldexp(np.float64(flat[k]), -powers[k])
        reached, at = after, at + count + biases
    for k in range(len(powers)):
        powers[k] = reached - powers[k]
    return x, reached, powers


@jit
def scale_samples(layout: Layout, memory: Array, x: int, y: int, samples: int, of_x: int, of_y: int) -> None:
    """Divide the samples at `x` and `y` by powers of two."""
    for n in range(samples):
        for a in range(layout[0, WIDTH]):
            k = x + n * layout[0, PAD] + a
            memory[k] = math.ldexp(np.float64(memory[k]), -of_x)
        for c in range(layout[-1, WIDTH]):
            k = y + n * layout[-1, PAD] + c
            memory[k] = math.ldexp(np.float64(memory[k]), -of_y)


@jit
def multiplied(powers: NDArray[np.int64], vectors: Array) -> Array:
    """Return the rows of flat (P, k) vectors times ``2**powers``."""
    products = np.empty_like(vectors)
    columns = len(vectors) // len(powers)
    for k in range(len(vectors)):
        products[k] = math.ldexp(np.float64(vectors[k]), powers[k // columns])
    return products


@jit
def multiply_entries(matrix: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
    """Multiply entries by ``2**(rows + columns)``, in place."""
    for r in range(len(rows)):
        for c in range(len(columns)):
            matrix[r, c] = math.ldexp(np.float64(matrix[r, c]), rows[r] + columns[c])
