"""Forward and backward through a network in the layout of `numba_kernels.layout`, in the cheaper of two forms.

Sample form: the N samples go through the layers, ``Z_l = Z_{l-1} T_l`` from ``Z_0 = [X 1]`` and back,
``D_{l-1} = D_l T_l.T`` from ``D_L = scale E``; the gradient of layer l is ``Z_{l-1}.T D_l``. Product form: the identity
goes through them instead of the samples, so that ``Z_1`` is T_1 itself and Z_L the whole map; only
``E = Z_0 Z_L - Y`` and ``D_L = scale Z_0.T E`` grow with N, and the first layer's gradient is D_1.

Rounding aside, both give the same. The loss is half the squared norm of E itself: expanded, it would cancel.

In the column of the constant D_l is zero. The product with T_l.T leaves other numbers there: derivatives with respect
to a constant, which is no parameter. They may overflow where the gradient does not, and times the zeros of that column
of T_l they would be NaN everywhere.
"""

from __future__ import annotations

import numpy as np

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.layout import BIAS, PAD, STACK, START, WIDTH, Layout, pack, pack_samples, unpack
from hesskern.backends.numba_kernels.memory import Places, chunk_of, make_memory, places, rows_of_product
from hesskern.backends.numba_kernels.products import multiply, multiply_turned
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES, add, load, scaled, store, times, total


@jit
def product_is_cheaper(layout: Layout, samples: int, backward: bool) -> bool:
    """Compare the multiply-adds of the two forms."""
    later, depth = 0.0, len(layout) - 1
    for l in range(2, depth + 1):
        later += layout[l - 1, WIDTH] * layout[l, WIDTH]
    rows, first = float(rows_of_product(layout)), float(layout[0, WIDTH] * layout[1, WIDTH])
    outside = samples * rows * layout[depth, WIDTH]
    if backward:
        return 3 * rows * later + 2 * outside < samples * (2 * first + 3 * later)
    return rows * later + outside < samples * (first + later)


@jit
def activation(layout: Layout, theta: int, x: int, rows: int, product: bool, z: int, l: int) -> int:
    """Return where Z_l begins."""
    if l == 0:
        return x
    if l == 1 and product:
        return theta + layout[1, START]
    return z + rows * layout[l, STACK]


@jit
def delta(layout: Layout, gradient: int, rows: int, product: bool, d: int, l: int) -> int:
    """Return where D_l begins; D_1 of the product form is the gradient."""
    if l == 1 and product:
        return gradient + layout[1, START]
    return d + rows * layout[l, STACK]


@jit
def forward(memory: Array, layout: Layout, theta: int, x: int, rows: int, product: bool, z: int) -> None:
    """Compute Z_1 ... Z_L."""
    for l in range(2 if product else 1, len(layout)):
        source = activation(layout, theta, x, rows, product, z, l - 1)
        multiply(memory, rows, layout[l, PAD], layout[l - 1, WIDTH] + layout[0, BIAS], 1.0, source, layout[l - 1, PAD],
                 1, theta + layout[l, START], layout[l, PAD], False, z + rows * layout[l, STACK],
                 layout[l, PAD])  # fmt: skip


@jit
def clear_constant(memory: Array, layout: Layout, start: int, rows: int, l: int) -> None:
    """Write zeros into the column of the constant of D_l (rows, padded width) at `start`."""
    if layout[0, BIAS]:
        first, pad = start + layout[l, WIDTH], layout[l, PAD]
        for n in range(rows):
            memory[first + n * pad] = 0


@jit
def backward(memory: Array, layout: Layout, at: Places, theta: int, gradient: int, x: int, rows: int, product: bool,
             accumulate: bool) -> None:  # fmt: skip
    """Compute D_{L-1} ... D_1 from D_L, and the gradients on the way."""
    for l in range(len(layout) - 1, 1 if product else 0, -1):
        d, pad, below = delta(layout, gradient, rows, product, at.d, l), layout[l, PAD], layout[l - 1, PAD]
        source = activation(layout, theta, x, rows, product, at.z, l - 1)
        multiply(memory, layout[l - 1, WIDTH] + layout[0, BIAS], pad, rows, 1.0, source, 1, below, d, pad, accumulate,
                 gradient + layout[l, START], pad)  # fmt: skip
        if l > 1:
            target = delta(layout, gradient, rows, product, at.d, l - 1)
            multiply_turned(memory, rows, below, pad, 1.0, d, pad, theta + layout[l, START], pad, False, target, below,
                            at.turned)  # fmt: skip
            clear_constant(memory, layout, target, rows, l - 1)


@jit
def subtract(memory: Array, prediction: int, y: int, count: int, scale: float, target: int) -> float:
    """target = scale (prediction - y), whole vectors; return the squared norm of the difference."""
    lanes, factor, one, norm = VECTOR_BYTES // memory.itemsize, memory.dtype.type(scale), memory.dtype.type(1), 0.0
    k = 0
    while k < count:
        stop = min(count, k + 8 * lanes)  # few enough for sums of squares in single precision
        difference = add(load(memory, prediction + k), load(memory, y + k), -one)
        store(memory, target + k, scaled(difference, factor))
        squares = times(difference, difference)
        for j in range(k + lanes, stop, lanes):
            difference = add(load(memory, prediction + j), load(memory, y + j), -one)
            store(memory, target + j, scaled(difference, factor))
            squares = add(squares, times(difference, difference), one)
        norm += np.float64(total(squares))
        k = stop
    return norm


