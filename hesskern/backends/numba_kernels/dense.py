"""The small matrices that the dense Hessian is assembled from, jitted; see `hesskern.curvature.layer_factors`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.assembly import (
    BIASED,
    FUNCTIONAL,
    INNER,
    INNER_STRIDE,
    OUTER,
    OUTER_STRIDE,
    B,
    U,
    V,
    W,
    assemble,
)
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.layout import BIAS, PAD, START, WIDTH, Layout
from hesskern.backends.numba_kernels.memory import Places, places, rows_of_product
from hesskern.backends.numba_kernels.passes import activation, delta
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES


@jit
def _matrix(memory: Array, start: int, rows: int, stride: int, columns: int) -> Array:
    """Return a copy of a matrix in padded rows."""
    matrix = np.empty((rows, columns), memory.dtype)
    for r in range(rows):
        for c in range(columns):
            matrix[r, c] = memory[start + r * stride + c]
    return matrix


@jit
def _times(left: Array, right: Array) -> Array:
    product = np.zeros((left.shape[0], right.shape[1]), left.dtype)
    for i in range(left.shape[0]):
        for k in range(left.shape[1]):
            for j in range(right.shape[1]):
                product[i, j] += left[i, k] * right[k, j]
    return product


@jit
def _turned_times(left: Array, right: Array) -> Array:
    """Return ``left.T @ right``."""
    product = np.zeros((left.shape[1], right.shape[1]), left.dtype)
    for k in range(left.shape[0]):
        for i in range(left.shape[1]):
            for j in range(right.shape[1]):
                product[i, j] += left[k, i] * right[k, j]
    return product


@jit
def _identity(size: int, like: Array) -> Array:
    identity = np.zeros((size, size), like.dtype)
    for k in range(size):
        identity[k, k] = 1
    return identity


@jit
def _inputs(memory: Array, layout: Layout, at: Places, rows: int, product: bool, l: int) -> Array:
    """Return ``[Z_{l-1} 1]`` (rows, m_{l-1} [+1])."""
    if l == 1 and product:
        return _identity(rows, memory)
    start = activation(layout, at.theta, at.x, rows, product, at.z, l - 1)
    return _matrix(memory, start, rows, layout[l - 1, PAD], layout[l - 1, WIDTH] + layout[0, BIAS])


@jit
def _weight(memory: Array, layout: Layout, at: Places, l: int) -> Array:
    """Return W_l (m_l, m_{l-1})."""
    weight = np.empty((layout[l, WIDTH], layout[l - 1, WIDTH]), memory.dtype)
    for r in range(layout[l, WIDTH]):
        for a in range(layout[l - 1, WIDTH]):
            weight[r, a] = memory[at.theta + layout[l, START] + a * layout[l, PAD] + r]
    return weight


@jit
def _above(memory: Array, layout: Layout, at: Places, l: int) -> Array:
    """Return ``W_L ... W_{l+1}`` (o, m_l), the identity for the last layer."""
    depth = len(layout) - 1
    product = _identity(layout[depth, WIDTH], memory)
    for k in range(depth, l, -1):
        product = _times(product, _weight(memory, layout, at, k))
    return product


@jit
def _between(memory: Array, layout: Layout, at: Places, lower: int, upper: int) -> Array:
    """Return ``W_{upper-1} ... W_{lower+1}`` (m_{upper-1}, m_lower), with a row of zeros for a constant input."""
    product = _identity(layout[lower, WIDTH], memory)
    for k in range(lower + 1, upper):
        product = _times(_weight(memory, layout, at, k), product)
    padded = np.zeros((len(product) + layout[0, BIAS], product.shape[1]), memory.dtype)
    padded[: len(product)] = product
    return padded


@jit
def _copy(matrix: Array, turned: bool, factors: Array, at: int) -> int:
    """Copy a matrix, or its transpose, row by row; return where it ends."""
    rows, columns = matrix.shape
    for r in range(rows):
        for c in range(columns):
            factors[at + (c * rows + r if turned else r * columns + c)] = matrix[r, c]
    return at + rows * columns


@jit
def _write_block(memory: Array, layout: Layout, at: Places, rows: int, product: bool, scale: float, m: int, l: int,
                 gauss_newton: bool, functional: bool, factors: Array, end: int,
                 block: NDArray[np.int64]) -> int:  # fmt: skip
    """Write U, V, B and W of the rows of layer m and the columns of layer l; return where they end."""
    upper, lower, turned = max(m, l), min(m, l), m < l
    outer = _turned_times(_above(memory, layout, at, upper), _above(memory, layout, at, lower))
    if not gauss_newton:
        outer[:] = 0
    left, right = _inputs(memory, layout, at, rows, product, upper), _inputs(memory, layout, at, rows, product, lower)
    if product:
        right = _times(_matrix(memory, at.gram, rows, layout[0, PAD], rows), right)  # has the scale in it
    else:
        right *= memory.dtype.type(scale)
    inner = _turned_times(left, right)
    if m == l:  # symmetric to the bit
        for s in range(len(inner)):
            for q in range(s):
                inner[q, s] = inner[s, q]
    block[OUTER_STRIDE], block[INNER_STRIDE] = layout[l, WIDTH], layout[l - 1, WIDTH] + layout[0, BIAS]
    block[U] = end
    block[V] = _copy(outer, turned, factors, block[U])
    end = _copy(inner, turned, factors, block[V])
    block[FUNCTIONAL] = 1 if functional and m != l else 0
    if block[FUNCTIONAL]:
        between = _between(memory, layout, at, lower, upper)
        d = _matrix(memory, delta(layout, at.below, rows, product, at.d, upper), rows, layout[upper, PAD],
                    layout[upper, WIDTH])  # fmt: skip
        residual = _turned_times(d, _inputs(memory, layout, at, rows, product, lower))
        # B[s,p] W[r,q] for m > l; transposed, rows and columns change places, and with them B and W.
        block[B] = end
        block[W] = _copy(residual if turned else between, turned, factors, block[B])
        end = _copy(between if turned else residual, turned, factors, block[W])
    return end


@jit
def dense(memory: Array, layout: Layout, samples: int, product: bool, scale: float, decay: float, gauss_newton: bool,
          functional: bool, first: int, last: int, left: int, right: int) -> Array:  # fmt: skip
    """Return the Hessian of the rows of the layers from `first` to before `last`, the columns from `left` to `right`.

    `memory` comes from `prepared`. Layers are counted from 1.
    """
    at = places(memory, layout, samples, product, True, False, False, 0, 0)
    rows = rows_of_product(layout) if product else samples
    sides = np.zeros((len(layout) - 1, 3), np.int64)
    size = 0
    for l in range(1, len(layout)):
        sides[l - 1, OUTER], sides[l - 1, INNER] = layout[l, WIDTH], layout[l - 1, WIDTH]
        sides[l - 1, BIASED] = layout[l, BIAS]
    for m in range(first, last):
        for l in range(left, right):
            inner = (layout[m - 1, WIDTH] + 1) * (layout[l - 1, WIDTH] + 1)
            outer = layout[m, WIDTH] * layout[l, WIDTH]
            size += outer + inner + (layout[m, WIDTH] + layout[m - 1, WIDTH] + 1) * (
                layout[l, WIDTH] + layout[l - 1, WIDTH] + 1)  # fmt: skip
    factors = np.zeros(size + VECTOR_BYTES // memory.itemsize, memory.dtype)
    blocks = np.zeros((last - first, right - left, 7), np.int64)
    end = 0
    for m in range(first, last):
        for l in range(left, right):
            end = _write_block(memory, layout, at, rows, product, scale, m, l, gauss_newton, functional, factors, end,
                               blocks[m - first, l - left])  # fmt: skip
    row_sides, column_sides = sides[first - 1 : last - 1], sides[left - 1 : right - 1]
    height, width = 0, 0
    for side in row_sides:
        height += side[OUTER] * (side[INNER] + side[BIASED])
    for side in column_sides:
        width += side[OUTER] * (side[INNER] + side[BIASED])
    out = np.empty((height, width), memory.dtype)
    assemble(row_sides, column_sides, blocks, factors, 0, height, out.reshape(-1))
    if decay != 0 and first == left and last == right:
        for k in range(height):
            out[k, k] += memory.dtype.type(decay)
    return out
