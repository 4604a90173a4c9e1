"""Eigenbases: orthogonal changes of coordinates in which a Hessian is diagonal, kept as small factors.

Each basis has `groups` (eigenvalues with multiplicities), `values` (all P of them, in the order of its coordinates) and
the two directions of the change, `coordinates` and `vectors`, both for arrays with one column a vector.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern.linalg.spectrum import Spectrum
from hesskern.linalg.tall_qr import TallQR

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
        """Largest dimension of the matrices decomposed; rounding errors in the eigenvalues grow with it."""

    @property
    def structural_zeros(self) -> int:
        """How many eigenvalues are zero for any weights and data."""

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


class ChosenBasis:
    """A few eigenpairs: `values` (k,), `vectors` (P, k). The others are missing, so this has no `groups`."""

    structural_zeros = 0

    def __init__(self, values: Values, vectors: Matrix) -> None:
        self.values, self._vectors = values, vectors
        self.dense_size = vectors.shape[1]

    @property
    def groups(self) -> Spectrum:
        raise AssertionError("only a few eigenvalues were computed")

    def coordinates(self, columns: Matrix) -> Matrix:
        return self._vectors.T @ columns

    def vectors(self, columns: Matrix) -> Matrix:
        return self._vectors @ columns


class InnerAndZeros:
    """What bases share that add zeros to the eigenvalues of an inner basis; they change the coordinates."""

    _inner: Eigenbasis
    _zeros: int

    @cached_property
    def groups(self) -> Spectrum:
        inner = self._inner.groups
        return Spectrum._of(np.append(inner.values, 0.0), np.append(inner.multiplicities, self._zeros))

    @cached_property
    def values(self) -> Values:
        return np.concatenate([self._inner.values, np.zeros(self._zeros)])


class ZeroedBasis:
    """A basis of which some eigenvalues are zero by shape: those closest to zero.

    Parameters
    ----------
    inner : Eigenbasis
        As it was computed: with rounding errors for these zeros.
    rank : int
        How many eigenvalues may be nonzero.
    """

    def __init__(self, inner: Eigenbasis, rank: int) -> None:
        self._inner = inner
        self.values: Values = inner.values.copy()
        zeros = max(len(self.values) - max(rank, 0), 0)
        self.values[np.argsort(np.abs(self.values), kind="stable")[:zeros]] = 0.0
        self.structural_zeros = max(zeros, inner.structural_zeros)
        self.dense_size = inner.dense_size

    @cached_property
    def groups(self) -> Spectrum:
        return Spectrum._of(self.values, np.ones(len(self.values), dtype=np.int64))

    def coordinates(self, columns: Matrix) -> Matrix:
        return self._inner.coordinates(columns)

    def vectors(self, columns: Matrix) -> Matrix:
        return self._inner.vectors(columns)


class ZeroBasis:
    """Of a matrix of zeros."""

    dense_size = 0

    def __init__(self, size: int) -> None:
        self.structural_zeros = size
        self.values: Values = np.zeros(size)
        self.groups = Spectrum._of(np.zeros(1), np.array([size]))

    def coordinates(self, columns: Matrix) -> Matrix:
        return columns

    def vectors(self, columns: Matrix) -> Matrix:
        return columns


class ValuesOnly:
    """Eigenvalues without their vectors, and the number of further zeros."""

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
        Whether eigenvectors are computed too. For a factor much wider than high they are kept as reflectors.
    """

    def __init__(self, factor: Matrix, scale: float, *, lift: bool) -> None:
        rows, columns = factor.shape
        self._wide = TallQR(factor.T.copy(order="F")) if lift and columns > 2 * rows else None
        self._vectors: Matrix | None = None
        if self._wide is not None:
            self._vectors, singular_values, _ = decompositions.svd(self._wide.R)
        elif lift:
            _, singular_values, transposed = decompositions.svd(factor)
            self._vectors = transposed.T
        else:
            singular_values = decompositions.svdvals(factor)
        self.values: Values = np.zeros(columns)
        self.values[: len(singular_values)] = scale * singular_values**2
        #: How many of them are computed; the others are zeros.
        self.computed = len(singular_values)

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

    `order` has the position of each parameter in the Kronecker product; None: in this order.
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
        values = inner[inner > 0]
        zeros = len(outer) * len(inner)
        if isinstance(self._outer, IdentityBasis):  # every eigenvalue of the inner factor once for each output
            values, counts = outer[0] * values, np.full(len(values), len(outer))
        else:
            values = np.outer(outer[outer > 0], values).ravel()
            counts = np.ones(len(values), dtype=np.int64)
        return Spectrum._of(np.append(values, 0.0), np.append(counts, zeros - counts.sum()))

    def coordinates(self, columns: Matrix) -> Matrix:
        if self._order is not None:
            columns = columns[np.argsort(self._order)]
        return self._rotated(columns, back=False)

    def vectors(self, columns: Matrix) -> Matrix:
        rotated = self._rotated(columns, back=True)
        return rotated if self._order is None else rotated[self._order]

    def _rotated(self, columns: Matrix, *, back: bool) -> Matrix:
        outer, inner, k = len(self._outer.values), len(self._inner.values), columns.shape[1]
        flat = columns.reshape(outer, inner, k).transpose(1, 0, 2).reshape(inner, -1)
        cube = self._inner.change(flat, back=back).reshape(inner, outer, k).transpose(1, 0, 2)
        return self._outer.change(cube.reshape(outer, -1), back=back).reshape(len(columns), k)
