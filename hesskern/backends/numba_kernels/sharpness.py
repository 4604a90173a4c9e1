r"""The largest eigenvalue of the Hessian along a trajectory, by Lanczos's method with full orthogonalisation.

Each search starts from the last eigenvector plus a random direction of a fixed size. It cannot miss a larger eigenvalue
that is far away. The approximation y is the largest Ritz vector: ``y = p(H) start`` for a polynomial p whose roots, the
other Ritz values, lie below, so that p rises from the largest Ritz value on. If y converges to a smaller eigenvalue,
its component along the larger one's eigenvector has therefore only grown since the start. With c the ratio of the two
components at the start, a missed eigenvalue further away by d leaves a residual of at least about ``c d``. So a
residual of `_TOLERANCE` shows that nothing further away than `_TOLERANCE / c` was missed; c is about 0.3 over the root
of the number of parameters.

Squares of numbers beyond 1e154, or below 1e-154, overflow or vanish: a Hessian of such a size is multiplied by a power
of two, which rounds nothing, and the eigenvalue is divided by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.hessian_product import hessian_product
from hesskern.backends.numba_kernels.layout import START, Layout
from hesskern.backends.numba_kernels.memory import Places
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES, add, load, scaled, store, times, total

#: Largest residual at convergence, relative to the largest absolute eigenvalue.
_TOLERANCE = 3e-13
#: Vectors before a restart from the best, and products before giving up.
LARGEST_SPACE, _MOST_PRODUCTS = 64, 5000
_RANDOM = 0.3


@jit
def _dot(memory: Array, a: int, b: int, count: int) -> float:
    lanes, one = VECTOR_BYTES // memory.itemsize, memory.dtype.type(1)
    sums = times(load(memory, a), load(memory, b))
    for k in range(lanes, count, lanes):
        sums = add(sums, times(load(memory, a + k), load(memory, b + k)), one)
    return np.float64(total(sums))


@jit
def _add(memory: Array, target: int, factor: float, other: int, count: int) -> None:
    lanes, scale = VECTOR_BYTES // memory.itemsize, memory.dtype.type(factor)
    for k in range(0, count, lanes):
        store(memory, target + k, add(load(memory, target + k), load(memory, other + k), scale))


@jit
def _scale(memory: Array, target: int, factor: float, source: int, count: int) -> None:
    lanes, scale = VECTOR_BYTES // memory.itemsize, memory.dtype.type(factor)
    for k in range(0, count, lanes):
        store(memory, target + k, scaled(load(memory, source + k), scale))


@jit
def _random(memory: Array, target: int, mask: int, count: int, seed: int) -> None:
    """Write numbers in (-1, 1) where the mask is 1, depending on the seed and their place only (splitmix64)."""
    state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    for k in range(count):
        state += np.uint64(0x9E3779B97F4A7C15)
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        memory[target + k] = memory[mask + k] * (float(z >> np.uint64(11)) * 2.0**-52 - 1.0)


@jit
def _largest_of_tridiagonal(alpha: NDArray[np.float64], beta: NDArray[np.float64], size: int) -> float:
    """Return the largest eigenvalue: the smallest shift whose pivots are all positive, by bisection to the last bit."""
    low, high = alpha[0], alpha[0]
    for j in range(size):
        radius = (beta[j - 1] if j > 0 else 0.0) + (beta[j] if j + 1 < size else 0.0)
        low, high = max(low, alpha[j]), max(high, alpha[j] + radius)
    while True:
        middle = low + 0.5 * (high - low)
        if not low < middle < high:
            return high
        pivot = middle - alpha[0]
        for j in range(1, size):
            if not pivot > 0:
                break
            pivot = middle - alpha[j] - beta[j - 1] * beta[j - 1] / pivot
        if pivot > 0:
            high = middle
        else:
            low = middle


@jit
def _eigenvector(alpha: NDArray[np.float64], beta: NDArray[np.float64], size: int, value: float,
                 vector: NDArray[np.float64], pivots: NDArray[np.float64]) -> None:  # fmt: skip
    """Write the unit eigenvector of the largest eigenvalue, by inverse iteration above it."""
    shift = value + 4e-16 * abs(value)
    pivots[0] = max(shift - alpha[0], 1e-300)
    for j in range(1, size):
        pivots[j] = max(shift - alpha[j] - beta[j - 1] * beta[j - 1] / pivots[j - 1], 1e-16 * abs(value) + 1e-300)
    vector[:size] = 1.0
    for _ in range(3):
        for j in range(1, size):
            vector[j] += beta[j - 1] / pivots[j - 1] * vector[j - 1]
        vector[size - 1] /= pivots[size - 1]
        for j in range(size - 2, -1, -1):
            vector[j] = (vector[j] + beta[j] * vector[j + 1]) / pivots[j]
        largest = np.max(np.abs(vector[:size]))
        vector[:size] /= largest
    vector[:size] /= np.sqrt(np.sum(vector[:size] ** 2))


@jit
def _unit(memory: Array, vector: int, count: int) -> float:
    """Return a power of two that makes the largest entry moderate; 1 where it is already."""
    largest, unit = 0.0, 1.0
    for k in range(count):
        largest = max(largest, abs(float(memory[vector + k])))
    if not largest > 0 or 2.0**-256 < largest < 2.0**256:
        return unit
    while largest * unit > 1 and unit > 2.0**-960:
        unit *= 2.0**-64
    while largest * unit < 2.0**-64 and unit < 2.0**960:
        unit *= 2.0**64
    return unit


@jit
def largest_eigenvalue(memory: Array, layout: Layout, at: Places, theta: int, x: int, rows: int, product: bool,
                       scale: float, decay: float, seed: int, most: int) -> float:  # fmt: skip
    """Return the largest eigenvalue of the Hessian that `prepare` set up; NaN if the search did not converge.

    At ``at.best`` is the last eigenvector, zeros at first; the new one replaces it. At ``at.space`` is room for `most`
    vectors.
    """
    count, start, image, lanes = layout[0, START], at.space, at.image, VECTOR_BYTES // memory.itemsize
    alpha, beta, small, pivots = np.zeros(most), np.zeros(most), np.zeros(most), np.zeros(most)
    _random(memory, start, at.mask, count, seed)
    if _dot(memory, at.best, at.best, count) > 0:
        _scale(memory, start, _RANDOM / np.sqrt(_dot(memory, start, start, count)), start, count)
        _add(memory, start, 1.0, at.best, count)
    products, value, size, shift, unit = 0, np.nan, 0, memory.dtype.type(decay), 1.0
    while products < _MOST_PRODUCTS:
        _scale(memory, start, 1 / np.sqrt(_dot(memory, start, start, count)), start, count)
        size, converged = 0, False
        while size < most and not converged:
            vector = start + size * count
            hessian_product(memory, layout, at, theta, x, rows, product, scale, True, True, vector, image)
            products += 1
            for k in range(0, count, lanes):
                shifted = add(load(memory, image + k), load(memory, vector + k), shift)
                store(memory, image + k, times(shifted, load(memory, at.mask + k)))
            if products == 1:
                unit = _unit(memory, image, count)
            if unit != 1:
                _scale(memory, image, unit, image, count)
            alpha[size] = _dot(memory, vector, image, count)
            for _ in range(2):
                for j in range(size, -1, -1):
                    other = start + j * count
                    _add(memory, image, -_dot(memory, other, image, count), other, count)
            beta[size] = np.sqrt(_dot(memory, image, image, count))
            size += 1
            spread = 0.0
            for j in range(size):
                spread = max(spread, abs(alpha[j]) + beta[j])
            if not spread < np.inf:
                return np.nan
            exhausted = beta[size - 1] <= 1e-15 * spread
            if exhausted or size == most or size % 4 == 0:
                value = _largest_of_tridiagonal(alpha, beta, size)
                _eigenvector(alpha, beta, size, value, small, pivots)
                converged = exhausted or beta[size - 1] * abs(small[size - 1]) <= _TOLERANCE * spread
            if size < most and not converged:
                _scale(memory, start + size * count, 1 / beta[size - 1], image, count)
        _scale(memory, at.best, small[0], start, count)
        for j in range(1, size):
            _add(memory, at.best, small[j], start + j * count, count)
        if converged:
            return value / unit
        _scale(memory, start, 1.0, at.best, count)
    return np.nan
