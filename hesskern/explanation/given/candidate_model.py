"""The Hessian of a network on (sums of) data, its parts, and the model of a candidate: part, order, factor, shift."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions, memory
from hesskern._base.cached import cached_property
from hesskern.curvature.hessian import Hessian
from hesskern.explanation.given import rounding
from hesskern.explanation.given.candidate import ROWS
from hesskern.explanation.given.orders import Tensor, column_order
from hesskern.explanation.given.variants import DataVariant, WeightVariant

Values = NDArray[np.float64]

#: Parts of a Hessian besides "full".
PARTS = ("gauss_newton", "functional", "opposed", "layers", "tensors", "diagonal", "exchanged")


class Curvature:
    """The Hessian without weight decay of one network on one variant of the data.

    Parameters
    ----------
    data, weights
        The variants.
    tensors : sequence of Tensor
        The parameters, in `named_parameters()` order.
    epsilon : float
        Rounding unit of the candidate's numbers.
    """

    def __init__(self, data: DataVariant, weights: WeightVariant, tensors: Sequence[Tensor], epsilon: float) -> None:
        self.data, self.weights, self.tensors = data, weights, tuple(tensors)
        self._epsilon = epsilon
        names = [tensor.full_name for tensor in tensors]
        self._terms = [(factor, loss.hessian(weights.net, names)) for factor, loss in data.terms]

    @property
    def size(self) -> int:
        """P."""
        return self._terms[0][1].shape[0]

    @cached_property
    def layers(self) -> list[slice]:
        """The positions of each layer's parameters."""
        slices: dict[int, slice] = {}
        for tensor in self.tensors:
            start = slices[tensor.layer].start if tensor.layer in slices else tensor.start
            slices[tensor.layer] = slice(start, tensor.stop)
        return list(slices.values())

    @cached_property
    def rounding(self) -> float:
        """Bound on the rounding error, as a Frobenius norm."""
        net = self.weights.net
        bound = sum(
            abs(factor) * rounding.bound(net.weights, net.biases, loss.X, loss.Y, loss.scale, self._epsilon)
            for factor, loss in self.data.terms
        )
        return (
            bound if math.isfinite(bound) else math.nan
        )  # no difference is within NaN: beyond an overflow nothing is known

    @cached_property
    def diagonal(self) -> Values:
        """The diagonal, to which the functional part adds nothing."""
        return self._summed(lambda H: H.diagonal())

    def _summed(self, of: Callable[[Hessian], Any]) -> Values:
        return _total(self._terms, of)

    def product(self, part: str, V: Values) -> Values:
        """Return the product of a part with (P, k) vectors, without a matrix."""
        if part == "full":
            return self._summed(lambda H: H @ V)
        if part in ("gauss_newton", "functional"):
            return self._summed(lambda H: getattr(H, part)() @ V)
        if part == "opposed":
            return self.product("gauss_newton", V) - self.product("functional", V)
        if part == "diagonal":
            return self.diagonal[:, None] * V
        out = self.product("full", V) if part == "exchanged" else np.empty_like(V)
        for at, piece in self._pieces(part):
            inner = V[at]
            if part != "exchanged":
                out[at] = self._block(piece, inner)
                continue
            order = self._exchanged(at)
            moved = np.empty_like(inner)
            moved[order] = inner
            out[at] += self._block(piece, moved)[order] - self._block(piece, inner)
        return out

    def _pieces(self, part: str) -> list[tuple[slice, list[str]]]:
        if part == "tensors":
            return [(slice(t.start, t.stop), [t.full_name]) for t in self.tensors]
        names = [[t.full_name for t in self.tensors if at.start <= t.start < at.stop] for at in self.layers]
        return list(zip(self.layers, names, strict=True))

    def _block(self, names: list[str], V: Values) -> Values:
        key = ",".join(names)
        if key not in self._blocks:
            net = self.weights.net
            self._blocks[key] = [(factor, loss.hessian(net, names)) for factor, loss in self.data.terms]
        return _total(self._blocks[key], lambda H: H @ V)

    @cached_property
    def _blocks(self) -> dict[str, list[tuple[float, Hessian]]]:
        return {}

    def _exchanged(self, at: slice) -> NDArray[np.intp]:
        """Return the order of a layer whose Kronecker factors are exchanged, counted from the layer's start."""
        inner = [t for t in self.tensors if at.start <= t.start < at.stop]
        order: NDArray[np.intp] = np.concatenate([column_order(t) for t in inner]) - at.start
        return order

    def dense(self, part: str) -> Values:
        """Return a part as a dense matrix, O(P²); made once; do not change it."""
        if part not in self._dense:
            self._dense[part] = self._new_dense(part)
        return self._dense[part]

    @cached_property
    def _dense(self) -> dict[str, Values]:
        return {}

    def _new_dense(self, part: str) -> Values:
        memory.require(2 * 8 * self.size**2, f"a dense {self.size} x {self.size} Hessian", "explain its spectrum.")
        if part in ("gauss_newton", "functional"):
            return self._summed(lambda H: getattr(H, part)().toarray())
        if part == "opposed":
            return self._summed(lambda H: H.gauss_newton().toarray() - H.functional().toarray())
        if part == "diagonal":
            return np.diag(self.diagonal)
        matrix = self._whole()
        if part in ("layers", "tensors"):
            kept = np.zeros_like(matrix)
            for at, _ in self._pieces(part):
                kept[at, at] = matrix[at, at]
            return kept
        if part == "exchanged":
            for at, _ in self._pieces(part):
                order = self._exchanged(at)
                matrix[at, at] = matrix[at, at][np.ix_(order, order)]
        return matrix

    def _whole(self) -> Values:
        return self._summed(lambda H: H.toarray())

    def eigenvalues(self, part: str) -> Values:
        """Return all eigenvalues of a part, ascending."""
        if len(self._terms) == 1 and part in ("full", "gauss_newton", "functional"):
            factor, H = self._terms[0]
            operator = H if part == "full" else getattr(H, part)()
            return np.sort(factor * operator.eigvalsh())
        if len(self._terms) == 1 and part in ("layers", "tensors"):
            net, (factor, loss) = self.weights.net, self.data.terms[0]
            pieces = [factor * loss.hessian(net, names).eigvalsh() for _, names in self._pieces(part)]
            joined: Values = np.sort(np.concatenate(pieces))
            return joined
        return decompositions.eigvalsh(self.dense(part))


