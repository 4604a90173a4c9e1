"""The layout of networks in jitted code: padded, transposed, and with the biases as one more row.

Layer l is stored as ``T_l = [[W_l.T, 0], [b_l, 1]]``: activations with a last column of ones, ``[Z_{l-1} 1]``, times
T_l are ``[Z_l 1]``, so that no product needs extra code for biases. (A network without biases has no such row and
column, and the last layer has no such column.) Rows and columns are padded with zeros to whole vectors. Layers follow
one another; gradients, directions and velocities have the same layout.

A layout is an int64 array (L+1, 5): for layer l its width, its padded width, where T_l begins, whether it has a bias,
and the sum of the padded widths of the layers 1 to l-1, by which activations are found. Row 0 has the inputs' width and
padded width, the length of the whole, whether any layer has a bias, and the sum of all padded widths.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES

Layout = NDArray[np.int64]

WIDTH, PAD, START, BIAS, STACK = range(5)


@jit
def make_layout(widths: NDArray[np.int64], biases: NDArray[np.bool_], itemsize: int) -> Layout:
    """Return the layout of a network of these widths (L+1,); `biases` (L,): whether each layer has one."""
    lanes, depth = VECTOR_BYTES // itemsize, len(widths) - 1
    layout = np.zeros((depth + 1, 5), np.int64)
    layout[0, BIAS] = biases.any()
    for l in range(depth + 1):
        columns = widths[l] + (layout[0, BIAS] if l < depth else 0)
        layout[l, WIDTH] = widths[l]
        layout[l, PAD] = (columns + lanes - 1) // lanes * lanes
    for l in range(1, depth + 1):
        layout[l, BIAS] = biases[l - 1]
        layout[l, START], layout[l, STACK] = layout[0, START], layout[0, STACK]
        layout[0, START] += layout[l - 1, PAD] * layout[l, PAD]
        layout[0, STACK] += layout[l, PAD]
    return layout


@jit
def number_of_parameters(layout: Layout) -> int:
    """Return P."""
    total = 0
    for l in range(1, len(layout)):
        total += layout[l, WIDTH] * (layout[l - 1, WIDTH] + layout[l, BIAS])
    return total


@jit
def pack(layout: Layout, flat: Array, column: int, columns: int, memory: Array, start: int, constant: float) -> None:
    """Write one column of `flat` (P, columns), itself flat, at `start`; `constant` is 1 for a network, else 0."""
    at = column
    for l in range(1, len(layout)):
        inputs, width, pad, to = layout[l - 1, WIDTH], layout[l, WIDTH], layout[l, PAD], start + layout[l, START]
        for r in range(width):
            for a in range(inputs):
                memory[to + a * pad + r] = flat[at]
                at += columns
        if layout[l, BIAS]:
            for r in range(width):
                memory[to + inputs * pad + r] = flat[at]
                at += columns
        if layout[0, BIAS] and l < len(layout) - 1:
            memory[to + inputs * pad + width] = constant


@jit
def unpack(layout: Layout, memory: Array, start: int, flat: Array, column: int, columns: int) -> None:
    """Write the parameters at `start` into one column of `flat` (P, columns), itself flat."""
    at = column
    for l in range(1, len(layout)):
        inputs, width, pad, source = layout[l - 1, WIDTH], layout[l, WIDTH], layout[l, PAD], start + layout[l, START]
        for r in range(width):
            for a in range(inputs):
                flat[at] = memory[source + a * pad + r]
                at += columns
        if layout[l, BIAS]:
            for r in range(width):
                flat[at] = memory[source + inputs * pad + r]
                at += columns


@jit
def pack_mask(layout: Layout, memory: Array, start: int) -> None:
    """Write 1 for entries that are parameters and 0 for all others."""
    pack(layout, np.ones(number_of_parameters(layout), memory.dtype), 0, 1, memory, start, 0.0)


@jit
def pack_samples(layout: Layout, X: Array, ones: Array, Y: Array, memory: Array, x: int, y: int) -> None:
    """Write X (N, i) with the column that biases multiply (`ones`; ones where it is empty), and Y (N, o), in rows."""
    inputs, pad = layout[0, WIDTH], layout[0, PAD]
    for n in range(len(X)):
        for a in range(inputs):
            memory[x + n * pad + a] = X[n, a]
        if layout[0, BIAS]:
            memory[x + n * pad + inputs] = ones[n] if len(ones) else 1.0
    outputs, pad = layout[-1, WIDTH], layout[-1, PAD]
    for n in range(len(Y)):
        for c in range(outputs):
            memory[y + n * pad + c] = Y[n, c]
