"""The Hessian of a deep network outside a few directions of each layer is exactly zero.

*When it holds.* Always, for any loss of the end-to-end map, with biases and rank-deficient layers. It helps where the
ranks of the data, of the layers or of the outputs are small next to the widths: a 5-100-100-100-5 network has 21 000
parameters and 2 950 directions.

*What is left.* Let layer l multiply inputs ``Z_l`` (N, n), and let ``B_l`` (o, m) map its outputs to the predictions.
The Gauss-Newton part sees rows of ``δW_l`` in range(B_l.T) and columns in range(Z_l.T), both at once. The functional
part sees rows in range(B_l.T E.T Z), or columns in range(Z_l.T E), where E is the residual and Z the inputs of the lowest
layer. So, in orthogonal bases of rows and columns whose first directions span these spaces (β of b rows, α of a columns),
everything vanishes unless ``row < β``, or ``column < α``, or ``row < b and column < a``:

    m n - (m - β)(n - α) + (b - β)(a - α)   directions of layer l; β = 0 for the lowest layer, α = 0 for the highest.

*What it costs.* Two thin SVDs and two QR decompositions for each layer, and the eigenproblem of this size.

*What is lost.* Directions whose singular values are no more than rounding errors are taken for zero. The norm of what
is dropped is measured, see `Dropped`; it belongs to the errors of the eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern.backends.protocol import Block, Side
from hesskern.linalg.eigenbasis import Eigenbasis, Values
from hesskern.linalg.spectrum import Spectrum
from hesskern.linalg.tall_qr import TallQR

Mode = Literal["full", "gauss_newton", "functional"]
_EPSILON = float(np.finfo(np.float64).eps)
#: Singular values up to this many units of rounding of a matrix of their size are taken for zero.
_UNITS = 4.0


class Layer(NamedTuple):
    """The selected parameters of one layer: all rows, and those columns that are selected."""

    above: Matrix | None  # (o, m), None: the identity, above the last layer
    inputs: Matrix  # (N, n)


class Dropped(NamedTuple):
    """Norms of what was taken for zero."""

    jacobian: float  # in the Jacobian times the root of the scale
    functional: float  # in the functional part


class Directions:
    """An orthogonal basis of one side of a layer: directions of both parts, of the Gauss-Newton part, and the others.

    Parameters
    ----------
    matrix : (r, n) array
        Its rows span what the Gauss-Newton part sees.
    functional : callable
        Takes vectors (n, k), returns a matrix of k columns whose rows span, among them, what the functional part sees;
        and the singular value up to which it is rounding.
    """

    def __init__(self, matrix: Matrix, functional: Callable[[Matrix], tuple[Matrix, float]] | None) -> None:
        self.size = matrix.shape[1]
        _, values, vectors = decompositions.svd(matrix, full_matrices=False)
        least = _UNITS * max(matrix.shape) * _EPSILON * float(values[0] if len(values) else 0.0)
        self.kept = int(np.sum(values > least))
        kept: Matrix = vectors[: self.kept].T
        self.both = 0
        if functional is not None and self.kept:
            seen, least = functional(kept)
            _, values, turn = decompositions.svd(seen)
            self.both = int(np.sum(values > least))
            kept = kept @ turn.T
        self._qr = TallQR(np.asfortranarray(kept)) if self.kept else None
        self.dropped = float(np.linalg.norm(self.rotate(matrix.T, back=False)[self.kept :]))

    def rotate(self, vectors: Matrix, *, back: bool) -> Matrix:
        """Return the coordinates of vectors (n, k), or (`back`) the vectors of coordinates."""
        return vectors if self._qr is None else self._qr.rotate(vectors, back=back)


class DeepRanks:
    """The reduced eigenproblem, and how its vectors are transformed back.

    Parameters
    ----------
    layers : sequence of Layer
        The lowest first.
    lowest : (N, n) array
        All inputs of the lowest layer, the constant one included.
    residual : (N, o) array
    residual_error : float
        How far its norm may be off by rounding.
    between : callable
        Of two positions in `layers`, the lower first: the map (n, m) from the outputs of the lower layer to the selected
        inputs of the upper one.
    scale : float
        Of the loss.
    mode : {"full", "gauss_newton", "functional"}
        Which part of the Hessian.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        lowest: Matrix,
        residual: Matrix,
        residual_error: float,
        between: Callable[[int, int], Matrix],
        scale: float,
        *,
        mode: Mode = "full",
    ) -> None:
        self._layers, self._between, self._scale = layers, between, scale
        self._functional_only = mode == "functional"
        outputs = residual.shape[1]
        size_of_residual = float(np.linalg.norm(residual))
        gradient = lowest.T @ residual  # (n, o)
        size_of_lowest = float(np.linalg.norm(lowest))
        self.rows: list[Directions] = []
        self.columns: list[Directions] = []
        self._residual = residual
        for number, (above, inputs) in enumerate(layers):
            top = np.eye(outputs) if above is None else above
            noise = residual_error + _UNITS * max(*residual.shape, *inputs.shape) * _EPSILON * size_of_residual

            def of_rows(kept: Matrix, top: Matrix = top, noise: float = noise) -> tuple[Matrix, float]:
                return gradient @ (top @ kept), noise * size_of_lowest * float(np.linalg.norm(top))

            def of_columns(kept: Matrix, inputs: Matrix = inputs, noise: float = noise) -> tuple[Matrix, float]:
                return residual.T @ (inputs @ kept), noise * float(np.linalg.norm(inputs))

            self.rows.append(Directions(top, of_rows if number and mode != "gauss_newton" else None))
            self.columns.append(
                Directions(inputs, of_columns if number + 1 < len(layers) and mode != "gauss_newton" else None)
            )

    @cached_property
    def rectangles(self) -> list[list[tuple[slice, slice]]]:
        """Of each layer, the rows and columns that are left, as rectangles."""
        rectangles = []
        for rows, columns in zip(self.rows, self.columns, strict=True):
            corners = [
                (slice(0, rows.both), slice(0, columns.size)),
                (slice(rows.both, rows.size), slice(0, columns.both)),
            ]
            if not self._functional_only:
                corners.append((slice(rows.both, rows.kept), slice(columns.both, columns.kept)))
            rectangles.append([corner for corner in corners if _area(corner)])
        return rectangles

    @property
    def size(self) -> int:
        """Size of the reduced problem."""
        return sum(_area(corner) for corners in self.rectangles for corner in corners)

    @cached_property
    def _tops(self) -> list[Matrix]:
        outputs = self._residual.shape[1]
        return [
            rows.rotate(np.eye(outputs) if above is None else above.T, back=False).T[:, : rows.kept]
            for (above, _), rows in zip(self._layers, self.rows, strict=True)
        ]

    @cached_property
    def _inputs(self) -> list[Matrix]:
        return [
            columns.rotate(inputs.T, back=False).T[:, : columns.kept]
            for (_, inputs), columns in zip(self._layers, self.columns, strict=True)
        ]

    @property
    def jacobian(self) -> list[tuple[Matrix, Matrix]]:
        """Of each layer, the two matrices whose Kronecker product is the Jacobian of the directions that are left."""
        return list(zip(self._tops, self._inputs, strict=True))

    def problem(self) -> tuple[list[Side], list[Block], Dropped]:
        """Return the reduced Hessian as `Backend.assemble` takes it, and what it leaves out."""
        corners = [(layer, corner) for layer, all_of_it in enumerate(self.rectangles) for corner in all_of_it]
        sides = [Side(_length(rows), _length(columns), False) for _, (rows, columns) in corners]
        lower: dict[tuple[int, int], Block] = {}
        functional = 0.0
        for upper_layer in range(len(self._layers)):
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
            lost = float(np.linalg.norm(top)) * columns.dropped + rows.dropped * float(np.linalg.norm(inputs))
            total = math.hypot(total, lost)
        return 0.0 if self._functional_only else math.sqrt(abs(self._scale)) * total

    def _block(self, upper: int, lower: int) -> tuple[Block, float]:
        """Return the block of all rows and columns of two layers, and the norm of what is left out of it."""
        (m, n), (p, q) = ((self.rows[layer].size, self.columns[layer].size) for layer in (upper, lower))
        U, V = np.zeros((m, p)), np.zeros((n, q))
        if not self._functional_only:
            outer = self._scale * (self._tops[upper].T @ self._tops[lower])
            inner = self._inputs[upper].T @ self._inputs[lower]
            U[: outer.shape[0], : outer.shape[1]] = outer
            V[: inner.shape[0], : inner.shape[1]] = inner
        if upper == lower:
            return Block(U, V), 0.0
        rows, columns = self.rows[upper], self.columns[lower]
        back = self._residual @ self._tops[upper]
        gradient = self._scale * (back.T @ self._inputs[lower])
        W = np.zeros((m, q))
        W[: rows.both, : columns.both] = gradient[: rows.both, : columns.both]
        left_out = gradient.copy()
        left_out[: rows.both, : columns.both] = 0.0
        between = self._between(lower, upper)
        B = self.columns[upper].rotate(between, back=False)
        B = self.rows[lower].rotate(B.T, back=False).T
        error = float(np.linalg.norm(left_out))
        error += abs(self._scale) * (
            float(np.linalg.norm(back)) * columns.dropped
            + float(np.linalg.norm(self._residual)) * rows.dropped * float(np.linalg.norm(self._inputs[lower]))
        )
        return Block(U, V, np.ascontiguousarray(B), W), float(np.linalg.norm(between)) * error


