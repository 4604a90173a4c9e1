"""Weights and biases of jitted code, to and from one flat vector.

Weights are a tuple or a ``numba.typed.List`` of arrays (out, in). Biases are None, or a tuple of arrays (out,) and
None, or a typed list, in which an empty array means no bias. Tuples are processed by their types, one entry after the
other, so they may mix None and arrays, or memory layouts.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import overload
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.layout import WIDTH, Layout, make_layout

#: Not strict: the implementations may have other annotations than the stubs.
_overload = functools.partial(overload, jit_options={"nogil": True, "error_model": "numpy"}, strict=False)


def _describe(weights: Any, biases: Any, widths: Any, flags: Any, l: Any) -> Any:
    """Write the widths from layer l on, and which layers have biases."""


def _write(weights: Any, biases: Any, flat: Any, offset: Any) -> Any:
    """Write the parameters into a flat vector from `offset` on."""


def _read(flat: Any, offset: Any, weights: Any, biases: Any) -> Any:
    """Write a flat vector from `offset` on into the parameters."""


def _upper_biases(biases: Any) -> Any:
    """Return the biases after the first layer's."""


@_overload(_upper_biases)
def _upper_biases_of(biases: Any) -> Any:
    if isinstance(biases, types.BaseTuple):
        return lambda biases: biases[1:]
    return lambda biases: None


def _describe_bias(biases: Any, l: Any) -> Any:
    """Return the number of biases of a layer, 0 for none."""


@_overload(_describe_bias)
def _describe_bias_of(biases: Any, l: Any) -> Any:
    if isinstance(biases, types.NoneType | types.Omitted):
        return lambda biases, l: 0
    if isinstance(biases, types.BaseTuple):
        if isinstance(biases.types[0], types.NoneType):
            return lambda biases, l: 0
        return lambda biases, l: len(biases[0])
    return lambda biases, l: len(biases[l])


def _write_bias(biases: Any, l: Any, flat: Any, offset: Any) -> Any:
    """Write the biases of a layer and return the offset of the next parameter."""


@_overload(_write_bias)
def _write_bias_of(biases: Any, l: Any, flat: Any, offset: Any) -> Any:
    if isinstance(biases, types.NoneType | types.Omitted):
        return lambda biases, l, flat, offset: offset
    if isinstance(biases, types.BaseTuple):
        if isinstance(biases.types[0], types.NoneType):
            return lambda biases, l, flat, offset: offset
        return lambda biases, l, flat, offset: _write_vector(biases[0], flat, offset)
    return lambda biases, l, flat, offset: _write_vector(biases[l], flat, offset)


def _read_bias(flat: Any, offset: Any, biases: Any, l: Any) -> Any:
    """Read the biases of a layer and return the offset of the next parameter."""


@_overload(_read_bias)
def _read_bias_of(flat: Any, offset: Any, biases: Any, l: Any) -> Any:
    if isinstance(biases, types.NoneType | types.Omitted):
        return lambda flat, offset, biases, l: offset
    if isinstance(biases, types.BaseTuple):
        if isinstance(biases.types[0], types.NoneType):
            return lambda flat, offset, biases, l: offset
        return lambda flat, offset, biases, l: _read_vector(flat, offset, biases[0])
    return lambda flat, offset, biases, l: _read_vector(flat, offset, biases[l])


@jit
def _write_vector(vector: Array, flat: Array, offset: int) -> int:
    for r in range(len(vector)):
        flat[offset + r] = vector[r]
    return offset + len(vector)


@jit
def _read_vector(flat: Array, offset: int, vector: Array) -> int:
    for r in range(len(vector)):
        vector[r] = flat[offset + r]
    return offset + len(vector)


@jit
def _write_matrix(matrix: Array, flat: Array, offset: int) -> int:
    for row in matrix:
        offset = _write_vector(row, flat, offset)
    return offset


@jit
def _read_matrix(flat: Array, offset: int, matrix: Array) -> int:
    for row in matrix:
        offset = _read_vector(flat, offset, row)
    return offset


@jit
def _describe_layer(weight: Array, count: int, widths: NDArray[np.int64], flags: NDArray[np.bool_], l: int) -> None:
    if l == 0:
        widths[0] = weight.shape[1]
    if weight.shape[1] != widths[l] or weight.size == 0:
        raise ValueError(
            "weights do not fit each other: expected (out, in) for each layer, in as out of the one before"
        )
    if count not in (0, weight.shape[0]):
        raise ValueError(
            "biases do not fit the weights: expected (out,) for each layer, None (in a list: empty) for no bias"
        )
    widths[l + 1] = weight.shape[0]
    flags[l] = count > 0


@_overload(_describe)
def _describe_of(weights: Any, biases: Any, widths: Any, flags: Any, l: Any) -> Any:
    _check(weights, biases)
    if not isinstance(weights, types.BaseTuple):

        def by_list(weights: Any, biases: Any, widths: Any, flags: Any, l: Any) -> None:
            for k in range(len(weights)):
                _describe_layer(weights[k], _describe_bias(biases, k), widths, flags, k)

        return by_list

    if len(weights) == 0:
        return lambda weights, biases, widths, flags, l: None

    def by_tuple(weights: Any, biases: Any, widths: Any, flags: Any, l: Any) -> None:
        _describe_layer(weights[0], _describe_bias(biases, l), widths, flags, l)
        _describe(weights[1:], _upper_biases(biases), widths, flags, l + 1)

    return by_tuple


