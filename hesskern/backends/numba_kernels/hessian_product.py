"""Products with the Hessian: the gradient ``Z_{l-1}.T D_l`` differentiated once in a direction.

With the direction ``(V_1 ... V_L)`` in the network's layout, ``Z'_l = Z'_{l-1} T_l + Z_{l-1} V_l`` forward,
``D'_{l-1} = D'_l T_l.T + D_l V_l.T`` back from ``D'_L = S Z'_L``, and the product is ``Z_{l-1}.T D'_l + Z'_{l-1}.T
D_l``. The terms with D_l are the functional part, the others the Gauss-Newton part. S is ``scale Z_0.T Z_0`` in the
product form, else ``scale``. Nothing is done for each sample where there are more samples than inputs.
"""

from __future__ import annotations

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.layout import BIAS, PAD, STACK, START, WIDTH, Layout, pack, pack_samples, unpack
from hesskern.backends.numba_kernels.memory import Places, make_memory, places, rows_of_product
from hesskern.backends.numba_kernels.passes import (
    activation,
    backward,
    clear_constant,
    delta,
    forward,
    product_is_cheaper,
    subtract,
)
from hesskern.backends.numba_kernels.products import multiply, multiply_turned
from hesskern.backends.numba_kernels.scaling import scale_samples


@jit
def prepare(memory: Array, layout: Layout, at: Places, theta: int, x: int, y: int, samples: int, product: bool,
            scale: float) -> None:  # fmt: skip
    """Compute Z, D and S at these weights on these samples."""
    depth, pad, outputs = len(layout) - 1, layout[0, PAD], layout[-1, PAD]
    rows = rows_of_product(layout) if product else samples
    forward(memory, layout, theta, x, rows, product, at.z)
    seed = delta(layout, at.below, rows, product, at.d, depth)
    if product:
        multiply(memory, rows, pad, samples, scale, x, 1, pad, x, pad, False, at.gram, pad)
        end = activation(layout, theta, x, rows, True, at.z, depth)
        multiply(memory, samples, outputs, rows, 1.0, x, pad, 1, end, outputs, False, at.residual, outputs)
        subtract(memory, at.residual, y, samples * outputs, 1.0, at.residual)
        multiply(memory, rows, outputs, samples, scale, x, 1, pad, at.residual, outputs, False, seed, outputs)
    else:
        subtract(memory, at.z + rows * layout[depth, STACK], y, samples * outputs, scale, seed)
    backward(memory, layout, at, theta, at.below, x, rows, product, False)


@jit
def hessian_product(memory: Array, layout: Layout, at: Places, theta: int, x: int, rows: int, product: bool,
                    scale: float, gauss_newton: bool, functional: bool, v: int, image: int) -> None:  # fmt: skip
    """image = scale (the parts asked for) v, in the network's layout."""
    depth, bias = len(layout) - 1, layout[0, BIAS]
    for l in range(2 if product else 1, depth + 1):
        inner, pad, below = layout[l - 1, WIDTH] + bias, layout[l, PAD], layout[l - 1, PAD]
        moved = at.moved + rows * layout[l, STACK]
        if l > 1:
            source = activation(layout, v, x, rows, product, at.moved, l - 1)
            multiply(memory, rows, pad, inner, 1.0, source, below, 1, theta + layout[l, START], pad, False, moved, pad)
        source = activation(layout, theta, x, rows, product, at.z, l - 1)
        multiply(memory, rows, pad, inner, 1.0, source, below, 1, v + layout[l, START], pad, l > 1, moved, pad)

    top, outputs = delta(layout, image, rows, product, at.change, depth), layout[depth, PAD]
    end = activation(layout, v, x, rows, product, at.moved, depth)
    if gauss_newton and product:
        multiply(memory, rows, outputs, rows, 1.0, at.gram, layout[0, PAD], 1, end, outputs, False, top, outputs)
    else:
        factor = memory.dtype.type(scale) if gauss_newton else memory.dtype.type(0)
        for k in range(rows * outputs):
            memory[top + k] = factor * memory[end + k]
    for l in range(depth, 1 if product else 0, -1):
        inner, pad, below, start = layout[l - 1, WIDTH] + bias, layout[l, PAD], layout[l - 1, PAD], layout[l, START]
        change = delta(layout, image, rows, product, at.change, l)
        source = activation(layout, theta, x, rows, product, at.z, l - 1)
        multiply(memory, inner, pad, rows, 1.0, source, 1, below, change, pad, False, image + start, pad)
        d = delta(layout, at.below, rows, product, at.d, l)
        if functional and l > 1:
            source = activation(layout, v, x, rows, product, at.moved, l - 1)
            multiply(memory, inner, pad, rows, 1.0, source, 1, below, d, pad, True, image + start, pad)
        if l > 1:
            to = delta(layout, image, rows, product, at.change, l - 1)
            multiply_turned(memory, rows, below, pad, 1.0, change, pad, theta + start, pad, False, to, below, at.turned)
            if functional:
                multiply_turned(memory, rows, below, pad, 1.0, d, pad, v + start, pad, True, to, below, at.turned)
            clear_constant(memory, layout, to, rows, l - 1)


@jit
def hessian_times(memory: Array, layout: Layout, samples: int, product: bool, scale: float, decay: float,
                  gauss_newton: bool, functional: bool, v: Array, columns: int, out: Array) -> None:  # fmt: skip
    """out = (scale (the parts asked for) + decay I) V for V and out (P, columns), both flat, after `prepare`."""
    at = places(memory, layout, samples, product, True, False, False, 0, 0)
    rows = rows_of_product(layout) if product else samples
    for column in range(columns):
        pack(layout, v, column, columns, memory, at.direction, 0.0)
        hessian_product(memory, layout, at, at.theta, at.x, rows, product, scale, gauss_newton, functional,
                        at.direction, at.image)  # fmt: skip
        unpack(layout, memory, at.image, out, column, columns)
    if decay != 0:
        factor = out.dtype.type(decay)
        for k in range(len(out)):
            out[k] += factor * v[k]


@jit
def prepared(layout: Layout, flat: Array, X: Array, ones: Array, Y: Array, scale: float, of_x: int,
             of_y: int) -> tuple[Array, bool]:  # fmt: skip
    """Return a memory for products with the Hessian at these parameters (P,), and whether it is of the product form.

    X and Y are divided by the powers `of_x` and `of_y` of two.
    """
    product = product_is_cheaper(layout, len(X), True)
    memory = make_memory(layout, X, len(X), product, True, False, False, 0, 0)
    at = places(memory, layout, len(X), product, True, False, False, 0, 0)
    pack(layout, flat, 0, 1, memory, at.theta, 1.0)
    pack_samples(layout, X, ones, Y, memory, at.x, at.y)
    if of_x != 0 or of_y != 0:
        scale_samples(layout, memory, at.x, at.y, len(X), of_x, of_y)
    prepare(memory, layout, at, at.theta, at.x, at.y, len(X), product, scale)
    return memory, product
