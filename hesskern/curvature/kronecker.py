r"""The Hessian of one layer: a Kronecker product that is never formed unless asked for.

For layer l of ``P = W_L ... W_1`` with ``A_l = W_{l-1} ... W_1`` and ``B_l = W_L ... W_{l+1}``, and samples in the
rows of X:

    ``H_ll = scale * (B_l.T B_l) ⊗ (A_l X.T X A_l.T) + weight_decay * I``

in PyTorch's row-major order of ``W_l (m_l, m_{l-1})``: output factor ⊗ input factor. (Papers that stack columns have
the factors the other way round: the same spectrum, another matrix.)
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern._base.interrupt import RATE, interruptibly
from hesskern._base.powers import Scaled, too_large
from hesskern.backends.data import Data
from hesskern.backends.protocol import ProductSvd
from hesskern.curvature.dense_blocks import inner_indices, interleaved
from hesskern.curvature.hessian import Hessian
from hesskern.linalg.condition import Condition, undefined
from hesskern.linalg.eigenbasis import Eigenbasis, FactorBasis, IdentityBasis, KroneckerBasis

#: Samples that were reduced are read again where that amplified rounding errors by more, and samples are as small as:
_AMPLIFIED = 1e3
_SMALL = 1e-2
#: The largest relative error of singular values that are told from zero, and up to which tolerance they are looked for.
_LEAST_KNOWN, _MOST_TOLERANCE = 0.1, 1e-3
#: Where there are more numbers than this, it is left at the reduction and what it says of its errors.
_MOST_NUMBERS = 1 << 21


class KroneckerHessian(Hessian):
    """Hessian with respect to parameters of one layer, as a Kronecker product.

    Made by ``loss.hessian(net, params=[layer])`` or ``H.block(layer, layer)``. Shape (P, P), P = out·in (+ out with a
    bias), in the order of the layer's weight (row-major), then its bias. Eigenvalues, condition number, rank, solutions
    and determinants come from the two factors.

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> net = hk.LinearNetwork([np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])])
    >>> loss = hk.SquaredLoss(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[1.0], [0.0]]))
    >>> H = loss.hessian(net, params=[1])
    >>> H.toarray()
    array([[10.,  3.],
           [ 3.,  1.]])
    >>> H.rank(), round(H.cond(), 6)
    (2, 118.991596)
    """

    _form = "Kronecker "

    @property
    def layer(self) -> int:
        """Which layer, counted from 0."""
        return self.parts[0].layer

    @property
    def output_factor(self) -> Array:
        """``scale * B_l.T B_l`` (out, out), without weight decay."""
        return _in(self.dtype, self._factors.output_gram(self.layer, self.layer))

    @property
    def input_factor(self) -> Array:
        """``A_l X.T X A_l.T`` (in, in); with a selected bias (in+1, in+1), the constant input last."""
        gram = self._factors.input_gram(self.layer, self.layer)
        return _in(self.dtype, Scaled(gram.matrix[self._inner, self._inner], gram.exponent))

    @property
    def _inner(self) -> slice:
        return inner_indices(self.parts[0], self._net.weights[self.layer].shape[1])

    def _eigenbasis(self, *, lift: bool) -> Eigenbasis:
        if lift not in self._bases:
            outputs, scale = len(self._net.weights[self.layer]), self._loss.scale
            self._decomposed = self._factors
            top, inputs = self._factors.jacobian(self.layer, self._inner)
            outer = IdentityBasis(outputs, scale) if top is None else FactorBasis(top, scale, lift=lift)
            order = interleaved(inputs.shape[1], outputs, self.parts[0]) if self.parts[0].bias else None
            self._bases[lift] = KroneckerBasis(outer, FactorBasis(inputs, 1.0, lift=lift), order)
        return self._bases[lift]

    @property
    def _of_squares(self) -> bool:
        return True

    def _zero_below(self, basis: Eigenbasis, tolerance: float) -> float:
        unit = basis.dense_size * float(np.finfo(self.dtype).eps)
        return max(tolerance, unit**2 * basis.groups.max)

    def condition(self) -> Condition:
        """Return the condition number with its rank, tolerance, gap and uncertainty; see `Condition`.

        Taken from singular values of the factors, never from the dense matrix or from ``X.T X``: squaring loses half of
        the digits, and the product ``X W_1.T ...`` itself is not formed (product SVD after Drmač 1998). O(out·in²),
        independent of the number of samples and of P², but for samples of very different scales, which are read again:
        their reduction has lost the small ones.
        """
        scale, shift, size = self._loss.scale, self._shift, self.shape[0]
        outputs = len(self._net.weights[self.layer])
        epsilon = float(np.finfo(self.dtype).eps)
        above = self._net.weights[self.layer + 1 :]
        tolerance = max(self._loss.num_samples, *self._net.widths) * epsilon
        into = self._input_svd(tolerance)
        out_of = (
            self._product_svd([_float64(above[0]).T, *map(_float64, above[1:])], tolerance, rotated=False)
            if above
            else ProductSvd(np.ones(outputs), np.zeros(outputs, np.int64), outputs, 1.0, 0.0, 0.0, 0.0)
        )
        rank = into.rank * out_of.rank
        gap, possible = math.inf, 1
        for found in (into, out_of):
            left_out = found.rank < len(found.values) and (found.dropped or found.lost)
            possible *= len(found.values) if left_out else found.rank
            if not left_out:
                continue
            if found.dropped:
                gap = min(gap, min(into.kept, out_of.kept) / found.dropped)
            if tolerance * found.lost:  # what was left out may be as large as its errors
                gap = min(gap, 1.0 / (4.0 * tolerance * found.lost))
        undecided = 0 if shift else possible - rank
        if rank == 0 and not shift:
            return replace(
                undefined(size, tolerance), gap=gap, undecided=undecided, below=math.inf if undecided else 0.0
            )
        largest = smallest = _Number(shift)
        uncertainty = 0.0
        if rank:
            largest = _eigenvalue(scale, shift, into, 0, out_of, 0)
            if rank == size or not shift:
                smallest = _eigenvalue(scale, shift, into, into.rank - 1, out_of, out_of.rank - 1)
            change = 4.0 * epsilon * (into.amplification + out_of.amplification)
            for hidden in (tolerance * into.lost, tolerance * out_of.lost):
                change += hidden * min(hidden, 1.0)  # what stands apart adds up as squares do
            uncertainty = math.inf if math.isnan(change) else change * (2.0 + change)
        if shift and rank == 0 < possible:  # whatever was left out may be the largest
            uncertainty = math.inf
        elif shift and rank < possible == size:  # the smallest may be what was left out, more than the shift alone
            uncertainty += _left_out(scale, shift, into, out_of, tolerance)
        return Condition(
            value=float(largest / smallest),
            largest=float(largest),
            smallest=float(smallest),
            rank=size if shift else rank,
            size=size,
            tolerance=tolerance,
            gap=gap,
            uncertainty=uncertainty,
            undecided=undecided,
            below=math.inf if undecided else 0.0,
        )

    def _input_svd(self, tolerance: float) -> ProductSvd:
        """Return the singular values of what goes into this layer."""
        reduced = len(self._data.X) < self._loss.num_samples
        chain = self._input_chain(self._data)
        found = self._product_svd(chain, tolerance, rotated=reduced)
        if not reduced or (found.rank == len(found.values) and found.amplification < _AMPLIFIED):
            return found
        data = self._loss.data(bias=self._net.has_bias, reduced=False)
        gone = len(data.X) < self._loss.num_samples  # reduced while they were read
        if not gone and not _graded(data.X):
            return found
        if gone or data.X.size > _MOST_NUMBERS:
            return found._replace(dropped=found.kept) if found.rank < len(found.values) else found
        return self._product_svd(self._input_chain(data), tolerance, rotated=False)

    def _product_svd(self, chain: list[NDArray[np.float64]], tolerance: float, *, rotated: bool) -> ProductSvd:
        """Return the singular values of ``chain[0] chain[1].T ...``."""
        unit = float(np.finfo(self.dtype).eps)
        found = first = self._factor_svd(chain, tolerance, rotated=rotated)
        # A pivot just above what its errors are expected to be leaves values that are known to no digit. More counts as
        # zero then, and what may so be lost is an error like that of rounding.
        raised = 1.0
        while found.rank and 4.0 * unit * found.amplification > _LEAST_KNOWN and raised * tolerance < _MOST_TOLERANCE:
            raised *= 8.0
            found = self._factor_svd(chain, raised * tolerance, rotated=rotated)
            found = found._replace(amplification=raised * found.amplification, lost=raised * found.lost)
        known = 4.0 * unit * found.amplification < 1 and bool((found.values[: found.rank] > 0).all())
        if found.rank and not known:  # a value known to no digit may be zero
            found = _above_norm(chain, first, tolerance, unit)
        if found.rank == 0 and not all(factor.any() for factor in chain):  # nothing was lost: a factor is zero
            found = found._replace(dropped=0.0, lost=0.0)
        return found

    def _factor_svd(self, chain: list[NDArray[np.float64]], tolerance: float, *, rotated: bool) -> ProductSvd:
        work = sum(50.0 * factor.size * min(factor.shape) for factor in chain)
        first, *weights = chain
        svd = self._backend.product_svd
        try:
            return interruptibly(svd, first, weights, tolerance, rotated=rotated, seconds=work / RATE)
        except np.linalg.LinAlgError:  # errors have left float64, and the values with them
            count = min(*first.shape, *map(len, weights))
            return ProductSvd(np.zeros(count), np.zeros(count, np.int64), 0, 1.0, 1.0, math.nan, 0.0)

    def _input_chain(self, data: Data) -> list[NDArray[np.float64]]:
        """Return X and weights whose product ``X W_1.T ... W_{l-1}.T`` is the input of this layer, biases included."""
        net, part = self._net, self.parts[0]
        if not net.has_bias:
            return [_float64(factor) for factor in (data.X, *net.weights[: self.layer])]
        chain: list[Array] = [np.column_stack([data.X, data.column])]
        for weight, bias in zip(net.weights[: self.layer], net.biases[: self.layer], strict=True):
            constant = np.zeros((1, weight.shape[1] + 1))
            constant[0, -1] = 1.0
            column = np.zeros(len(weight)) if bias is None else bias
            chain.append(np.vstack([np.column_stack([weight, column]), constant]))
        inner = inner_indices(part, net.weights[self.layer].shape[1])
        chain[-1] = chain[-1][inner] if self.layer > 0 else chain[-1][:, inner]
        return [_float64(factor) for factor in chain]


def _in(dtype: np.dtype[Any], scaled: Scaled) -> Array:
    """Return the matrix in this dtype; OverflowError if it does not fit."""
    with np.errstate(over="ignore"):
        found: Array = scaled.value.astype(dtype)
    if not np.isfinite(found).all():
        raise too_large(dtype)
    return found


def _float64(array: Array) -> NDArray[np.float64]:
    return np.ascontiguousarray(array, dtype=np.float64)


class _Number:
    """A number that is not negative, of any size: ``mantissa * 2**exponent``."""

    def __init__(self, mantissa: float, exponent: int = 0) -> None:
        self._mantissa, shift = math.frexp(mantissa)
        self._exponent = exponent + shift

    def __add__(self, other: _Number) -> _Number:
        if not (self._mantissa and other._mantissa):
            return self if self._mantissa else other
        large, small = (self, other) if self._exponent >= other._exponent else (other, self)
        return _Number(
            large._mantissa + math.ldexp(small._mantissa, small._exponent - large._exponent), large._exponent
        )

    def __truediv__(self, other: _Number) -> _Number:
        return _Number(self._mantissa / other._mantissa, self._exponent - other._exponent)

    def __float__(self) -> float:
        """Return the nearest float, which may be 0 or infinite."""
        try:
            return math.ldexp(self._mantissa, self._exponent)
        except OverflowError:
            return math.inf


def _eigenvalue(scale: float, shift: float, inner: ProductSvd, i: int, outer: ProductSvd, j: int) -> _Number:
    """Return `scale` times the square of the product of two singular values, plus `shift`."""
    value = float(inner.values[i]) * float(outer.values[j])
    found = _Number(scale * value * value, 2 * (int(inner.exponents[i]) + int(outer.exponents[j])))
    return found + _Number(shift) if shift else found


def _above_norm(chain: list[NDArray[np.float64]], found: ProductSvd, tolerance: float, unit: float) -> ProductSvd:
    """Return the same with those values only that are above errors relative to the norm of the product's magnitudes."""
    product, exponent = _near_one(np.abs(chain[0]))
    for factor in chain[1:]:
        size, more = _near_one(np.abs(factor))
        product, again = _near_one(product @ size.T)
        exponent += more + again
    bound = 4.0 * tolerance * float(np.linalg.norm(product))
    with np.errstate(over="ignore"):
        values = np.ldexp(found.values[: found.rank], found.exponents[: found.rank] - exponent)
    sound = bound > 0 and math.isfinite(found.amplification) and bool(np.isfinite(values).all())
    rank = int(np.sum(values > 2.0 * bound)) if sound else 0
    if rank == 0:
        return found._replace(rank=0, dropped=found.kept)
    relative = bound / float(values[rank - 1])
    return found._replace(
        rank=rank, dropped=found.kept, amplification=relative / (4.0 * unit), lost=3.0 * relative / tolerance
    )


