r"""Inputs become as many as the rank of the data: only ``W_1 V`` is seen by the loss.

*When it holds.* Always, for any loss of the predictions, full batches and minibatches, with biases (X alone is reduced,
not ``[X 1]``). It helps where X (N, i) has rank a < i: fewer samples than inputs, constant or repeated columns, columns
of zeros.

*What it leaves.* With ``X = (X V) V.T`` and V (i, a) with orthonormal columns, the data ``X V`` and the weight
``W_1 V``. The rest, ``W_1 (I - V V.T)``, has no gradient but that of the weight decay λ. It is multiplied by a number
c, for which training has the recursion ``v ← μ v + λ c``, ``c ← c - η v`` (Nesterov ``c ← c - η (λ c + μ v)``) from
c = 1, v = 0.

*How runs are transformed back.* ``(W_1 V) V.T + c W_1(0) (I - V V.T)``; while c = 1 as a change of ``W_1(0)``.

*What it costs.* Fewer samples than inputs: one QR of ``X.T``, O(N² i). Else a look at the pivots of the QR of X, and
only where one of them is small a singular value decomposition, O(i³).

*Where it is not used.* Where the rank is a decision and there is no clear gap: the singular values that are dropped
have to be rounding errors, and the smallest kept one has to be far above them, for X and for X with columns of equal
size. And where V would mix columns whose sizes differ by so many orders of magnitude that predictions lose digits.
Columns of zeros are left out without any mixing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Array, Matrix
from hesskern.backends.hidden_units import LOWER_RANK
from hesskern.backends.protocol import UNBALANCED, PlainLayers

_EPSILON = float(np.finfo(np.float64).eps)
#: Singular values up to this many units of rounding, times the larger side, are rounding errors.
_UNITS = 4.0
#: Fewer inputs than this have the errors of so many.
_FEW = 16
#: Rounding errors of a product, in units of rounding times the product of the absolute values.
_ROUNDING = 16.0
#: How many times larger than that the smallest kept one has to be.
_GAP = 1e4
#: How many times larger than another, not zero, a column may be.
_COLUMNS = 1e6
#: How many times larger the errors of a rotation may be for a single unit; for all, on average, `UNBALANCED` times.
_ONE_UNIT = 1e4


class RowSpan(NamedTuple):
    """An orthonormal basis of the rows of X.

    Attributes
    ----------
    basis : (i, a) array or None
        V; None: nothing is reduced.
    mixes : bool
        Whether V does more than leave columns of zeros out.
    reason : str
        Why nothing is reduced, if X seems to have a lower rank; else empty.
    """

    basis: Matrix | None
    mixes: bool = False
    reason: str = ""

    @property
    def rank(self) -> int | None:
        """The columns of the basis."""
        return None if self.basis is None else self.basis.shape[1]

    @classmethod
    def of(cls, X: Array, *, samples: int | None = None) -> RowSpan:
        """Return the span of the rows of X (n, i).

        Parameters
        ----------
        X : (n, i) array
            The samples, or the factor R of a QR of them.
        samples : int, optional
            N, if X is such a factor, triangular: its entries have the rounding errors of sums of N terms.

        Examples
        --------
        >>> X = np.random.default_rng(0).standard_normal((20, 300))
        >>> span = RowSpan.of(X)
        >>> span.basis.shape, bool(np.allclose(X @ span.basis @ span.basis.T, X))
        ((300, 20), True)
        >>> RowSpan.of(X.T).basis is None
        True
        """
        if len(X) >= X.shape[1] and _is_clearly_full(X, triangular=samples is not None):
            return cls(None)
        used: NDArray[np.bool_] = np.abs(X).max(axis=0) > 0
        count = int(used.sum())
        if count == 0:
            return cls(None)
        columns: Matrix = X[:, used].astype(np.float64)
        largest = np.abs(columns).max(axis=0)
        graded = float(largest.max()) > _COLUMNS * float(largest.min())
        inner: Matrix | None = None
        reason = ""
        # Powers of two change no rank, and squares stay in range.
        columns = np.ldexp(columns, -int(np.frexp(largest.max())[1]))
        if len(columns) < count:
            packed, tau = decompositions.reflectors(columns.T.copy(order="F"))
            inner = decompositions.orthogonal_columns(packed, tau)
        elif graded:
            pass  # no rank is clear, and no rotation is safe
        else:
            inner, reason = _decided(columns)
        if graded and inner is not None:
            inner, reason = None, "the columns of the data differ by orders of magnitude"
        if inner is None and count == len(used):
            return cls(None, reason=reason)
        basis = np.zeros((len(used), count if inner is None else inner.shape[1]))
        basis[used] = np.eye(count) if inner is None else inner
        return cls(basis, inner is not None, reason)


def _is_clearly_full(X: Array, *, triangular: bool) -> bool:
    """Return whether all pivots of X, no wider than tall, are far from zero; this is the short way."""
    packed = X if triangular else decompositions.reflectors(X.astype(np.float64, order="F"))[0]
    smallest: float = min(map(abs, packed.diagonal().tolist()))
    return smallest > LOWER_RANK * float(np.abs(X).max())


def _decided(X: Matrix) -> tuple[Matrix | None, str]:
    """Return a basis of the rows of X, no wider than tall, if its rank is clear and lower than its columns."""
    triangle = decompositions.triangular(X)
    lengths = np.linalg.norm(triangle, axis=0)
    # A column that depends on those before it leaves a pivot of rounding errors.
    if (np.abs(triangle.diagonal()) > LOWER_RANK * lengths).all():
        return None, ""
    _, values, right = decompositions.svd(triangle)
    rank = _clear_rank(values)
    equal = np.ldexp(triangle, -np.frexp(lengths)[1])
    if rank is None or rank != _clear_rank(decompositions.svdvals(equal)):
        return None, "the rank of the data is not clear"
    return (None, "") if rank == len(values) else (right[:rank].T, "")


def _clear_rank(values: Matrix) -> int | None:
    """Return how many singular values, descending, are no rounding errors; None if that is not clear.

    Errors of long sums over samples are smaller than this limit: the QR decomposition adds up blocks.
    """
    least = _UNITS * max(len(values), _FEW) * _EPSILON * float(values[0])
    rank = int(np.sum(values > least))
    return rank if rank == len(values) or values[rank - 1] > _GAP * least else None


def sees_what_is_left_out(X: Array, weight: Array, basis: Matrix) -> bool:
    """Return whether ``X (I - V V.T) W_1.T`` is more than the rounding errors of ``X W_1.T``.

    So it is where weights are so large in a direction that the rank of X leaves out that they make up for that.
    """
    rows, weights = X.astype(np.float64), weight.astype(np.float64)
    left_out = np.linalg.norm((rows - rows @ basis @ basis.T) @ weights.T)
    rounding = _ROUNDING * _EPSILON * np.linalg.norm(np.abs(rows) @ np.abs(weights).T)
    return bool(left_out > rounding)


def mixes_inputs(X: Array, weight: Array, *, samples: bool) -> bool:
    """Return whether a rotation of the inputs loses digits of ``X W_1.T``, what the units get.

    A rotation has errors relative to ``‖x_n‖ ‖w_k‖`` for a sample and a unit, the product as it is relative to
    ``Σ_a |x_na| |w_ka|``.

    Parameters
    ----------
    X : (n, i) array
        The samples, or (not `samples`) the factor R of a QR of them: its rows are sparse, and say less than the sizes
        of its columns.
    weight : (h, i) array
        W_1.
    samples : bool

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, W, sizes = rng.standard_normal((4, 9)), rng.standard_normal((5, 9)), 10.0 ** np.arange(9)
    >>> mixes_inputs(X, W, samples=True), mixes_inputs(X * sizes, W / sizes, samples=True)
    (False, True)
    """
    used = X.any(axis=0)
    rows, weights = np.abs(X[:, used].astype(np.float64)), np.abs(weight[:, used].astype(np.float64))
    if rows.shape[1] == 0:
        return False
    sizes = rows.max(axis=0)
    if sizes.max() <= UNBALANCED * sizes.min():  # a unit gets about as much from each input, whatever the rotation
        return False
    terms = _unit_rows(rows if samples else sizes[None]) @ _unit_rows(weights).T
    terms = terms[terms.any(axis=1)][:, terms.any(axis=0)]
    if terms.size == 0:
        return False
    typical = np.sqrt(np.mean(terms**2, axis=1)).min()
    return bool(typical * UNBALANCED < 1 or float(terms.min()) * _ONE_UNIT < 1)


def _unit_rows(matrix: Matrix) -> Matrix:
    """Return the rows, divided by their norms."""
    scaled = matrix / np.maximum(matrix.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    rows: Matrix = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1.0)
    return rows


class InputStage(NamedTuple):
    """The lowest layer on coordinates in a basis of the inputs."""

    basis: Matrix  # V, (i, a)
    before: Array  # W_1 at the start, and W_1 V
    after: Array
    outside: Matrix | None  # W_1 (I - V V.T); None: the basis spans all inputs

    @classmethod
    def of(cls, layers: PlainLayers, basis: Matrix) -> InputStage:
        """Return the stage for this network."""
        weight = layers.weights[0]
        exact = weight.astype(np.float64)
        coordinates = exact @ basis
        outside = exact - coordinates @ basis.T if basis.shape[1] < basis.shape[0] else None
        return cls(basis, weight, coordinates.astype(weight.dtype), outside)

    @property
    def decaying(self) -> float:
        """The norm of what only decays, also where squares leave the range of float64."""
        largest = 0.0 if self.outside is None else float(np.abs(self.outside).max(initial=0.0))
        if self.outside is None or largest == 0:
            return 0.0
        return largest * float(np.linalg.norm(self.outside / largest))

    def reduced(self, layers: PlainLayers) -> PlainLayers:
        """Return the small network at the start."""
        return layers._replace(weights=(self.after, *layers.weights[1:]))

    def lift(self, layers: PlainLayers, decayed: float) -> PlainLayers:
        """Return the network on all inputs; what is outside the basis is `decayed` times what it was."""
        if decayed == 1.0:  # exact at the start
            return self._with(layers, self.before + (layers.weights[0] - self.after) @ self.basis.T)
        weight = layers.weights[0] @ self.basis.T  # weights may have become much smaller than at the start
        return self._with(layers, weight if self.outside is None else weight + decayed * self.outside)

    def seen(self, layers: PlainLayers) -> PlainLayers:
        """Return the network on all inputs without what the loss does not see."""
        return self._with(layers, layers.weights[0] @ self.basis.T)

    def _with(self, layers: PlainLayers, weight: Array) -> PlainLayers:
        return layers._replace(weights=(weight.astype(self.before.dtype, copy=False), *layers.weights[1:]))
