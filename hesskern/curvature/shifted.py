"""Shifted forms of a network's Hessian, tested for definiteness: see `hesskern.linalg.certificate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern._base.interrupt import BYTES, interruptibly
from hesskern.backends.protocol import Block, HostBackend, Side
from hesskern.curvature.deep_problem import deep_basis, deep_ranks_of
from hesskern.curvature.dense_blocks import grid, inner_indices
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.linalg.certificate import add_product
from hesskern.linalg.eigenbasis import ChosenBasis
from hesskern.network.parameters import Part

#: A diagonal entry of the block that is eliminated is at least this share of the shift.
_SMALL_PIVOT = 1e-6


class TwoLayers:
    """The Hessian of a two-layer network, or its Gauss-Newton part; the first layer is eliminated.

    In the bases of the singular vectors of W_2 and of the inputs X, the block of the first layer is diagonal. With T
    the inverse of ``shift - sign H_11``, what is left is ``shift I - sign H_22 - C T C.T`` on the second layer (o n),
    which is made in O(o h (n + i) max(o, h)) without C.
    """

    def __init__(self, factors: Factors, parts: Sequence[Part], mode: Mode) -> None:
        self._lower, self._upper = parts
        self._scale = factors.scale
        first, second = factors.weights
        self._units = len(first)
        inner = inner_indices(self._lower, first.shape[1])
        inputs = factors.inputs[0].matrix[:, inner]
        hidden = factors.inputs[1].matrix[:, inner_indices(self._upper, second.shape[1])]
        self._left, strengths, self._right = decompositions.svd(second)
        self._squares, self._turn = decompositions.eigh(inputs.T @ inputs)
        self._outputs, self._columns = len(second), hidden.shape[1]
        self._strengths = np.zeros(max(self._units, self._outputs))
        self._strengths[: len(strengths)] = strengths
        hidden = self._turned_hidden(hidden)
        self._gram = self._scale * (hidden.T @ hidden)
        self._across = hidden.T @ (inputs @ self._turn)
        self._gradient: Matrix | None = None
        if mode == "full" and self._upper.weight:
            gradient = factors.residual_gram(1, 0).matrix[:, inner]
            self._gradient = self._left.T @ gradient @ self._turn
        self.size, self.left_out = self._outputs * self._columns, 0.0
        self.lower_bound = 0.0 if self._gradient is None else decompositions.norm(self._gradient)

    def _turned_hidden(self, columns: Matrix) -> Matrix:
        """Return arrays whose last axis is that of the second layer's inputs in the basis of the singular vectors."""
        if not self._upper.weight:
            return columns
        turned = columns[..., : self._units] @ self._right.T
        return np.concatenate([turned, columns[..., self._units :]], axis=-1) if self._upper.bias else turned

    def is_definite(self, sign: int, shift: float, vectors: Matrix, push: float) -> bool | None:
        """Return whether ``shift I - sign H + push V.T V`` is positive definite; None: it cannot say."""
        o, n, h = self._outputs, self._columns, self._units
        pivots = shift - sign * self._scale * np.multiply.outer(self._strengths[:h] ** 2, self._squares)
        if not pivots.min() > _SMALL_PIVOT * abs(shift):
            return None
        inverse = 1.0 / pivots  # (h, i)
        both, outputs, units = np.arange(min(o, h)), np.arange(o), np.arange(h)
        strengths = self._scale * self._strengths[both, None, None]
        rest = np.zeros((o, n, o, n))
        weighted = strengths * (self._across * inverse[both, None, :])  # (both, n, i)
        blocks = np.repeat((-sign * self._gram)[None], o, axis=0)
        blocks[:, np.arange(n), np.arange(n)] += shift
        blocks[both] -= strengths * (weighted @ self._across.T)
        rest[outputs, :, outputs, :] = blocks
        if self._gradient is not None:
            G = self._gradient
            rest[:, units, :, units] -= (G * inverse[:, None, :]) @ G.T
            mixed = weighted @ G.T  # (both, n, o)
            rest[both, :, :, both] -= mixed
            rest[:, both, both, :] -= mixed.transpose(2, 0, 1)
        matrix = rest.reshape(self.size, self.size)
        left, right = self._pushed(sign, inverse, vectors, push)
        add_product(matrix, left, right)
        return decompositions.is_positive_definite(matrix)

    def _pushed(self, sign: int, inverse: Matrix, vectors: Matrix, push: float) -> tuple[Matrix, Matrix]:
        """Return the two factors of what ``push V.T V`` adds to the Schur complement."""
        o, h, k = self._outputs, self._units, len(vectors)
        split = h * len(self._squares)
        lower = _matrices(vectors[:, :split], h, self._lower)
        upper = _matrices(vectors[:, split:], o, self._upper)
        lower = self._right @ lower @ self._turn
        upper = self._turned_hidden(self._left.T @ upper)  # (k, o, n)
        moved = inverse * lower
        both = min(o, h)
        image = np.zeros_like(upper)
        image[:, :both] = self._scale * self._strengths[:both, None] * (moved[:, :both] @ self._across.T)
        if self._gradient is not None:
            image[:, :, :h] += (moved @ self._gradient.T).transpose(0, 2, 1)
        upper = (upper + sign * image).reshape(k, -1)
        middle = np.eye(k) / push + moved.reshape(k, -1) @ lower.reshape(k, -1).T
        return upper, decompositions.solve(middle, upper)


