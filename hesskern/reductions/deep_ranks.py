"""The Hessian of a deep network outside a few directions of each layer is exactly zero.

*When it holds.* Always, for any loss of the end-to-end map, with biases and rank-deficient layers. It helps where the
ranks of the data, of the layers or of the outputs are small next to the widths: a 5-100-100-100-5 network has 21 000
parameters and 2 950 directions.

*What is left.* Let layer l multiply inputs ``Z_l`` (N, n), let ``B_l`` (o, m) map its outputs to the predictions, and
``M_lk`` the outputs of layer l to the inputs of layer k. E is the residual. Then changes of ``W_l`` have

- a Gauss-Newton part in range(B_l.T) ⊗ range(Z_l.T),
- a functional part with each layer k above in range(M_lk.T) ⊗ range(Z_l.T E B_k),
- a functional part with each layer k below in range(B_l.T E.T Z_k) ⊗ range(M_kl).

On each side these spaces contain one another in a fixed order. So there are orthogonal bases of rows and columns in
which each product of spaces is a rectangle of first rows and first columns, and the Hessian is zero outside their
union. Where no layer is narrow, its size is the rank in general position: with β the rank of ``B_l.T E.T Z``, α that of
``Z_l.T E``, b that of ``B_l`` and a that of ``Z_l``, layer l has ``m n - (m - β)(n - α) + (b - β)(a - α)`` directions.

*What it costs.* A few SVDs of the size of each layer, and the eigenproblem of the reduced size.

*What is lost.* A direction is taken for zero if its entries of the Hessian are, each next to the norm of the Hessian,
or if they are no more than rounding errors. The norm of what is dropped is measured, see `Dropped`; it belongs to the
errors of the eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hesskern._base import decompositions
from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern.backends.protocol import Block, Side
from hesskern.reductions.nested_directions import EPSILON, UNITS, Directions

Mode = Literal["full", "gauss_newton", "functional"]


class LayerSides(NamedTuple):
    """The selected parameters of one layer: all rows, and those columns that are selected."""

    above: Matrix | None  # (o, m), None: the identity, above the last layer
    inputs: Matrix  # (N, n)


class Shape(NamedTuple):
    """Of one layer: the shape of its selected parameters, and bounds on the ranks of `above` and `inputs`."""

    outputs: int
    inputs: int
    rows: int
    columns: int
    whole: bool  # whether all its inputs, the constant one of a network with biases too, are selected
    weight: bool  # whether its weight is: biases alone have no functional part with layers below


class Dropped(NamedTuple):
    """Norms of what was taken for zero."""

    jacobian: float  # in the Jacobian times the root of the scale
    functional: float  # in the functional part


class DeepRanks:
    """The reduced eigenproblem, and how its vectors are transformed back.

    Parameters
    ----------
    layers : sequence of LayerSides
        The lowest first.
    lowest : int
        A bound on the rank of all inputs of the lowest layer, selected or not.
    residual : (N, o) array
    residual_error : float
        How far its norm may be off by rounding.
    between : callable
        Of two positions in `layers`, the lower first: the map (n, m) from the outputs of the lower layer to the
        selected inputs of the upper one; None: the identity.
    scale : float
        Of the loss.
    mode : {"full", "gauss_newton", "functional"}
        Which part of the Hessian.
    """

    def __init__(
        self,
        layers: Sequence[LayerSides],
        lowest: int,
        residual: Matrix,
        residual_error: float,
        between: Callable[[int, int], Matrix | None],
        scale: float,
        *,
        mode: Mode = "full",
    ) -> None:
        self._lowest, self._scale, self._residual = lowest, scale, residual
        self._functional_only = mode == "functional"
        outputs = residual.shape[1]
        self._above = [np.eye(outputs) if layer.above is None else layer.above for layer in layers]
        self._below = [layer.inputs for layer in layers]
        self._maps: dict[tuple[int, int], Matrix | None] = {}
        if mode != "gauss_newton":
            for upper in range(len(layers)):
                for lower in range(upper):
                    product = between(lower, upper)
                    if product is None or product.any():
                        self._maps[lower, upper] = product
        self.rows: list[Directions] = []
        self.columns: list[Directions] = []
        self._find(residual_error)

    def _find(self, residual_error: float) -> None:
        """Find the directions that each part of the Hessian reads and reaches."""
        # The gradient between the outputs of a layer and the inputs of another is top.T seen, with these factors.
        seen = [self._residual.T @ inputs for inputs in self._below]
        low = [_triangle(inputs.T) for inputs in seen]
        high = [_triangle(top.T) for top in self._above]
        rounding = residual_error + UNITS * max(self._residual.shape) * EPSILON * _norm(self._residual)
        scale, sizes = abs(self._scale), {key: 1.0 if M is None else _norm(M) for key, M in self._maps.items()}
        largest = 0.0  # a bound on the norm of the Hessian, from below
        if not self._functional_only:
            largest = max(
                scale * (_least_norm(t) * _least_norm(z)) ** 2 for t, z in zip(self._above, self._below, strict=True)
            )
        for (lower, upper), between in self._maps.items():
            size = 1.0 if between is None else _least_norm(between)
            largest = max(largest, scale * size * _least_norm(high[upper] @ seen[lower]))
        cut = UNITS * max(map(max, (m.shape for m in (*self._above, *self._below)))) * EPSILON * largest

        def limit(lower: int, upper: int) -> float:
            """Return up to which size the gradient of two layers is rounding, or nothing next to the Hessian."""
            noise = rounding * _norm(self._above[upper]) * _norm(self._below[lower])
            return float(min(noise, cut / (scale * sizes[lower, upper])))

        root = math.sqrt(scale * largest)
        for layer, (top, inputs) in enumerate(zip(self._above, self._below, strict=True)):
            below = [other for other in range(layer - 1, -1, -1) if (other, layer) in sizes]
            above = [other for other in range(layer + 1, len(self._above)) if (layer, other) in sizes]
            of_rows = {other: low[other] @ top for other in below}
            of_columns = {other: high[other] @ seen[layer] for other in above}
            jacobian = [] if self._functional_only else [root * _norm(inputs) * top]
            weighted = [scale * sizes[other, layer] * matrix for other, matrix in of_rows.items()]
            rows = Directions(_stacked([*jacobian, *weighted], top.shape[1]), cut)
            jacobian = [] if self._functional_only else [root * _norm(top) * inputs]
            weighted = [scale * sizes[layer, other] * matrix for other, matrix in of_columns.items()]
            columns = Directions(_stacked([*jacobian, *weighted], inputs.shape[1]), cut)
            rows.nest({other: (M @ rows.basis, limit(other, layer)) for other, M in of_rows.items()}, self._lowest)
            columns.nest(
                {other: (M @ columns.basis, limit(layer, other)) for other, M in of_columns.items()}, top.shape[0]
            )
            rows.extend({other: self._maps[layer, other] for other in reversed(above)})
            columns.extend({other: _transpose(self._maps[other, layer]) for other in reversed(below)})
            self.rows.append(rows)
            self.columns.append(columns)

    @cached_property
    def rectangles(self) -> list[list[tuple[slice, slice]]]:
        """Of each layer, the rows and columns that are left, as rectangles."""
        return [
            _staircase(
                [(rows.inner[other], columns.outer[other]) for other in rows.inner]
                + [(rows.outer[other], columns.inner[other]) for other in rows.outer]
                + ([] if self._functional_only else [(rows.kept, columns.kept)])
            )
            for rows, columns in zip(self.rows, self.columns, strict=True)
        ]

    @property
    def size(self) -> int:
        """Size of the reduced problem."""
        return sum(area(corner) for corners in self.rectangles for corner in corners)

    @cached_property
    def _tops(self) -> list[Matrix]:
        """Maps from the outputs of each layer, in its new coordinates, to the predictions."""
        return [rows.rotate(top.T, back=False).T for top, rows in zip(self._above, self.rows, strict=True)]

    @cached_property
    def _inputs(self) -> list[Matrix]:
        """The inputs of each layer in its new coordinates."""
        return [
            columns.rotate(inputs.T, back=False).T for inputs, columns in zip(self._below, self.columns, strict=True)
        ]

    @cached_property
    def _kept(self) -> list[tuple[Matrix, Matrix]]:
        """Both, along the kept directions alone."""
        return [
            (top[:, : rows.kept], inputs[:, : columns.kept])
            for top, inputs, rows, columns in zip(self._tops, self._inputs, self.rows, self.columns, strict=True)
        ]

    @property
    def jacobian(self) -> list[tuple[Matrix, Matrix]]:
        """Of each layer, the two matrices whose Kronecker product is the Jacobian of the directions that are left."""
        return self._kept

    def problem(self) -> tuple[list[Side], list[Block], Dropped]:
        """Return the reduced Hessian as `Backend.assemble` takes it, and what it leaves out."""
        corners = [(layer, corner) for layer, all_of_it in enumerate(self.rectangles) for corner in all_of_it]
        sides = [Side(length(rows), length(columns), False) for _, (rows, columns) in corners]
        lower: dict[tuple[int, int], Block] = {}
        functional = 0.0
        for upper_layer in range(len(self.rows)):
            for lower_layer in range(upper_layer + 1):
                lower[upper_layer, lower_layer], dropped = self._block(upper_layer, lower_layer)
                functional = math.hypot(functional, dropped)
        blocks = []
        for first, first_corner in corners:
            for second, second_corner in corners:
                block = lower[first, second] if first >= second else _transposed(lower[second, first])
                blocks.append(_cut(block, first_corner, second_corner))
        return sides, blocks, Dropped(self.dropped_jacobian, math.sqrt(2.0) * functional)

    @cached_property
    def dropped_jacobian(self) -> float:
        """The norm of what is taken for zero in the Jacobian, times the root of the scale."""
        total = 0.0
        for top, inputs, rows, columns in zip(self._tops, self._inputs, self.rows, self.columns, strict=True):
            lost = _norm(top) * _norm(inputs[:, columns.kept :]) + _norm(top[:, rows.kept :]) * _norm(inputs)
            total = math.hypot(total, lost)
        return 0.0 if self._functional_only else math.sqrt(abs(self._scale)) * total

    def _block(self, upper: int, lower: int) -> tuple[Block, float]:
        """Return the block of all rows and columns of two layers, and the norm of what is left out of it."""
        (m, n), (p, q) = ((self.rows[layer].size, self.columns[layer].size) for layer in (upper, lower))
        U, V = np.zeros((m, p)), np.zeros((n, q))
        if not self._functional_only:
            (top, left), (other, right) = self._kept[upper], self._kept[lower]
            U[: top.shape[1], : other.shape[1]] = self._scale * (top.T @ other)
            V[: left.shape[1], : right.shape[1]] = left.T @ right
        if (lower, upper) not in self._maps:
            return Block(U, V), 0.0
        reads, reached = self.rows[upper].inner[lower], self.columns[upper].outer[lower]
        read, reaches = self.columns[lower].inner[upper], self.rows[lower].outer[upper]
        gradient = self._scale * ((self._residual @ self._tops[upper]).T @ self._inputs[lower])
        between = self._maps[lower, upper]
        turned = self.columns[upper].rotate(np.eye(n) if between is None else between, back=False)
        turned = self.rows[lower].rotate(turned.T, back=False).T
        W, lost = _split(gradient, reads, read)
        B, out_of_reach = _split(turned, reached, reaches)
        return Block(U, V, B, W), _norm(turned) * lost + out_of_reach * _norm(gradient)


def largest_size(shapes: Sequence[Shape], lowest: int, narrowest: Callable[[int, int], int], mode: Mode) -> int:
    """Return the size of the reduced problem for numbers in general position.

    Parameters
    ----------
    shapes : sequence of Shape
        Of each layer, the lowest first.
    lowest : int
        A bound on the rank of all inputs of the lowest layer.
    narrowest : callable
        Of two positions, the lower first: a bound on the rank of the map between them.
    mode : {"full", "gauss_newton", "functional"}
    """
    total = 0
    for number, (_, n, rows, columns, _, weight) in enumerate(shapes):
        corners = [] if mode == "functional" else [(rows, columns)]
        if mode != "gauss_newton":
            read = 0
            for other in range(number - 1, -1, -1) if weight else ():
                # What a layer reads contains what those above it read, unless a part of its inputs is not selected.
                read = min(rows, lowest, shapes[other].columns + (0 if shapes[other].whole else read))
                corners.append((read, min(n, narrowest(other, number) + columns)))
            for other in range(number + 1, len(shapes)):
                if shapes[other].weight:
                    corners.append((narrowest(number, other), min(columns, shapes[other].rows)))
        total += sum(area(corner) for corner in _staircase(corners))
    return total


def _staircase(corners: Sequence[tuple[int, int]]) -> list[tuple[slice, slice]]:
    """Return disjoint rectangles that cover all ``[0, rows) x [0, columns)``."""
    rectangles = []
    start = 0
    for row in sorted({rows for rows, _ in corners}):
        width = max(columns for rows, columns in corners if rows >= row)
        if row > start and width:
            rectangles.append((slice(start, row), slice(0, width)))
            start = row
    return rectangles


def _split(matrix: Matrix, rows: int, columns: int) -> tuple[Matrix, float]:
    """Return the matrix with its first rows and columns alone, and the norm of the rest."""
    first = np.zeros_like(matrix)
    first[:rows, :columns] = matrix[:rows, :columns]
    return first, _norm(matrix - first)


def _triangle(tall: Matrix) -> Matrix:
    """Return a matrix of no more rows than columns with the same scalar products of its columns."""
    return tall if tall.shape[0] <= tall.shape[1] else decompositions.triangular(tall)


def _stacked(matrices: Sequence[Matrix], columns: int) -> Matrix:
    return np.concatenate([np.zeros((0, columns)), *matrices])


def _norm(matrix: Matrix) -> float:
    return math.sqrt(float(np.vdot(matrix, matrix)))


def _least_norm(matrix: Matrix) -> float:
    """Return a bound on the largest singular value from below."""
    return _norm(matrix) / math.sqrt(max(min(matrix.shape), 1))


def _transpose(matrix: Matrix | None) -> Matrix | None:
    return None if matrix is None else matrix.T


def length(part: slice) -> int:
    """Return the number of rows or columns."""
    return int(part.stop - part.start)


def area(corner: tuple[slice, slice]) -> int:
    """Return the number of entries of a rectangle."""
    return length(corner[0]) * length(corner[1])


def _transposed(block: Block) -> Block:
    U, V, B, W = block
    if B is None or W is None:
        return Block(U.T, V.T)
    return Block(U.T, V.T, W.T, B.T)


def _cut(block: Block, first: tuple[slice, slice], second: tuple[slice, slice]) -> Block:
    """Return the block of some rows and columns of both layers; ``U[r,p] V[s,q] + B[s,p] W[r,q]``."""
    (r, s), (p, q) = first, second
    U, V = np.ascontiguousarray(block.U[r, p]), np.ascontiguousarray(block.V[s, q])
    if block.B is None or block.W is None:
        return Block(U, V)
    return Block(U, V, np.ascontiguousarray(block.B[s, p]), np.ascontiguousarray(block.W[r, q]))
