"""Singular values and numerical rank of a product ``first W_1.T W_2.T ...`` that is never formed.

After Drmač (1998, SIAM J. Matrix Anal. Appl. 19, 1055). One stage takes C and W and replaces them by one factor with
the same singular values: with ``W = Q R P.T``, ``C W.T = (C P R.T) Q.T``, so C becomes ``C P R.T`` and the next W
becomes ``W_next Q``. The last factor's values come from one-sided Jacobi (dgejsv).

Rows and columns of any scale keep their digits. Every matrix is kept as ``2**row * entries * 2**column`` with integer
exponents. In every QR decomposition columns *and* rows are pivoted (Cox and Higham 1998, Higham 2000), because a plain
decomposition mixes small rows with the rounding errors of large ones.

With every matrix goes the size of its errors: for each entry, the effect of a relative rounding error in the data. An
entry no larger than its error counts as zero, so that scaling hides no direction and rounding errors make none. The
errors at the end give the uncertainty (`ProductSvd.amplification`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern.backends.graded_qr import Exponents, Matrix, factor, power
from hesskern.backends.protocol import ProductSvd

Factor = Callable[..., tuple[int, float, float, float]]

_NOTHING = -(1 << 40)  # exponent of zero
_LEAST = -900  # exponent of the smallest error that is recorded


def _exponents(x: Matrix) -> Exponents:
    return np.where(x > 0, np.frexp(x)[1].astype(np.int64), _NOTHING)


def _log2(x: Matrix) -> Matrix:
    return np.log2(x, out=np.full(x.shape, -np.inf), where=x > 0)


class _GradedMatrix(NamedTuple):
    """``2**rows * entries * 2**columns``, and in the same units the errors of the entries per rounding unit."""

    entries: Matrix
    errors: Matrix
    rows: Exponents
    columns: Exponents

    def balanced(self, tolerance: float) -> _GradedMatrix:
        """Return the same matrix with entries up to one in every row and column; noise counts by its own size."""
        sizes = _exponents(np.maximum(np.abs(self.entries), tolerance * self.errors))
        rows = sizes.max(axis=1, initial=_NOTHING)
        rows[rows == _NOTHING] = 0
        columns = np.where(sizes == _NOTHING, _NOTHING, sizes - rows[:, None]).max(axis=0, initial=_NOTHING)
        columns[columns == _NOTHING] = 0
        shift = -(rows[:, None] + columns)
        half = shift // 2  # 2**shift itself may be out of range
        entries, errors = (np.ldexp(np.ldexp(x, half), shift - half) for x in (self.entries, self.errors))
        return _GradedMatrix(entries, errors, self.rows + rows, self.columns + columns)


class _Qr(NamedTuple):
    R: _GradedMatrix  # upper triangular, with the errors of all entries, those below the diagonal too
    order: Exponents  # of the rows
    pivot: Exponents  # of the columns
    v: Matrix  # one column for each reflection, rows in their own units as those of R are
    beta: list[float]
    inverse: Matrix  # absolute values of that of R's first `rank` rows and columns

    @property
    def rank(self) -> int:
        return len(self.beta)

    def weighted(self, k: int) -> Matrix:
        """Return what scalar products with reflection k are taken with: its rows in the unit of row k, twice."""
        scale = power(self.R.rows - self.R.rows[k])
        return scale * (scale * self.v[:, k])


class _Decisions:
    """The decisions along the product on which entries are zero, and their certainty."""

    def __init__(self, tolerance: float, factor: Factor) -> None:
        self.tolerance, self.factor = tolerance, factor
        self.kept, self.dropped, self.amplification, self.lost, self.unknown = 1.0, 0.0, 1.0, 0.0, 0.0

    def see(self, kept: float, dropped: float, unknown: float) -> None:
        """Record what one decomposition kept and dropped."""
        self.kept, self.dropped = min(self.kept, kept), max(self.dropped, dropped)
        self.unknown = max(self.unknown, unknown)

    def without_noise(self, entries: Matrix, errors: Matrix) -> Matrix:
        """Return the entries, with zeros for entries that are not above their errors."""
        noise = np.abs(entries) <= self.tolerance * errors
        if noise.any():
            worst = np.max(np.abs(entries[noise]) / np.where(errors[noise] > 0, errors[noise], 1.0))
            self.dropped = max(self.dropped, float(worst))
        return np.where(noise, 0.0, entries)

    def lose(self, qr: _Qr) -> None:
        """Record the size of the errors in the rows after the rank, relative to the smallest value that is kept."""
        r = rows = qr.rank
        if r == len(qr.order):
            return
        R, E, units, columns = qr.R
        beside = _log2(E[rows:, :r].max(axis=1)) + units[rows:]  # of the columns kept: relative to the same columns
        outside = _log2(E[rows:, r:]) + units[rows:, None] + columns[r:]
        kept = _log2(np.abs(np.diag(R)[:r])) + units[:r]
        worst = max(beside.max() - kept.min(), outside.max(initial=-np.inf) - (kept + columns[:r]).min())
        if worst > -np.inf:  # what is very small is not certainly zero
            self.lost = max(self.lost, float(np.exp2(min(max(worst, _LEAST), 1000.0))))


def _qr(matrix: _GradedMatrix, decisions: _Decisions) -> _Qr:
    """Return the QR decomposition with rows and columns pivoted."""
    from scipy.linalg import lapack  # noqa: PLC0415 - `import hesskern` need not wait for it

    a, e, rows, columns = matrix.entries.copy(), matrix.errors.copy(), matrix.rows.copy(), matrix.columns.copy()
    m, n = a.shape
    order, pivot, v, beta = np.arange(m), np.arange(n), np.zeros((m, min(m, n))), np.zeros(min(m, n))
    rank, *decision = decisions.factor(a, e, rows, columns, order, pivot, v, beta, decisions.tolerance)
    decisions.see(*decision)
    inverse = np.abs(lapack.dtrtri(a[:rank, :rank])[0]) if rank else np.zeros((0, 0))
    return _Qr(_GradedMatrix(a, e, rows, columns), order, pivot, v, beta[:rank].tolist(), inverse)


def _possible_rank(matrix: _GradedMatrix, tolerance: float, factor: Factor) -> int:
    """Return the rank of the matrix; the largest possible one if rounding errors hide entries of it."""
    qr = _qr(matrix, _Decisions(tolerance, factor))
    r, count = qr.rank, qr.v.shape[1]
    entries, errors = (np.abs(x)[qr.order][:, qr.pivot] for x in (matrix.entries, matrix.errors))
    hidden = (entries > tolerance * errors) & (entries <= tolerance * qr.R.errors)
    return count if hidden[r:].any() or hidden[:, r:].any() else r


def _next_weight(weight: _GradedMatrix, qr: _Qr, Y: Matrix) -> _GradedMatrix:
    """Return ``weight Q``, its columns in units of ``2**-rows`` of the rows of R that they are multiplied by.

    The errors Y of Q are among its errors.
    """
    entries = weight.entries[:, qr.order]
    units = (_exponents(np.abs(entries)) + qr.R.rows).max(axis=1)
    units[units < _NOTHING // 2] = 0
    z = (entries * power(qr.R.rows - units[:, None])).T
    e = np.abs(z)
    for k, beta in enumerate(qr.beta):
        v, weighted = qr.v[:, k], qr.weighted(k)
        by = (beta * weighted)[:, None]
        z -= by * (v @ z)
        e = np.maximum(e, np.abs(by) * np.sqrt(np.square(v[:, None] * e).sum(axis=0)))
        e = np.maximum(e, np.abs(z))
    count = qr.v.shape[1]
    e[: qr.rank] = np.maximum(e[: qr.rank], np.sqrt(np.square(Y).T @ np.square(z)))
    return _GradedMatrix(z[:count].T, e[:count].T, weight.rows + units, np.zeros(count, np.int64))


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite in the end is known to no digit
def product_svd(
    first: Matrix, weights: Sequence[Matrix], tolerance: float, *, rotated: bool = False, factor: Factor = factor
) -> ProductSvd:
    """Return the singular values of the product and its rank; see `HostBackend.product_svd`.

    `factor` is `graded_qr.factor`, compiled or not.
    """
    decisions = _Decisions(tolerance, factor)
    C = data = _rotated(first) if rotated else _unscaled(first, np.abs(first)).balanced(tolerance)
    chain = [_unscaled(weight, np.abs(weight)).balanced(tolerance) for weight in weights]
    qr, Y = None, np.zeros((0, 0))
    for k, link in enumerate(chain):
        W = link if qr is None else _next_weight(link, qr, Y)
        # The scales of C's columns belong to those of W, and those of the next weight's columns to its rows.
        W = W._replace(columns=W.columns + C.columns).balanced(tolerance)
        if k + 1 < len(chain):
            W = W._replace(rows=W.rows + chain[k + 1].columns)
        qr = _qr(W, decisions)
        Y, U = _parted(qr)
        C = _times_transposed(C, qr, U, decisions).balanced(tolerance)
    if qr is not None:
        C = C._replace(columns=C.columns + qr.R.rows[: C.columns.size])
        decisions.amplification += _left_error(Y, qr.R.rows)
        decisions.lost = _left_error_outside(Y, qr.R.rows)
    last = _qr(C, decisions)
    count = min(first.shape + tuple(len(weight) for weight in weights))
    if last.rank < count and last.rank < min(_possible_rank(matrix, tolerance, factor) for matrix in (data, *chain)):
        # No factor lacks the direction: the product cancels, or rounding errors hide what is left.
        decisions.dropped = decisions.kept
    values, exponents = np.zeros(count), np.zeros(count, np.int64)
    if last.rank:
        decisions.lose(last)
        values[: last.rank], exponents[: last.rank] = _singular_values(last)
        Y, U = _parted(last)
        decisions.amplification += _left_error(Y, last.R.rows) + _right_error(last, U)
    amplification = max(decisions.amplification, decisions.unknown)
    return ProductSvd(values, exponents, last.rank, decisions.kept, decisions.dropped, amplification, decisions.lost)


def _unscaled(entries: Matrix, errors: Matrix) -> _GradedMatrix:
    return _GradedMatrix(entries, errors, np.zeros(len(entries), np.int64), np.zeros(entries.shape[1], np.int64))


def _rotated(first: Matrix) -> _GradedMatrix:
    """Return a triangular factor whose small rows may be rounding errors: errors are relative to whole columns."""
    columns = _exponents(np.abs(first)).max(axis=0)
    columns[columns == _NOTHING] = 0
    half = columns // 2
    entries = np.ldexp(np.ldexp(first, -half), half - columns)
    errors = np.tile(np.linalg.norm(entries, axis=0), (len(first), 1))
    return _GradedMatrix(entries, errors, np.zeros(len(first), np.int64), columns)


def _times_transposed(C: _GradedMatrix, qr: _Qr, E: Matrix, decisions: _Decisions) -> _GradedMatrix:
    """Return ``C R.T`` without the scales of R's rows, which go to the columns of the next weight."""
    count = qr.v.shape[1]
    R = qr.R.entries[:count]
    sizes = _exponents(np.maximum(np.abs(R), decisions.tolerance * E)) + qr.R.columns
    units = sizes.max(axis=1)
    units[units < _NOTHING // 2] = 0
    scale = power(qr.R.columns - units[:, None])
    R, E = R * scale, E * scale
    entries, errors = C.entries[:, qr.pivot], C.errors[:, qr.pivot]
    product = entries @ R.T
    spread = np.sqrt(np.square(entries) @ np.square(E).T + np.square(errors) @ np.square(R).T)
    spread = np.maximum(spread, np.abs(product))
    return _GradedMatrix(decisions.without_noise(product, spread), spread, C.rows, units)


def _parted(qr: _Qr) -> tuple[Matrix, Matrix]:
    """Return the errors of R as two: relative ones on the left, absolute ones of the upper triangle.

    To first order ``R + E`` is ``(I + Y) (R + U)``, Y below the diagonal and U above: ``E_low R^-1`` is Y and what it
    has above the diagonal, which times R goes into ``U = E_up + ...``. As rows and columns are pivoted, neither divides
    errors of a large scale by a small one. Y is in units of ``2**(row k - row l)``, U in the units of R.
    """
    r, count = qr.rank, qr.v.shape[1]
    R, E, below = np.abs(qr.R.entries[:r]), qr.R.errors, _below(*qr.R.errors.shape)
    Y = np.where(below[:, :r], E[:, :r], 0.0) @ qr.inverse
    U = np.where(below[:count], 0.0, E[:count])
    U[:r] += np.where(below[:r, :r], 0.0, Y[:r]) @ R
    Y = np.where(below[:, :r], Y, 0.0)
    U[:, r:] += Y[:count] @ R[:, r:]
    return Y, U


def _below(rows: int, columns: int) -> NDArray[np.bool_]:
    """Return where a matrix's entries below the diagonal are."""
    lower: NDArray[np.bool_] = np.arange(rows)[:, None] > np.arange(columns)
    return lower


def _left_error(Y: Matrix, rows: Exponents) -> float:
    """Return the norm of Y without its units."""
    r = Y.shape[1]
    return float(np.linalg.norm(Y[:r] * power(rows[:r, None] - rows[:r])))


def _left_error_outside(Y: Matrix, rows: Exponents) -> float:
    """Return the norm of Y's rows after the rank without its units: what R has there of its kept rows."""
    r = Y.shape[1]
    size = float(np.linalg.norm(Y[r:] * power(rows[r:, None] - rows[:r])))
    return max(size, float(np.exp2(_LEAST))) if Y[r:].any() else 0.0


def _right_error(qr: _Qr, U: Matrix) -> float:
    """Return the norm of ``R^-1 U``: ``R + U`` is ``R (I + R^-1 U)``."""
    r, columns = qr.rank, qr.R.columns
    change = qr.inverse @ U[:r]
    return float(np.linalg.norm(change * power(columns - columns[:r, None])))


def _singular_values(qr: _Qr) -> tuple[Matrix, Exponents]:
    """Return the singular values of R, descending, as numbers times powers of two."""
    r = qr.rank
    entries, _, rows, columns = qr.R
    # Each row of R with the exponent of its largest entry: columns of R.T.
    sizes = _exponents(np.abs(entries[:r])) + columns
    units = sizes.max(axis=1)
    scaled = (entries[:r] * power(columns - units[:, None])).T
    units = units + rows[:r]
    values, exponents = [], []
    # Where scales fall by 1e18 and more what is above and what is below no longer touch each other, once an orthogonal
    # factor is taken off.
    least, most = np.minimum.accumulate(units), np.maximum.accumulate(units[::-1])[::-1]
    ends = (np.flatnonzero(least[:-1] - most[1:] > 60) + 1).tolist()
    triangle = decompositions.triangular(scaled) if ends else scaled
    for start, end in zip([0, *ends], [*ends, r], strict=True):
        base = int(units[start:end].max())
        block = triangle[start : end if ends else None, start:end] * power(units[start:end] - base)
        if not np.isfinite(block).all():
            raise np.linalg.LinAlgError("the factors of this block are beyond the range of float64")
        values += list(decompositions.graded_svdvals(block))
        exponents += [base] * (end - start)
    mantissas, shifts = np.frexp(values)
    total = np.array(exponents) + shifts
    order = np.lexsort((-mantissas, -total))
    return mantissas[order], total[order].astype(np.int64)