def _total(terms: Sequence[tuple[float, Hessian]], of: Callable[[Hessian], Any]) -> Values:
    factor, H = terms[0]
    total: Values = of(H)
    if factor != 1.0:
        total *= factor
    for factor, H in terms[1:]:
        total += factor * of(H)
    return total


@dataclass(frozen=True)
class CandidateModel:
    """``factor * M[index][:, index] + shift * I``, M a part of a curvature: the matrix that a candidate may be.

    `inner` is a multiple of the identity inside M; it matters where rows and columns have different orders.

    `sides`: "both", or "rows" or "columns" if the order applies to these only. `triangle`: "", "upper" or "lower".
    `store`: how all entries are rounded in the end. `diagonal`: what else is added to the diagonal, (P,).
    """

    curvature: Curvature
    part: str = "full"
    index: NDArray[np.intp] | None = None
    factor: float = 1.0
    shift: float = 0.0
    sides: str = "both"
    triangle: str = ""
    inner: float = 0.0
    store: Callable[[Values], Values] | None = None
    diagonal: Values | None = None

    @property
    def size(self) -> int:
        """P."""
        return self.curvature.size

    @property
    def tolerance(self) -> float:
        """Bound on the rounding error, as a Frobenius norm."""
        added = 0.0 if self.diagonal is None else float(np.linalg.norm(self.diagonal))
        shifts = abs(self.shift) * float(np.sqrt(self.size)) + added
        return abs(self.factor) * self.curvature.rounding + 1e-15 * shifts

    def rows(self, at: slice) -> Values:
        """Return some rows of the dense matrix."""
        index, matrix = self.index, self.curvature.dense(self.part)
        ordered = index is not None and self.sides != "columns"
        rows = matrix[index[at]] if ordered and index is not None else matrix[at]
        if self.inner:
            from_row = index[at] if ordered and index is not None else np.arange(at.start, at.stop)
            rows = rows.copy()
            rows[np.arange(len(rows)), from_row] += self.inner
        if index is not None and self.sides != "rows":
            rows = rows[:, index]
        rows = self.factor * rows
        count = np.arange(len(rows))
        rows[count, count + at.start] += self.shift
        if self.diagonal is not None:
            rows[count, count + at.start] += self.diagonal[at]
        if self.triangle:
            beyond = np.arange(self.size)[None, :] - (count + at.start)[:, None]
            rows[beyond > 0 if self.triangle == "lower" else beyond < 0] = 0.0
        return rows if self.store is None else self.store(rows)

    def toarray(self) -> Values:
        """Return the dense matrix."""
        memory.require(2 * 8 * self.size**2, f"a dense {self.size} x {self.size} matrix", "look at its rows.")
        return np.concatenate([self.rows(at) for at in chunks(self.size)])


def chunks(size: int) -> list[slice]:
    """Return the slices of rows that are read together."""
    return [slice(at, min(at + ROWS, size)) for at in range(0, size, ROWS)]


@dataclass(frozen=True)
class Difference:
    """Where a candidate and a model differ.

    Attributes
    ----------
    norm, candidate, model : float
        Frobenius norms of the difference and of both.
    largest : float
        The largest difference of two entries, at `where`.
    where : (int, int)
    blocks : (T, T) array
        Frobenius norms of the blocks of the tensors.
    row_norms : (P,) array
    """

    norm: float
    candidate: float
    model: float
    largest: float
    where: tuple[int, int]
    blocks: Values
    row_norms: Values

    @property
    def relative(self) -> float:
        """The difference over the larger of both norms."""
        return self.norm / (max(self.candidate, self.model) or 1.0)


def difference(matrix: Values, model: CandidateModel, tensors: Sequence[Tensor]) -> Difference:
    """Compare a candidate with a model entry by entry, in one pass by blocks of rows."""
    starts = [tensor.start for tensor in tensors]
    squares = np.zeros((len(matrix), len(starts)))
    of_candidate = of_model = largest = 0.0
    where = (0, 0)
    for at in chunks(len(matrix)):
        expected, rows = model.rows(at), matrix[at]
        of_candidate += float(np.vdot(rows, rows))
        of_model += float(np.vdot(expected, expected))
        gap = np.subtract(rows, expected, out=expected)
        high = int(np.abs(gap).argmax())
        value = abs(float(gap.reshape(-1)[high]))
        if value > largest:
            row, column = divmod(high, gap.shape[1])
            largest, where = value, (at.start + row, column)
        squares[at] = np.add.reduceat(np.square(gap, out=gap), starts, axis=1)
    return Difference(
        float(np.sqrt(squares.sum())),
        float(np.sqrt(of_candidate)),
        float(np.sqrt(of_model)),
        largest,
        where,
        np.sqrt(np.add.reduceat(squares, starts, axis=0)),
        np.sqrt(squares.sum(axis=1)),
    )