@_overload(_write)
def _write_of(weights: Any, biases: Any, flat: Any, offset: Any) -> Any:
    if not isinstance(weights, types.BaseTuple):

        def by_list(weights: Any, biases: Any, flat: Any, offset: Any) -> None:
            for k in range(len(weights)):
                offset = _write_matrix(weights[k], flat, offset)
                offset = _write_bias(biases, k, flat, offset)

        return by_list

    if len(weights) == 0:
        return lambda weights, biases, flat, offset: None

    def by_tuple(weights: Any, biases: Any, flat: Any, offset: Any) -> None:
        following = _write_bias(biases, 0, flat, _write_matrix(weights[0], flat, offset))
        _write(weights[1:], _upper_biases(biases), flat, following)

    return by_tuple


@_overload(_read)
def _read_of(flat: Any, offset: Any, weights: Any, biases: Any) -> Any:
    if not isinstance(weights, types.BaseTuple):

        def by_list(flat: Any, offset: Any, weights: Any, biases: Any) -> None:
            for k in range(len(weights)):
                offset = _read_matrix(flat, offset, weights[k])
                offset = _read_bias(flat, offset, biases, k)

        return by_list

    if len(weights) == 0:
        return lambda flat, offset, weights, biases: None

    def by_tuple(flat: Any, offset: Any, weights: Any, biases: Any) -> None:
        following = _read_bias(flat, _read_matrix(flat, offset, weights[0]), biases, 0)
        _read(flat, following, weights[1:], _upper_biases(biases))

    return by_tuple


def _check(weights: Any, biases: Any) -> None:
    """Refuse types that compile to wrong code, or for which Numba's errors are pages long."""
    if isinstance(weights, types.BaseTuple):
        arrays = list(weights.types)
    elif isinstance(weights, types.ListType | types.List):
        arrays = [weights.dtype]
    else:
        raise TypingError(f"weights is {weights}; expected a tuple or a numba.typed.List of arrays (out, in)")
    for array in arrays:
        if not isinstance(array, types.Array) or array.ndim != 2 or array.dtype not in (types.float32, types.float64):
            raise TypingError(f"weights holds {array}; expected arrays (out, in) of float32 or float64")
    if isinstance(weights, types.BaseTuple) and isinstance(biases, types.BaseTuple) and len(weights) != len(biases):
        raise TypingError(
            f"biases has {len(biases)} entries for {len(weights)} weights; expected one each, None for no bias"
        )


def _same_dtype(weights: Any, X: Any) -> Any:
    """Refuse a mixture of single and double precision."""


@_overload(_same_dtype)
def _same_dtype_of(weights: Any, X: Any) -> Any:
    _check(weights, types.none)
    if isinstance(weights, types.BaseTuple) and len(weights) == 0:
        raise TypingError("weights is an empty tuple; expected at least one array (out, in)")
    if not isinstance(X, types.Array) or X.ndim != 2:
        raise TypingError(f"X or Y is {X}; expected two-dimensional arrays, (N, in) and (N, out), samples in rows")
    arrays = list(weights.types) if isinstance(weights, types.BaseTuple) else [weights.dtype]
    dtypes = {str(array.dtype) for array in (*arrays, X)}
    if len(dtypes) > 1:
        raise TypingError(
            f"the weights and data are {' and '.join(sorted(dtypes))}; expected one dtype for all of them"
        )
    return lambda weights, X: None


@jit
def layout_of(weights: Any, biases: Any, X: Array) -> Layout:
    """Return the layout of the network; ValueError if the weights, the biases or the inputs do not fit."""
    _same_dtype(weights, X)
    widths, flags = np.zeros(len(weights) + 1, np.int64), np.zeros(len(weights), np.bool_)
    _describe(weights, biases, widths, flags, 0)
    if len(X) == 0 or X.shape[1] != widths[0]:
        raise ValueError("X does not fit the first weight: expected (N, in), N at least 1, samples in rows")
    return make_layout(widths, flags, X.itemsize)


@jit
def check_targets(layout: Layout, weights: Any, X: Array, Y: Array) -> None:
    """Refuse targets that do not fit."""
    _same_dtype(weights, Y)
    if len(Y) != len(X) or Y.shape[1] != layout[-1, WIDTH]:
        raise ValueError("Y does not fit X and the last weight: expected (N, out), samples in rows")


@jit
def _number(weights: Any, biases: Any) -> int:
    widths, flags = np.zeros(len(weights) + 1, np.int64), np.zeros(len(weights), np.bool_)
    _describe(weights, biases, widths, flags, 0)
    total = 0
    for l in range(len(weights)):
        total += widths[l + 1] * (widths[l] + (1 if flags[l] else 0))
    return total


@jit
def flatten(weights: Any, biases: Any = None) -> Array:
    """Return all parameters as one vector (P,), in `named_parameters()` order: each weight row by row, then its bias.

    Parameters
    ----------
    weights : tuple or typed list of (out, in) arrays
    biases : None, tuple of (out,) arrays and None, or typed list of (out,) arrays, empty for no bias

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> nb.flatten((np.array([[1.0, 2.0]]), np.array([[3.0]])), (None, np.array([4.0])))
    array([1., 2., 3., 4.])
    """
    flat = np.empty(_number(weights, biases), weights[0].dtype)
    _write(weights, biases, flat, 0)
    return flat


@jit
def assign(weights: Any, flat: Array, biases: Any = None) -> None:
    """Write a vector (P,) over the parameters, the inverse of `flatten`.

    Raises
    ------
    ValueError
        If it has another length.

    Examples
    --------
    >>> import numpy as np, hesskern.numba as nb
    >>> weights = np.zeros((1, 2)), np.zeros((1, 1))
    >>> nb.assign(weights, np.array([1.0, 2.0, 3.0]))
    >>> weights[0]
    array([[1., 2.]])
    """
    if flat.ndim != 1 or len(flat) != _number(weights, biases):
        raise ValueError("flat has the wrong length: expected one number for each parameter")
    _read(flat, 0, weights, biases)
