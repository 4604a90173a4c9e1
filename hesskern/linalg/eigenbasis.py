"""Eigenbases: orthogonal changes of coordinates in which a Hessian is diagonal, kept as small factors.

Each basis has `groups` (eigenvalues with multiplicities), `values` (all P of them, in the order of its coordinates) and
the two directions of the change, `coordinates` and `vectors`, both for arrays with one column a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hesskern._base.cached import cached_property
from hesskern.curvature.layer_factors import Matrix
from hesskern.curvature.width_reduction import PlainLayers, WidthReduction
from hesskern.linalg import decompositions
from hesskern.linalg.spectrum import Spectrum
from hesskern.linalg.tall_qr import TallQR
from hesskern.network.parameters import Part

Values = NDArray[np.float64]


class Eigenbasis(Protocol):
    """An orthogonal basis of eigenvectors."""

    @property
    def groups(self) -> Spectrum:
        """All eigenvalues, compressed."""

    @property
    def values(self) -> Values:
        """Eigenvalues (P,), in the order of the coordinates."""

    @property
    def dense_size(self) -> int:
        """Largest dimension of the matrices decomposed: what rounding errors in the eigenvalues grow with."""

    @property
    def structural_zeros(self) -> int:
        """How many eigenvalues are zero whatever the numbers are."""

    def coordinates(self, columns: Matrix) -> Matrix:
        """Return ``V.T columns``, (P, k) to (P, k)."""

    def vectors(self, columns: Matrix) -> Matrix:
        """Return ``V columns``."""


class DenseBasis:
    """From an eigendecomposition of the matrix itself."""

    structural_zeros = 0

    def __init__(self, values: Values, vectors: Matrix, dense_size: int | None = None) -> None:
        self.values = values
        self._vectors = vectors
        self.dense_size = dense_size or len(values)

    @cached_property
    def groups(self) -> Spectrum:
        return Spectrum._of(self.values, np.ones(len(self.values), dtype=np.int64))

    def coordinates(self, columns: Matrix) -> Matrix:
        return self._vectors.T @ columns

    def vectors(self, columns: Matrix) -> Matrix:
        return self._vectors @ columns


class ValuesOnly:
    """Eigenvalues without their vectors, and how many zeros stand beside them."""

    def __init__(self, values: Values, zeros: int = 0, dense_size: int | None = None) -> None:
        padded, multiplicities = np.zeros(len(values) + 1), np.ones(len(values) + 1, np.int64)
        padded[:-1], multiplicities[-1] = values, max(zeros, 0)
        self.groups = Spectrum._of(padded, multiplicities)
        self.structural_zeros = int(multiplicities[-1])
        self.dense_size = dense_size or len(values)

    @property
    def values(self) -> Values:
        return self.groups.expand()

    def coordinates(self, columns: Matrix) -> Matrix:
        raise AssertionError("eigenvectors were not computed")

    vectors = coordinates


class FactorBasis:
    """Eigenvalues of ``F.T F``, descending, and its full orthogonal matrix of eigenvectors; the rest are zeros.

    Parameters
    ----------
    factor : (n, k) array
    scale : float
        Multiplies the eigenvalues.
    lift : bool
        Whether eigenvectors are wanted. Of a factor much wider than high they are kept as reflectors.
    """

    def __init__(self, factor: Matrix, scale: float, *, lift: bool) -> None:
        rows, columns = factor.shape
        self._wide = TallQR(factor.T.copy(order="F")) if lift and columns > 2 * rows else None
        self._vectors: Matrix | None = None
        if self._wide is not None:
            self._vectors, found, _ = decompositions.svd(self._wide.R)
        elif lift:
            _, found, transposed = decompositions.svd(factor)
            self._vectors = transposed.T
        else:
            found = decompositions.svdvals(factor)
        self.values: Values = np.zeros(columns)
        self.values[: len(found)] = scale * found**2
        #: How many of them are computed; the others are zeros.
        self.computed = len(found)

    def change(self, columns: Matrix, *, back: bool) -> Matrix:
        """Return ``V.T columns`` or (`back`) ``V columns``."""
        if self._vectors is None:
            raise AssertionError("eigenvectors were not computed")
        small = self._vectors if back else self._vectors.T
        if self._wide is None:
            return small @ columns
        top = len(small)
        if not back:
            columns = self._wide.rotate(columns, back=False)
        moved = np.concatenate([small @ columns[:top], columns[top:]])
        return self._wide.rotate(moved, back=True) if back else moved


class IdentityBasis:
    """Of a multiple of the identity."""

    def __init__(self, size: int, scale: float) -> None:
        self.values: Values = np.full(size, scale)
        self.computed = size

    def change(self, columns: Matrix, *, back: bool) -> Matrix:
        """Return the columns as they are."""
        del back
        return columns


class KroneckerBasis:
    """Of ``U ⊗ V``: products of the factors' eigenvalues, Kronecker products of their eigenvectors.

    `order` says where in the Kronecker product each parameter stands; None: in this order.
    """

    def __init__(self, outer: FactorBasis | IdentityBasis, inner: FactorBasis, order: NDArray[np.intp] | None) -> None:
        self._outer, self._inner, self._order = outer, inner, order
        self.dense_size = max(int(np.count_nonzero(factor.values)) for factor in (outer, inner))
        self.structural_zeros = len(outer.values) * len(inner.values) - outer.computed * inner.computed

    @property
    def values(self) -> Values:
        return np.outer(self._outer.values, self._inner.values).ravel()

    @cached_property
    def groups(self) -> Spectrum:
        outer, inner = self._outer.values, self._inner.values
        found = inner[inner > 0]
        zeros = len(outer) * len(inner)
        if isinstance(self._outer, IdentityBasis):  # every eigenvalue of the inner factor once for each output
            found, counts = outer[0] * found, np.full(len(found), len(outer))
        else:
            found = np.outer(outer[outer > 0], found).ravel()
            counts = np.ones(len(found), dtype=np.int64)
        return Spectrum._of(np.append(found, 0.0), np.append(counts, zeros - counts.sum()))

    def coordinates(self, columns: Matrix) -> Matrix:
        if self._order is not None:
            columns = columns[np.argsort(self._order)]
        return self._both(columns, back=False)

    def vectors(self, columns: Matrix) -> Matrix:
        found = self._both(columns, back=True)
        return found if self._order is None else found[self._order]

    def _both(self, columns: Matrix, *, back: bool) -> Matrix:
        outer, inner, k = len(self._outer.values), len(self._inner.values), columns.shape[1]
        flat = columns.reshape(outer, inner, k).transpose(1, 0, 2).reshape(inner, -1)
        cube = self._inner.change(flat, back=back).reshape(inner, outer, k).transpose(1, 0, 2)
        return self._outer.change(cube.reshape(outer, -1), back=back).reshape(len(columns), k)


class WidthBasis:
    """Of a network with a wide hidden layer: the reduced one's basis, and the small block for each left-over unit."""

    def __init__(
        self,
        reduction: WidthReduction,
        small: PlainLayers,
        coupling: Matrix,
        inner: Eigenbasis,
        parts: Sequence[Part],
    ) -> None:
        self._reduction, self._small, self._inner, self._parts = reduction, small, inner, parts
        self.dense_size = inner.dense_size
        # Columns: parameters below the unit; rows: above it. Full orthogonal factors, padded with zero singular values.
        self._above, sigma, below = decompositions.svd(coupling)
        self._below = below.T
        self._pairs = len(sigma)
        root = np.sqrt(0.5)
        self._mix = np.array([[root, root], [root, -root]])
        rest = sum(coupling.shape) - 2 * self._pairs
        self.small_values = np.concatenate([sigma, -sigma, np.zeros(rest)])
        zeros = rest if coupling.any() else len(self.small_values)
        self.structural_zeros = inner.structural_zeros + reduction.left_over * zeros

    @cached_property
    def groups(self) -> Spectrum:
        inner = self._inner.groups
        count = np.full(len(self.small_values), self._reduction.left_over)
        return Spectrum._of(
            np.concatenate([inner.values, self.small_values]), np.concatenate([inner.multiplicities, count])
        )

    @cached_property
    def values(self) -> Values:
        return np.concatenate([self._inner.values, np.tile(self.small_values, self._reduction.left_over)])

    def coordinates(self, columns: Matrix) -> Matrix:
        kept, k = self._reduction.kept, columns.shape[1]
        blocks = _split(self._reduction.net, self._parts, columns)
        below, above = self._around(blocks, self._reduction.units)
        reduced = dict(blocks)
        rotated_below = self._rotate(below, back=False)  # (h, parameters below, k)
        rotated_above = self._rotate(above, back=False)
        self._put_around(reduced, rotated_below[:kept], rotated_above[:kept])
        inner = self._inner.coordinates(_join(self._parts, reduced, k))
        a = np.einsum("hpk,pq->hqk", rotated_below[kept:], self._below)
        c = np.einsum("hpk,pq->hqk", rotated_above[kept:], self._above)
        pairs = self._pairs
        plus = self._mix[0, 0] * a[:, :pairs] + self._mix[0, 1] * c[:, :pairs]
        minus = self._mix[1, 0] * a[:, :pairs] + self._mix[1, 1] * c[:, :pairs]
        small = np.concatenate([plus, minus, a[:, pairs:], c[:, pairs:]], axis=1)
        return np.concatenate([inner, small.reshape(-1, k)])

    def vectors(self, columns: Matrix) -> Matrix:
        kept, k = self._reduction.kept, columns.shape[1]
        small_size = len(self.small_values)
        split = len(columns) - small_size * self._reduction.left_over
        reduced = _split(self._small, self._parts, self._inner.vectors(columns[:split]))
        small = columns[split:].reshape(self._reduction.left_over, small_size, k)
        pairs, below_size = self._pairs, len(self._below)
        plus, minus = small[:, :pairs], small[:, pairs : 2 * pairs]
        rest_a, rest_c = np.split(small[:, 2 * pairs :], [below_size - pairs], axis=1)
        a = np.concatenate([self._mix[0, 0] * plus + self._mix[1, 0] * minus, rest_a], axis=1)
        c = np.concatenate([self._mix[0, 1] * plus + self._mix[1, 1] * minus, rest_c], axis=1)
        below, above = self._around(reduced, kept)
        full = dict(reduced)
        self._put_around(
            full,
            self._rotate(np.concatenate([below[:kept], np.einsum("hqk,pq->hpk", a, self._below)]), back=True),
            self._rotate(np.concatenate([above[:kept], np.einsum("hqk,pq->hpk", c, self._above)]), back=True),
        )
        return _join(self._parts, full, k)

    def _rotate(self, cube: Matrix, *, back: bool) -> Matrix:
        return self._reduction.rotate(cube.reshape(len(cube), -1), back=back).reshape(cube.shape)

    def _around(self, blocks: dict[tuple[int, str], Matrix], units: int) -> tuple[Matrix, Matrix]:
        """Return the selected parameters below (h, p, k) and above (h, o, k) each unit of the layer."""
        layer = self._reduction.layer
        k = next(iter(blocks.values())).shape[-1]
        below, above = np.zeros((units, 0, k)), np.zeros((units, 0, k))
        if (layer, "weight") in blocks:
            below = blocks[layer, "weight"]
        if (layer, "bias") in blocks:
            below = np.concatenate([below, blocks[layer, "bias"][:, None, :]], axis=1)
        if (layer + 1, "weight") in blocks:
            above = blocks[layer + 1, "weight"].transpose(1, 0, 2)
        return below, above

    def _put_around(self, blocks: dict[tuple[int, str], Matrix], below: Matrix, above: Matrix) -> None:
        layer = self._reduction.layer
        inputs = below.shape[1] - ((layer, "bias") in blocks)
        if (layer, "weight") in blocks:
            blocks[layer, "weight"] = below[:, :inputs]
        if (layer, "bias") in blocks:
            blocks[layer, "bias"] = below[:, -1]
        if (layer + 1, "weight") in blocks:
            blocks[layer + 1, "weight"] = above.transpose(1, 0, 2)


def _split(net: PlainLayers, parts: Sequence[Part], columns: Matrix) -> dict[tuple[int, str], Matrix]:
    """Return each selected parameter, with one vector along the last axis."""
    blocks: dict[tuple[int, str], Matrix] = {}
    at, k = 0, columns.shape[1]
    for part in parts:
        outputs, inputs = net.weights[part.layer].shape
        if part.weight:
            blocks[part.layer, "weight"] = columns[at : at + outputs * inputs].reshape(outputs, inputs, k)
            at += outputs * inputs
        if part.bias:
            blocks[part.layer, "bias"] = columns[at : at + outputs]
            at += outputs
    return blocks


def _join(parts: Sequence[Part], blocks: dict[tuple[int, str], Matrix], k: int) -> Matrix:
    pieces: list[Matrix] = []
    for part in parts:
        if part.weight:
            pieces.append(blocks[part.layer, "weight"].reshape(-1, k))
        if part.bias:
            pieces.append(blocks[part.layer, "bias"])
    return np.concatenate(pieces)
