"""A SciPy operator that has a dense matrix as well, for whoever asks for one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator

from hesskern import checks
from hesskern._array import Array
from hesskern.conversion import as_numpy


class MatrixOperator(LinearOperator):
    """An operator whose ``np.asarray(H)`` is its dense matrix; products never make that matrix.

    ``A @ H`` with an array A is ``(H.T @ A.T).T``, a product as well, and NumPy's functions of entries (``np.sin(H)``,
    ``H + A``) are refused: ask for ``H.toarray()`` where the matrix is wanted.
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
        return super().__matmul__(_factor(other))

    def __rmatmul__(self, other: Any) -> Any:
        return super().__rmatmul__(_factor(other))


def _factor(other: Any) -> Any:
    """Return an array of what NumPy reads, a tensor of PyTorch for instance, and as it is what SciPy knows itself."""
    known = isinstance(other, np.ndarray | LinearOperator) or np.isscalar(other) or issparse(other)
    return other if known else checks.read(other, "v")
