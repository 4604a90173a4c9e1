"""A block of the Hessian between two layers: rectangular."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks
from hesskern._base.array_types import Array
from hesskern._base.cached import cached_property
from hesskern._base.interrupt import BYTES, interruptibly
from hesskern.curvature.dense_blocks import grid
from hesskern.curvature.hessian import KINDS, Hessian
from hesskern.curvature.layer_factors import Mode
from hesskern.curvature.objective import Objective, setting
from hesskern.linalg import decompositions
from hesskern.linalg.condition import Condition, from_singular_values
from hesskern.linalg.matrix_operator import MatrixOperator
from hesskern.linalg.symmetric_operator import dense_target
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, part_size


class CrossBlock(MatrixOperator):
    """Second derivatives between the parameters of two layers, ``H.block(row, column)``.

    Its transpose is ``H.block(column, row)``. It has singular values in place of eigenvalues.
    """

    def __init__(self, loss: Objective, net: LinearNetwork, row: Part, column: Part, mode: Mode) -> None:
        self._loss, self._net, self._mode = loss, net, mode
        self.row, self.column = row, column
        self._backend = loss.kernels
        super().__init__(np.dtype(net.dtype), (part_size(net, row), part_size(net, column)))

    @cached_property
    def _around(self) -> Hessian:
        """The Hessian over both layers, in `named_parameters()` order."""
        both = sorted((self.row, self.column), key=lambda part: part.layer)
        return Hessian(self._loss, self._net, both, self._mode)

    def _matmat(self, V: Array) -> Array:
        return self._corner(V, given_first=self.column.layer < self.row.layer)

    def _rmatmat(self, V: Array) -> Array:
        return self._corner(V, given_first=self.row.layer < self.column.layer)

    def _corner(self, V: Array, *, given_first: bool) -> Array:
        """Return the product of the off-diagonal corner: zeros for the other layer, its rows of the result."""
        total, given = self._around.shape[0], len(V)
        full = np.zeros((total, V.shape[1]), np.result_type(V.dtype, self.dtype))
        full[slice(0, given) if given_first else slice(total - given, total)] = V
        product: Array = self._around.matmat(full)
        return product[given:] if given_first else product[: total - given]

    def _matvec(self, v: Array) -> Array:
        return self._matmat(np.reshape(v, (-1, 1)))[:, 0]

    def _rmatvec(self, v: Array) -> Array:
        return self._rmatmat(np.reshape(v, (-1, 1)))[:, 0]

    def _transpose(self) -> CrossBlock:
        return CrossBlock(self._loss, self._net, self.column, self.row, self._mode)

    _adjoint = _transpose

    def toarray(self, out: Array | None = None, vec: str = "row") -> Array:
        """Return the dense block; arguments as for `Hessian.toarray`."""
        checks.one_of(vec, "vec", ("row", "column"))
        what = f"block of layers {self.row.layer} and {self.column.layer}"
        out = dense_target(out, self.shape, self.dtype, what)
        self._write(out, vec)
        return out

    def _write(self, out: Array, vec: str) -> None:
        sides = grid(self._around._factors, (self.row,), (self.column,), self._mode, vec, out.dtype)
        interruptibly(self._backend.assemble, *sides, out, seconds=out.nbytes / BYTES)

    def diagonal(self) -> Array:
        """Return the main diagonal of the rectangle."""
        return np.diagonal(self.toarray()).copy()

    def trace(self) -> float:
        """Return the sum of the main diagonal."""
        return float(np.sum(self.diagonal(), dtype=np.float64))

    def svdvals(self) -> NDArray[np.float64]:
        """Return the singular values, descending, of the dense block in float64; O(rows · columns²)."""
        dense = dense_target(None, self.shape, np.dtype(np.float64), "block for its singular values")
        self._write(dense, "row")
        return decompositions.svdvals(dense)

    def condition(self) -> Condition:
        """Return largest over smallest nonzero singular value, with the decision about the rank.

        The errors are those of the decomposition, and what rounding the weights, the data and products of them to the
        network's dtype does to the block (`hesskern.curvature.rounding`), which may cancel.
        """
        error = float(self._around._magnitudes.blocks(self._around.parts, self._mode)[0, 1])
        rounded = float(np.finfo(self.dtype).eps / np.finfo(np.float64).eps)
        return from_singular_values(self.svdvals(), self.shape, rounded * error)

    def cond(self) -> float:
        """Return the condition number; NaN for the zero matrix."""
        return self.condition().value

    def rank(self) -> int:
        """Return the numerical rank, by the tolerance of `condition`; the exact one may be larger."""
        return self.condition().rank

    def gauss_newton(self) -> CrossBlock:
        """Return the Gauss-Newton part of the block."""
        return CrossBlock(self._loss, self._net, self.row, self.column, "gauss_newton")

    def functional(self) -> CrossBlock:
        """Return the functional part of the block."""
        return CrossBlock(self._loss, self._net, self.row, self.column, "functional")

    def _not_symmetric(self, *_args: Any, **_options: Any) -> Any:
        """Raise: a rectangular block has no eigenvalues."""
        raise ValueError(
            f"the block of layers {self.row.layer} and {self.column.layer} has shape {self.shape} and is not "
            "symmetric: it has no eigenvalues, inverse or determinant. Use svdvals(), rank() or condition()."
        )

    spectrum = eigvalsh = eigh = solve = logdet = _not_symmetric

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._around, self.row, self.column)

    def __repr__(self) -> str:
        what = f"{KINDS[self._mode]} block of layers {self.row.layer} and {self.column.layer}"
        return f"<{self.shape[0]}x{self.shape[1]} {what} {setting(self._loss, self._net)}>"


def _again(around: Hessian, row: Part, column: Part) -> CrossBlock:
    """Return the block of a pickle, in which the Hessian over both layers has the samples as they were reduced."""
    return CrossBlock(around._loss, around._net, row, column, around._mode)