def _near_one(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return a matrix without negative entries over a power of two, its largest entry about one, and the exponent."""
    exponent = int(np.frexp(matrix.max(initial=0.0))[1])
    return np.ldexp(np.ldexp(matrix, -(exponent // 2)), exponent // 2 - exponent), exponent


def _left_out(scale: float, shift: float, into: ProductSvd, out_of: ProductSvd, tolerance: float) -> float:
    """Return a bound on eigenvalues that were left out, over the shift: errors of a factor, the other's largest."""
    total = 0.0
    for found, i, j in ((into, into.rank - 1, 0), (out_of, 0, out_of.rank - 1)):
        hidden = tolerance * found.lost
        if found.rank == len(found.values) or hidden == 0:
            continue
        values = math.log2(float(into.values[i])) + math.log2(float(out_of.values[j])) + math.log2(hidden)
        exponents = int(into.exponents[i]) + int(out_of.exponents[j])
        logarithm = math.log2(scale) - math.log2(shift) + 2.0 * (values + exponents)
        total += 2.0**logarithm if logarithm < 1024 else math.inf
    return total


def _graded(X: Array) -> bool:
    """Return whether some samples are so small, each feature measured by its largest value, that a sum loses them."""
    size = np.abs(X)
    most = size.max(axis=0)
    rows = (size / np.where(most > 0, most, 1)).max(axis=1)
    rows = rows[rows > 0]
    return rows.size > 0 and float(rows.min()) < _SMALL * float(rows.max())
