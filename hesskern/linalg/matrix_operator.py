"""A SciPy operator that can return its dense matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse.linalg import LinearOperator

from hesskern._base import checks
from hesskern._base.array_types import Array
from hesskern._base.numpy_protocol import as_numpy


class MatrixOperator(LinearOperator):
    """An operator whose ``np.asarray(H)`` is its dense matrix; products never make that matrix.

    ``A @ H`` with an array A is ``(H.T @ A.T).T``, also a product. NumPy's elementwise functions (``np.sin(H)``, ``H +
    A``) are refused: if you need the matrix, call ``H.toarray()``.
    """

    dtype: np.dtype[np.floating[Any]]
    shape: tuple[int, int]

    def toarray(self) -> Array:
        """Return the dense matrix."""
        raise NotImplementedError  # abstract

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Return the dense matrix; MemoryError with a sentence where it would not fit."""
        return as_numpy(self.toarray, f"the dense {self.shape[0]} x {self.shape[1]} matrix", dtype, copy)

    def __matmul__(self, other: Any) -> Any:
        size = self.shape[1]
        return super().__matmul__(_factor(other, 0, size, f"({size},) or ({size}, k)"))

    def __rmatmul__(self, other: Any) -> Any:
        size = self.shape[0]
        return super().__rmatmul__(_factor(other, -1, size, f"({size},) or (k, {size})"))


def product_with(V: Array, dtype: np.dtype[Any], apply: Callable[[Array], Array]) -> Array:
    """Return the product of a real operator of this dtype with vectors of any numbers.

    `apply` multiplies with C-contiguous float32 or float64 arrays; vectors more precise than the operator stay so.
    """
    V = checks.vectors(V, "v")
    if np.iscomplexobj(V):
        real = product_with(V.real, dtype, apply)
        return real + 1j * product_with(V.imag, dtype, apply)
    precise = np.result_type(V.dtype, dtype)
    precision = precise if precise in checks.FLOATS else np.dtype(np.float64)
    return apply(np.require(V, dtype=precision, requirements=["C", "A"]))


def _factor(other: Any, axis: int, size: int, shapes: str) -> Any:
    """Return an array of a shape that fits, from anything that NumPy reads; another operator stays unchanged."""
    if isinstance(other, LinearOperator):
        return other
    array = checks.vectors(other, "v")
    if array.ndim not in (1, 2) or array.shape[axis] != size:
        raise ValueError(f"v has shape {array.shape}; expected {shapes}.")
    return array