def _matrices(flat: Matrix, outer: int, part: Part) -> Matrix:
    """Return a layer's vectors (k, ...) as matrices (k, outer, inner), the bias last."""
    k = len(flat)
    if not (part.weight and part.bias):
        return flat.reshape(k, outer, -1)
    return np.concatenate([flat[:, :-outer].reshape(k, outer, -1), flat[:, -outer:, None]], axis=2)


class DenseShifted:
    """The dense Hessian that is left after all reductions.

    Parameters
    ----------
    factors : Factors
        Of the network after the reductions of width.
    parts : sequence of Part
    mode : {"full", "gauss_newton", "functional"}
    residual_error : callable
        Returns how far the norm of the residual may be off by rounding.
    backend : HostBackend
    """

    def __init__(
        self,
        factors: Factors,
        parts: Sequence[Part],
        mode: Mode,
        residual_error: Callable[[], float],
        backend: HostBackend,
    ) -> None:
        self._deep = deep_ranks_of(factors, parts, mode, residual_error)
        self._factors, self._parts, self._mode, self._backend = factors, parts, mode, backend
        self._whole = sum(
            len(factors.weights[part.layer]) * (factors.weights[part.layer].shape[1] * part.weight + part.bias)
            for part in parts
        )
        self.size = self._whole if self._deep is None else self._deep.size

    @cached_property
    def left_out(self) -> float:
        """The norm of what was taken for zero on the way to this matrix."""
        if self._deep is None:
            return 0.0
        jacobian = sum((np.linalg.norm(top) * np.linalg.norm(inputs)) ** 2 for top, inputs in self._deep.jacobian)
        functional = 0.0 if self._mode == "gauss_newton" else self._deep.problem()[2].functional
        return functional + 2.0 * self._deep.dropped_jacobian * float(np.sqrt(abs(self._factors.scale) * jacobian))

    @cached_property
    def _problem(self) -> tuple[list[Side], list[Block]]:
        if self._deep is not None and self._mode == "gauss_newton":
            pairs = self._deep.jacobian
            sides = [Side(top.shape[1], inputs.shape[1], False) for top, inputs in pairs]
            scale = self._factors.scale
            blocks = [Block(scale * (top.T @ left), inputs.T @ right) for top, inputs in pairs for left, right in pairs]
        elif self._deep is not None:
            sides, blocks, _ = self._deep.problem()
        else:
            dtype = np.dtype(np.float64)
            _, sides, blocks = grid(self._factors, self._parts, self._parts, self._mode, "row", dtype)
        return sides, blocks

    @cached_property
    def lower_bound(self) -> float:
        """No eigenvalue is below minus this: the norm of the functional part, from those of its blocks."""
        total = 0.0
        for block in self._problem[1]:
            if block.B is not None and block.W is not None:
                total += float(np.linalg.norm(block.B) * np.linalg.norm(block.W)) ** 2
        return float(np.sqrt(total))

    @cached_property
    def _matrix(self) -> Matrix:
        sides, blocks = self._problem
        dense = np.empty((self.size, self.size))
        interruptibly(self._backend.assemble, sides, sides, blocks, dense, seconds=dense.nbytes / BYTES)
        return dense

    def is_definite(self, sign: int, shift: float, vectors: Matrix, push: float) -> bool | None:
        """Return whether ``shift I - sign H + push V.T V`` is positive definite."""
        if self.size < self._whole and shift <= 0:
            return False  # what was left out are zeros
        inside = self._inside(vectors)
        matrix = self._matrix * -float(sign)
        matrix.reshape(-1)[:: self.size + 1] += shift
        add_product(matrix, inside, push * inside)
        return decompositions.is_positive_definite(matrix)

    def _inside(self, vectors: Matrix) -> Matrix:
        if self._deep is None:
            return vectors
        unchanged = _Unchanged(self._deep.size)
        return (
            deep_basis(self._deep, unchanged, self._factors, self._parts, self._mode)
            .coordinates(vectors.T)[: self.size]
            .T
        )


class _Unchanged(ChosenBasis):
    """The coordinates themselves."""

    def __init__(self, size: int) -> None:
        self.values: NDArray[np.float64] = np.zeros(size)
        self.dense_size = size

    def coordinates(self, columns: Matrix) -> Matrix:
        return columns

    vectors = coordinates
