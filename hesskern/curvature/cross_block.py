"""A block of the Hessian between two layers: rectangular."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks, decompositions
from hesskern._base.array_types import Array
from hesskern._base.interrupt import BYTES, interruptibly
from hesskern.curvature.dense_blocks import grid
from hesskern.curvature.layer_factors import KINDS, Mode
from hesskern.curvature.objective import setting
from hesskern.curvature.point import Point
from hesskern.linalg.condition import Condition, from_singular_values
from hesskern.linalg.matrix_operator import MatrixOperator, product_with
from hesskern.linalg.symmetric_operator import dense_target
from hesskern.network.parameters import Part, part_size, positions


class CrossBlock(MatrixOperator):
    """Second derivatives between the parameters of two layers, ``H.block(row, column)``.

    Its transpose is ``H.block(column, row)``. It has singular values in place of eigenvalues.
    """

    def __init__(self, point: Point, row: Part, column: Part, mode: Mode) -> None:
        self._point, self._mode = point, mode
        self.row, self.column = row, column
        self._net = point.net
        super().__init__(np.dtype(point.net.dtype), (part_size(point.net, row), part_size(point.net, column)))

    def _matmat(self, V: Array) -> Array:
        return self._times(V, self.row, self.column)

    def _rmatmat(self, V: Array) -> Array:
        return self._times(V, self.column, self.row)

    def _times(self, V: Array, row: Part, column: Part) -> Array:
        at = [positions(self._net, [part]) for part in (row, column)]
        return product_with(V, self.dtype, lambda vectors: self._point.times(self._mode, vectors, *at))

    def _matvec(self, v: Array) -> Array:
        return self._matmat(np.reshape(v, (-1, 1)))[:, 0]

    def _rmatvec(self, v: Array) -> Array:
        return self._rmatmat(np.reshape(v, (-1, 1)))[:, 0]

    def _transpose(self) -> CrossBlock:
        return CrossBlock(self._point, self.column, self.row, self._mode)

    _adjoint = _transpose

    def toarray(self, out: Array | None = None, vec: str = "row") -> Array:
        """Return the dense block; arguments as for `Hessian.toarray`."""
        checks.one_of(vec, "vec", ("row", "column"))
        description = f"block of layers {self.row.layer} and {self.column.layer}"
        out = dense_target(out, self.shape, self.dtype, description)
        self._write(out, vec)
        return out

    def _write(self, out: Array, vec: str) -> None:
        sides = grid(self._point.factors, (self.row,), (self.column,), self._mode, vec, out.dtype)
        interruptibly(self._point.backend.assemble, *sides, out, seconds=out.nbytes / BYTES)

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

        The errors come from the decomposition, and from rounding the weights, the data and their products to the
        network's dtype (`hesskern.curvature.rounding`); terms of the block may cancel.
        """
        error = float(self._point.magnitudes.blocks(sorted((self.row, self.column)), self._mode)[0, 1])
        rounded = float(np.finfo(self.dtype).eps / np.finfo(np.float64).eps)
        return from_singular_values(self.svdvals(), self.shape, rounded * error)

    def cond(self) -> float:
        """Return the condition number; NaN for the zero matrix."""
        return self.condition().value

    def rank(self) -> int:
        """Return the numerical rank, by the tolerance of `condition`; the exact rank may be larger."""
        return self.condition().rank

    def gauss_newton(self) -> CrossBlock:
        """Return the Gauss-Newton part of the block."""
        return CrossBlock(self._point, self.row, self.column, "gauss_newton")

    def functional(self) -> CrossBlock:
        """Return the functional part of the block."""
        return CrossBlock(self._point, self.row, self.column, "functional")

    def _not_symmetric(self, *_args: Any, **_options: Any) -> Any:
        """Raise: a rectangular block has no eigenvalues."""
        raise ValueError(
            f"the block of layers {self.row.layer} and {self.column.layer} has shape {self.shape} and is not "
            "symmetric: it has no eigenvalues, inverse or determinant. Use svdvals(), rank() or condition()."
        )

    spectrum = eigvalsh = eigh = solve = logdet = _not_symmetric

    def __reduce__(self) -> tuple[Any, ...]:
        return CrossBlock, (self._point, self.row, self.column, self._mode)

    def __repr__(self) -> str:
        description = f"{KINDS[self._mode]} block of layers {self.row.layer} and {self.column.layer}"
        return f"<{self.shape[0]}x{self.shape[1]} {description} {setting(self._point.objective, self._net)}>"
