"""Predictions, losses, gradients and Hessians for jitted code; the same functions work from Python.

Arguments that all functions share:

- `weights`: tuple or ``numba.typed.List`` of arrays (out, in), the ``nn.Linear.weight`` of each layer
- `X` (N, i), `Y` (N, o): samples in **rows**
- `biases`: None; or a tuple of arrays (out,) and None; or a typed list of arrays (out,), empty for a layer without a
  bias
- `kind`: `HALF_SUM` (``‖E‖²/2``), `SUM` (``‖E‖²``) or `MEAN` (``‖E‖²/(N·o)``) of the residual ``E = prediction - Y``
- `weight_decay`: adds ``weight_decay/2 ‖θ‖²``

All arrays and the result have one dtype, float32 or float64. Vectors of parameters are in `named_parameters()` order:
each weight row by row, then its bias. Shapes that do not fit raise ValueError, types that do not fit
``numba.TypingError``; numbers are not checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels import passes
from hesskern.backends.numba_kernels.compile import jit, jit_inlined
from hesskern.backends.numba_kernels.dense import dense
from hesskern.backends.numba_kernels.hessian_product import hessian_times, prepared
from hesskern.backends.numba_kernels.layout import Layout, number_of_parameters
from hesskern.backends.numba_kernels.passes import predictions
from hesskern.backends.numba_kernels.scaling import multiplied, multiply_entries, scaled
from hesskern.numba._parameters import check_targets, flatten, layout_of

HALF_SUM, SUM, MEAN = range(3)


@jit
def scale_of(kind: int, samples: int, outputs: int) -> float:
    """Return the factor of the half-sum loss."""
    if kind == 0:
        return 1.0
    if kind == 1:
        return 2.0
    if kind == 2:
        return 2.0 / (samples * outputs)
    raise ValueError("kind is not one of HALF_SUM, SUM, MEAN (0, 1, 2)")


@jit_inlined
def _layout(weights: Any, biases: Any, X: Array, Y: Array) -> Layout:
    layout = layout_of(weights, biases, X)
    check_targets(layout, weights, X, Y)
    return layout


@jit
def forward(weights: Any, X: Array, biases: Any = None) -> Array:
    """Return the predictions (N, o). O(N·Σ m_l·m_{l-1}), or O(N·i·o) if the weights are multiplied first.

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> nb.forward((np.array([[1.0, 2.0]]), np.array([[3.0]])), np.array([[1.0, 1.0]]))
    array([[9.]])
    """
    return predictions(layout_of(weights, biases, X), flatten(weights, biases), X)


@jit
def _decayed(flat: Array, decay: float) -> float:
    total = 0.0
    if decay != 0:
        for value in flat:
            total += np.float64(value) * np.float64(value)
    return 0.5 * decay * total


@jit
def loss(weights: Any, X: Array, Y: Array, biases: Any = None, kind: int = HALF_SUM,
         weight_decay: float = 0.0) -> float:  # fmt: skip
    """Return the loss, computed from the residual.

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> nb.loss((np.array([[1.0, 2.0]]), np.array([[3.0]])), np.array([[1.0, 1.0]]), np.array([[8.0]]))
    0.5
    """
    layout, flat, scale = _layout(weights, biases, X, Y), flatten(weights, biases), scale_of(kind, len(X), Y.shape[1])
    squared = passes.value_and_gradient(layout, flat, X, np.empty(0, X.dtype), Y, scale, False)[0]
    return 0.5 * scale * squared + _decayed(flat, weight_decay)


@jit_inlined
def _value_and_gradient(weights: Any, X: Array, Y: Array, biases: Any, kind: int,
                        weight_decay: float) -> tuple[float, Array]:  # fmt: skip
    layout, flat, scale = _layout(weights, biases, X, Y), flatten(weights, biases), scale_of(kind, len(X), Y.shape[1])
    squared, slope = passes.value_and_gradient(layout, flat, X, np.empty(0, X.dtype), Y, scale, True)
    value = 0.5 * scale * squared + _decayed(flat, weight_decay)
    if weight_decay != 0:
        slope += X.dtype.type(weight_decay) * flat
    return value, slope


@jit
def value_and_gradient(weights: Any, X: Array, Y: Array, biases: Any = None, kind: int = HALF_SUM,
                       weight_decay: float = 0.0) -> tuple[float, Array]:  # fmt: skip
    """Return the loss and its gradient (P,), at the cost of the gradient.

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> nb.value_and_gradient((np.array([[1.0, 2.0]]), np.array([[3.0]])), np.array([[1.0, 1.0]]), np.array([[8.0]]))
    (0.5, array([3., 3., 3.]))
    """
    return _value_and_gradient(weights, X, Y, biases, kind, weight_decay)


@jit
def gradient(weights: Any, X: Array, Y: Array, biases: Any = None, kind: int = HALF_SUM,
             weight_decay: float = 0.0) -> Array:  # fmt: skip
    """Return the gradient (P,); `assign` and `flatten` convert between vectors and weights.

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> nb.gradient((np.array([[1.0, 2.0]]), np.array([[3.0]])), np.array([[1.0, 1.0]]), np.array([[8.0]]))
    array([3., 3., 3.])
    """
    return _value_and_gradient(weights, X, Y, biases, kind, weight_decay)[1]


@jit
def hvp(weights: Any, X: Array, Y: Array, v: Array, biases: Any = None, kind: int = HALF_SUM,
        weight_decay: float = 0.0, gauss_newton: bool = True, functional: bool = True) -> Array:  # fmt: skip
    """Return the product of the Hessian with v, (P,) or (P, k), without the matrix.

    ``H = gauss_newton + functional + weight_decay I``; False omits a part. It costs a few passes. For many vectors at
    the same network and data, pass them as the columns of `v`.

    Raises
    ------
    ValueError
        If v does not have P rows, or another dtype.

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> weights, X, Y = (np.array([[1.0, 2.0]]), np.array([[3.0]])), np.array([[1.0, 1.0]]), np.array([[8.0]])
    >>> nb.hvp(weights, X, Y, np.array([1.0, 0.0, 0.0]))
    array([ 9.,  9., 10.])
    """
    layout, scale = _layout(weights, biases, X, Y), scale_of(kind, len(X), Y.shape[1])
    parameters = flatten(weights, biases)
    of_x, of_y, powers = scaled(layout, parameters, X)
    memory, product = prepared(layout, parameters, X, np.empty(0, X.dtype), Y, scale, of_x, of_y)
    size = number_of_parameters(layout)
    if v.itemsize != X.itemsize:
        raise ValueError("v has another dtype: expected the dtype of the weights and data")
    if len(v) != size:
        raise ValueError("v has the wrong length: expected one row for each parameter")
    flat = np.ascontiguousarray(v).reshape(-1)
    out = np.empty(len(flat), X.dtype)
    if len(powers) == 0:
        hessian_times(memory, layout, len(X), product, scale, weight_decay, gauss_newton, functional, flat,
                      len(flat) // size, out)  # fmt: skip
        return out.reshape(v.shape)
    hessian_times(memory, layout, len(X), product, scale, 0.0, gauss_newton, functional, multiplied(powers, flat),
                  len(flat) // size, out)  # fmt: skip
    out = multiplied(powers, out)
    for k in range(len(out)):
        out[k] += X.dtype.type(weight_decay) * flat[k]
    return out.reshape(v.shape)


@jit
def _dense(layout: Layout, flat: Array, X: Array, Y: Array, scale: float, weight_decay: float, gauss_newton: bool,
           functional: bool, first: int, last: int, left: int, right: int) -> Array:  # fmt: skip
    """Return a block of the Hessian: rows of the layers `first` to `last` - 1, columns of `left` to `right` - 1."""
    of_x, of_y, powers = scaled(layout, flat, X)
    memory, product = prepared(layout, flat, X, np.empty(0, X.dtype), Y, scale, of_x, of_y)
    if len(powers) == 0:
        return dense(memory, layout, len(X), product, scale, weight_decay, gauss_newton, functional, first, last, left,
                     right)  # fmt: skip
    out = dense(memory, layout, len(X), product, scale, 0.0, gauss_newton, functional, first, last, left, right)
    # The first row and column among all parameters: the number of parameters of the layers before.
    top, start = number_of_parameters(layout[:first]), number_of_parameters(layout[:left])
    multiply_entries(out, powers[top : top + len(out)], powers[start : start + out.shape[1]])
    if weight_decay != 0 and first == left and last == right:
        for k in range(len(out)):
            out[k, k] += X.dtype.type(weight_decay)
    return out


@jit
def block_hessian(weights: Any, X: Array, Y: Array, row: int, column: int, biases: Any = None, kind: int = HALF_SUM,
                  weight_decay: float = 0.0, gauss_newton: bool = True,
                  functional: bool = True) -> Array:  # fmt: skip
    """Return the dense block of the Hessian: rows for the parameters of layer `row`, columns for layer `column`.

    Layers are counted from 0. Every entry is written once, O(size of the block).

    Raises
    ------
    ValueError
        If there is no such layer.

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> weights, X, Y = (np.array([[1.0, 2.0]]), np.array([[3.0]])), np.array([[1.0, 1.0]]), np.array([[8.0]])
    >>> nb.block_hessian(weights, X, Y, 0, 1)
    array([[10.],
           [10.]])
    """
    if not (0 <= row < len(weights) and 0 <= column < len(weights)):
        raise ValueError("row or column is not a layer: expected numbers from 0 to the number of layers - 1")
    layout, scale = _layout(weights, biases, X, Y), scale_of(kind, len(X), Y.shape[1])
    return _dense(layout, flatten(weights, biases), X, Y, scale, weight_decay, gauss_newton, functional, row + 1,
                  row + 2, column + 1, column + 2)  # fmt: skip


@jit
def full_hessian(weights: Any, X: Array, Y: Array, biases: Any = None, kind: int = HALF_SUM,
                 weight_decay: float = 0.0, gauss_newton: bool = True,
                 functional: bool = True) -> Array:  # fmt: skip
    """Return the dense Hessian (P, P). Every entry is written once, O(P²).

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> weights, X, Y = (np.array([[1.0, 2.0]]), np.array([[3.0]])), np.array([[1.0, 1.0]]), np.array([[8.0]])
    >>> nb.full_hessian(weights, X, Y)
    array([[ 9.,  9., 10.],
           [ 9.,  9., 10.],
           [10., 10.,  9.]])
    """
    layout, scale = _layout(weights, biases, X, Y), scale_of(kind, len(X), Y.shape[1])
    return _dense(layout, flatten(weights, biases), X, Y, scale, weight_decay, gauss_newton, functional, 1,
                  len(layout), 1, len(layout))  # fmt: skip