@jit
def diagonal_seed(memory: Array, layout: Layout, x: int, y: int, samples: int, end: int, scale: float, seed: int,
                  with_gradient: bool) -> float:  # fmt: skip
    """Return ``‖E‖²`` of a diagonal X and the map at `end`; `with_gradient`, write ``scale Z_0.T E`` at `seed`."""
    inputs, bias, pad, outputs = layout[0, WIDTH], layout[0, BIAS], layout[0, PAD], layout[-1, PAD]
    number, lanes, norm = memory.dtype.type, VECTOR_BYTES // memory.itemsize, 0.0
    factor, one, shift = number(scale), number(1), inputs * outputs
    if with_gradient:
        for k in range(rows_of_product(layout) * outputs):
            memory[seed + k] = 0
    for n in range(samples):
        d = memory[x + n * pad + n] if n < inputs else number(0)
        u = memory[x + n * pad + inputs] if bias else number(0)
        row, to = end + min(n, inputs - 1) * outputs, y + n * outputs
        for c in range(0, outputs, lanes):
            error = add(scaled(load(memory, row + c), d), load(memory, to + c), -one)
            if bias:
                error = add(error, load(memory, end + shift + c), u)
            norm += np.float64(total(times(error, error)))
            if with_gradient:
                if n < inputs:
                    store(memory, seed + n * outputs + c, scaled(error, d * factor))
                if bias:
                    store(memory, seed + shift + c, add(load(memory, seed + shift + c), error, u * factor))
    return norm


@jit
def squared_residual(memory: Array, layout: Layout, at: Places, theta: int, x: int, y: int, samples: int, product: bool,
                     scale: float, with_gradient: bool, diagonal: bool = False) -> float:  # fmt: skip
    """Return ``‖E‖²`` and, `with_gradient`, write the gradient of ``scale/2 ‖E‖²``; `diagonal`: X is."""
    depth, chunk, norm = len(layout) - 1, chunk_of(layout, samples), 0.0
    pad, outputs = layout[0, PAD], layout[depth, PAD]
    if product:
        rows = rows_of_product(layout)
        forward(memory, layout, theta, x, rows, True, at.z)
        end = activation(layout, theta, x, rows, True, at.z, depth)
        seed = delta(layout, at.gradient, rows, True, at.d, depth)
        if diagonal:
            norm = diagonal_seed(memory, layout, x, y, samples, end, scale, seed, with_gradient)
        for start in range(0, 0 if diagonal else samples, chunk):
            count = min(chunk, samples - start)
            multiply(memory, count, outputs, rows, 1.0, x + start * pad, pad, 1, end, outputs, False, at.residual,
                     outputs)  # fmt: skip
            norm += subtract(memory, at.residual, y + start * outputs, count * outputs, 1.0, at.residual)
            if with_gradient:
                multiply(memory, rows, outputs, count, scale, x + start * pad, 1, pad, at.residual, outputs, start > 0,
                         seed, outputs)  # fmt: skip
        if with_gradient:
            backward(memory, layout, at, theta, at.gradient, x, rows, True, False)
        return norm
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        forward(memory, layout, theta, x + start * pad, count, False, at.z)
        top = count * layout[depth, STACK]
        norm += subtract(memory, at.z + top, y + start * outputs, count * outputs, scale, at.d + top)
        if with_gradient:
            backward(memory, layout, at, theta, at.gradient, x + start * pad, count, False, start > 0)
    return norm


@jit
def value_and_gradient(layout: Layout, flat: Array, X: Array, ones: Array, Y: Array, scale: float,
                       with_gradient: bool) -> tuple[float, Array]:  # fmt: skip
    """Return ``‖E‖²`` and, `with_gradient`, the gradient (P,) of ``scale/2 ‖E‖²``; `ones` as in `pack_samples`."""
    product = product_is_cheaper(layout, len(X), with_gradient)
    memory = make_memory(layout, X, len(X), product, False, False, False, 0, 0)
    at = places(memory, layout, len(X), product, False, False, False, 0, 0)
    pack(layout, flat, 0, 1, memory, at.theta, 1.0)
    pack_samples(layout, X, ones, Y, memory, at.x, at.y)
    squared = squared_residual(memory, layout, at, at.theta, at.x, at.y, len(X), product, scale, with_gradient)
    gradient = np.empty(len(flat) if with_gradient else 0, flat.dtype)
    if with_gradient:
        unpack(layout, memory, at.gradient, gradient, 0, 1)
    return squared, gradient


@jit
def predictions(layout: Layout, flat: Array, X: Array) -> Array:
    """Return the predictions (N, o)."""
    depth, chunk, rows, samples = len(layout) - 1, chunk_of(layout, len(X)), rows_of_product(layout), len(X)
    product = product_is_cheaper(layout, samples, False)
    memory = make_memory(layout, X, samples, product, False, False, False, 0, 0)
    at = places(memory, layout, samples, product, False, False, False, 0, 0)
    out = np.empty((samples, layout[depth, WIDTH]), X.dtype)
    pack(layout, flat, 0, 1, memory, at.theta, 1.0)
    pack_samples(layout, X, np.empty(0, X.dtype), out[:0], memory, at.x, at.y)
    pad, outputs = layout[0, PAD], layout[depth, PAD]
    if product:
        forward(memory, layout, at.theta, at.x, rows, True, at.z)
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        if product:
            predicted = at.residual
            end = activation(layout, at.theta, at.x, rows, True, at.z, depth)
            multiply(
                memory, count, outputs, rows, 1.0, at.x + start * pad, pad, 1, end, outputs, False, predicted, outputs
            )
        else:
            forward(memory, layout, at.theta, at.x + start * pad, count, False, at.z)
            predicted = at.z + count * layout[depth, STACK]
        for n in range(count):
            for c in range(layout[depth, WIDTH]):
                out[start + n, c] = memory[predicted + n * outputs + c]
    return out
