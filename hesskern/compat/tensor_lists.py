"""Linear operators on tensors, flat or in the shapes of parameters, with the protocol of curvlinops' operators.

A vector is a tensor (P,) or a list of tensors in the parameters' shapes. A matrix has its columns last: (P, k), or a
list of ``(*shape, k)``. Products have the form of their argument. curvlinops' own operators (inverses, submatrices,
estimators) use the names with a leading underscore of other operators, so ours have the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from hesskern.compat.live_parameters import split


class TensorOperator:
    """A linear operator between spaces of tensors.

    Attributes
    ----------
    shape : tuple of int
        Of the matrix.
    dtype : torch.dtype
    device : torch.device
    """

    SELF_ADJOINT = False

    def __init__(self, rows: Sequence[Any], columns: Sequence[Any], dtype: torch.dtype, device: torch.device) -> None:
        self._out_shape, self._in_shape = (
            [torch.Size(shape) for shape in rows],
            [torch.Size(shape) for shape in columns],
        )
        self._out_shape_flat = [shape.numel() for shape in self._out_shape]
        self._in_shape_flat = [shape.numel() for shape in self._in_shape]
        self.shape = sum(self._out_shape_flat), sum(self._in_shape_flat)
        self.dtype, self.device = dtype, device

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        """Return the product with a matrix as a list of tensors."""
        raise NotImplementedError  # abstract

    def _adjoint(self) -> Any:
        return self  # a symmetric operator

    def adjoint(self) -> Any:
        """Return the transposed operator."""
        return self if self.SELF_ADJOINT else self._adjoint()

    # Products ---------------------------------------------------------------------------------------------------------

    def __matmul__(self, X: Any) -> Any:
        if _operator(X):
            return ProductOperator(self, X)
        return self._times(X)

    def __rmatmul__(self, X: Any) -> Any:
        """Return ``X @ A``, of (P,) or (k, P) tensors, or of lists with the rows in front."""
        transposed = self.adjoint()
        if not isinstance(X, Tensor | list):
            return NotImplemented
        if isinstance(X, Tensor):
            return transposed @ X if X.ndim == 1 else (transposed @ X.T).T
        vector = all(part.ndim == len(shape) for part, shape in zip(X, self._out_shape, strict=False))
        product = transposed @ (X if vector else [part.movedim(0, -1) for part in X])
        return product if vector else [part.movedim(-1, 0) for part in product]

    def _times(self, X: Any) -> Any:
        if isinstance(X, Tensor):
            if X.ndim not in (1, 2) or len(X) != self.shape[1]:
                raise ValueError(f"X has shape {tuple(X.shape)}; expected ({self.shape[1]},) or ({self.shape[1]}, K).")
            self._check(X, "X")
            products = self._matmat(split(X.reshape(len(X), -1), self._in_shape))
            columns = products[0].shape[-1]
            return torch.cat([part.reshape(-1, columns) for part in products]).reshape(-1, *X.shape[1:])
        if not isinstance(X, list) or not all(isinstance(part, Tensor) for part in X):
            raise TypeError(f"X is a {type(X).__name__}; expected a tensor or a list of tensors.")
        shapes = [part.shape for part in X]
        vector = shapes == self._in_shape
        behind = {shape[-1] for shape in shapes if len(shape)}
        if not vector and ([shape[:-1] for shape in shapes] != self._in_shape or len(behind) != 1):
            raise ValueError(
                f"X has the shapes {list(map(tuple, shapes))}; expected {list(map(tuple, self._in_shape))}, or these "
                "shapes with the same number of columns at the end."
            )
        for number, part in enumerate(X):
            self._check(part, f"X[{number}]")
        products = self._matmat([part.unsqueeze(-1) for part in X] if vector else X)
        return [part.squeeze(-1) for part in products] if vector else products

    def _check(self, X: Tensor, name: str) -> None:
        if (X.dtype, X.device) != (self.dtype, self.device):
            raise TypeError(
                f"{name} is {X.dtype} on {X.device}; expected {self.dtype} on {self.device}, as the parameters are: "
                f"pass {name}.to(...)."
            )

    # Arithmetic -------------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        return SumOperator(self, other) if _operator(other) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        return SumOperator(self, other * -1.0) if _operator(other) else NotImplemented

    def __mul__(self, factor: Any) -> Any:
        return ScaledOperator(self, factor) if isinstance(factor, int | float) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, factor: Any) -> Any:
        return self * (1.0 / factor)

    # SciPy ------------------------------------------------------------------------------------------------------------

    def to_scipy(self, dtype: Any = None) -> LinearOperator:
        """Return the operator for SciPy's routines: NumPy arrays in and out, products in the operator's own dtype.

        Parameters
        ----------
        dtype : dtype, optional
            The dtype of the SciPy operator; default: float64.
        """
        transposed = self.adjoint()
        forward, backward = self._of_arrays(self.__matmul__), self._of_arrays(transposed.__matmul__)
        return LinearOperator(
            self.shape, matvec=forward, rmatvec=backward, matmat=forward, rmatmat=backward, dtype=np.dtype(dtype)
        )

    def _of_arrays(self, product: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
        def of(X: Any) -> Any:
            image = product(torch.as_tensor(X, dtype=self.dtype, device=self.device))
            return image.detach().cpu().numpy().astype(X.dtype)

        return of


class SumOperator(TensorOperator):
    """A sum of two operators between the same spaces."""

    def __init__(self, one: Any, other: Any) -> None:
        _same((one._in_shape, one._out_shape), (other._in_shape, other._out_shape), "add")
        _same((one.dtype, one.device), (other.dtype, other.device), "add")
        super().__init__(one._out_shape, one._in_shape, one.dtype, one.device)
        self._one, self._other = one, other
        self.SELF_ADJOINT = one.SELF_ADJOINT and other.SELF_ADJOINT

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        return [left + right for left, right in zip(self._one._matmat(X), self._other._matmat(X), strict=True)]

    def _adjoint(self) -> SumOperator:
        return SumOperator(self._one.adjoint(), self._other.adjoint())


class ScaledOperator(TensorOperator):
    """An operator times a number."""

    def __init__(self, operator: Any, factor: float) -> None:
        super().__init__(operator._out_shape, operator._in_shape, operator.dtype, operator.device)
        self._operator, self._factor, self.SELF_ADJOINT = operator, factor, operator.SELF_ADJOINT

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        return [self._factor * part for part in self._operator._matmat(X)]

    def _adjoint(self) -> ScaledOperator:
        return ScaledOperator(self._operator.adjoint(), self._factor)


class ProductOperator(TensorOperator):
    """One operator after another."""

    def __init__(self, left: Any, right: Any) -> None:
        _same(left._in_shape, right._out_shape, "multiply")
        _same((left.dtype, left.device), (right.dtype, right.device), "multiply")
        super().__init__(left._out_shape, right._in_shape, left.dtype, left.device)
        self._left, self._right = left, right

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        products: list[Tensor] = self._left._matmat(self._right._matmat(X))
        return products

    def _adjoint(self) -> ProductOperator:
        return ProductOperator(self._right.adjoint(), self._left.adjoint())


def _operator(other: Any) -> bool:
    return hasattr(other, "_matmat") and hasattr(other, "_in_shape")


def _same(one: Any, other: Any, operation: str) -> None:
    if one != other:
        raise ValueError(f"cannot {operation} operators of {one} and {other}; expected the same.")