class DeepBasis:
    """The eigenbasis of a network from that of the reduced problem: its eigenvalues, and zeros.

    Parameters
    ----------
    reduction : DeepRanks
    inner : Eigenbasis
        Of the reduced problem.
    order : sequence of arrays
        For each layer, the positions of its parameters in a matrix (m, n), row by row, as they are in a vector.
    structural_zeros : int
        How many eigenvalues are zero for any numbers of these shapes.
    """

    def __init__(
        self, reduction: DeepRanks, inner: Eigenbasis, order: Sequence[NDArray[np.intp]], structural_zeros: int
    ) -> None:
        self._reduction, self._inner, self._order = reduction, inner, order
        self.dense_size = inner.dense_size
        self.structural_zeros = structural_zeros + inner.structural_zeros
        self._zeros = sum(map(len, order)) - reduction.size

    @cached_property
    def groups(self) -> Spectrum:
        inner = self._inner.groups
        return Spectrum._of(np.append(inner.values, 0.0), np.append(inner.multiplicities, self._zeros))

    @cached_property
    def values(self) -> Values:
        return np.concatenate([self._inner.values, np.zeros(self._zeros)])

    def coordinates(self, columns: Matrix) -> Matrix:
        k = columns.shape[1]
        inside, outside = [], []
        at = 0
        for number, order in enumerate(self._order):
            matrix = np.empty((len(order), k))
            matrix[order] = columns[at : at + len(order)]
            at += len(order)
            cube = self._rotated(number, matrix, back=False)
            kept = np.zeros(cube.shape[:2], dtype=bool)
            for corner in self._reduction.rectangles[number]:
                inside.append(cube[corner].reshape(-1, k))
                kept[corner] = True
            outside.append(cube[~kept])
        return np.concatenate([self._inner.coordinates(np.concatenate(inside)), *outside])

    def vectors(self, columns: Matrix) -> Matrix:
        k, size = columns.shape[1], self._reduction.size
        inside, outside = self._inner.vectors(columns[:size]), columns[size:]
        vectors = []
        at = first = 0
        for number, order in enumerate(self._order):
            rows, inputs = self._reduction.rows[number].size, self._reduction.columns[number].size
            cube = np.empty((rows, inputs, k))
            kept = np.zeros((rows, inputs), dtype=bool)
            for corner in self._reduction.rectangles[number]:
                area = _area(corner)
                cube[corner] = inside[at : at + area].reshape(_length(corner[0]), _length(corner[1]), k)
                kept[corner] = True
                at += area
            left = int(np.sum(~kept))
            cube[~kept] = outside[first : first + left]
            first += left
            vectors.append(self._rotated(number, cube.reshape(-1, k), back=True).reshape(-1, k)[order])
        return np.concatenate(vectors)

    def _rotated(self, number: int, matrix: Matrix, *, back: bool) -> Matrix:
        """Return the coordinates (m, n, k) of a layer's parameters, or the parameters of coordinates."""
        rows, columns = self._reduction.rows[number], self._reduction.columns[number]
        m, n, k = rows.size, columns.size, matrix.shape[1]
        cube = rows.rotate(matrix.reshape(m, n * k), back=back).reshape(m, n, k)
        turned = columns.rotate(cube.transpose(1, 0, 2).reshape(n, m * k), back=back)
        return np.ascontiguousarray(turned.reshape(n, m, k).transpose(1, 0, 2))


def largest_size(layers: Sequence[tuple[int, int, int, int]], outputs: int, inputs: int, mode: Mode) -> int:
    """Return the size of the reduced problem for numbers in general position.

    Parameters
    ----------
    layers : sequence of (m, n, b, a)
        Rows and columns of each layer, the lowest first, and bounds on the ranks of `above` and `inputs`.
    outputs, inputs : int
        Shape of the residual's gradient with respect to the end-to-end map.
    """
    total = 0
    for number, (m, n, b, a) in enumerate(layers):
        beta = min(b, outputs, inputs) if number and mode != "gauss_newton" else 0
        alpha = min(a, outputs) if number + 1 < len(layers) and mode != "gauss_newton" else 0
        total += m * n - (m - beta) * (n - alpha) + (0 if mode == "functional" else (b - beta) * (a - alpha))
    return total


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _area(corner: tuple[slice, slice]) -> int:
    return _length(corner[0]) * _length(corner[1])


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
