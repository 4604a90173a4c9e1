r"""The condition number of one layer's block from the singular values of its factors.

The factors are the products ``X W_1.T ... W_{l-1}.T`` and ``W_L ... W_{l+1}``. Neither is formed: a product of matrices
of very different scales, or its square, loses digits that a product SVD keeps (Drmač 1998).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hesskern._base.array_types import Array, Matrix
from hesskern._base.interrupt import RATE, interruptibly
from hesskern.backends.data import Data
from hesskern.backends.protocol import ProductSvd
from hesskern.curvature.dense_blocks import inner_indices
from hesskern.curvature.point import Point
from hesskern.linalg.condition import Condition, undefined
from hesskern.network.parameters import Part, part_size

#: Reduced samples are read again if the reduction amplified rounding errors by more than `_AMPLIFIED`, and some samples
#: are smaller than `_SMALL` times others.
_AMPLIFIED = 1e3
_SMALL = 1e-2
#: The largest relative error of a singular value that counts, and the largest tolerance that is tried.
_LEAST_KNOWN, _MOST_TOLERANCE = 0.1, 1e-3
#: Samples of more numbers than this are not read again: the reduction and its bound on the errors have to do.
_MOST_NUMBERS = 1 << 21


def layer_condition(point: Point, part: Part, shift: float) -> Condition:
    """Return the condition number of a layer's Gauss-Newton block plus `shift` times the identity.

    It comes from singular values of the factors, never from the dense matrix or from ``X.T X``, because squaring loses
    half of the digits. The product ``X W_1.T ...`` itself is not formed either (product SVD after Drmač 1998).
    O(out·in²), independent of the number of samples and of P². Samples of very different scales are read again, because
    their reduction has lost the small ones.
    """
    net, scale, size = point.net, point.objective.scale, part_size(point.net, part)
    outputs = len(net.weights[part.layer])
    epsilon = float(np.finfo(point.dtype).eps)
    above = net.weights[part.layer + 1 :]
    tolerance = max(point.objective.num_samples, *net.widths) * epsilon
    input_svd = _input_svd(point, part, tolerance)
    output_svd = (
        _product_svd(point, [_float64(above[0]).T, *map(_float64, above[1:])], tolerance, rotated=False)
        if above
        else ProductSvd(np.ones(outputs), np.zeros(outputs, np.int64), outputs, 1.0, 0.0, 0.0, 0.0)
    )
    rank = input_svd.rank * output_svd.rank
    gap, possible = math.inf, 1
    for svd in (input_svd, output_svd):
        left_out = svd.rank < len(svd.values) and (svd.dropped or svd.lost)
        possible *= len(svd.values) if left_out else svd.rank
        if not left_out:
            continue
        if svd.dropped:
            gap = min(gap, min(input_svd.kept, output_svd.kept) / svd.dropped)
        if tolerance * svd.lost:  # what was left out may be as large as its errors
            gap = min(gap, 1.0 / (4.0 * tolerance * svd.lost))
    undecided = 0 if shift else possible - rank
    if rank == 0 and not shift:
        return replace(undefined(size, tolerance), gap=gap, undecided=undecided, below=math.inf if undecided else 0.0)
    largest = smallest = _Number(shift)
    uncertainty = 0.0
    if rank:
        largest = _eigenvalue(scale, shift, input_svd, 0, output_svd, 0)
        if rank == size or not shift:
            smallest = _eigenvalue(scale, shift, input_svd, input_svd.rank - 1, output_svd, output_svd.rank - 1)
        change = 4.0 * epsilon * (input_svd.amplification + output_svd.amplification)
        for hidden in (tolerance * input_svd.lost, tolerance * output_svd.lost):
            change += hidden * min(hidden, 1.0)  # what stands apart adds up as squares do
        uncertainty = math.inf if math.isnan(change) else change * (2.0 + change)
    if shift and rank == 0 < possible:  # whatever was left out may be the largest
        uncertainty = math.inf
    elif shift and rank < possible == size:  # the smallest may be what was left out, more than the shift alone
        uncertainty += _left_out(scale, shift, input_svd, output_svd, tolerance)
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


def _input_svd(point: Point, part: Part, tolerance: float) -> ProductSvd:
    """Return the singular values of the inputs of this layer."""
    num_samples = point.objective.num_samples
    reduced = len(point.data.X) < num_samples
    svd = _product_svd(point, _input_chain(point, part, point.data), tolerance, rotated=reduced)
    if not reduced or (svd.rank == len(svd.values) and svd.amplification < _AMPLIFIED):
        return svd
    data = point.objective.data(bias=point.net.has_bias, reduced=False)
    already_reduced = len(data.X) < num_samples  # reduced while they were read
    if not already_reduced and not _graded(data.X):
        return svd
    if already_reduced or data.X.size > _MOST_NUMBERS:
        return svd._replace(dropped=svd.kept) if svd.rank < len(svd.values) else svd
    return _product_svd(point, _input_chain(point, part, data), tolerance, rotated=False)


def _product_svd(point: Point, chain: list[Matrix], tolerance: float, *, rotated: bool) -> ProductSvd:
    """Return the singular values of ``chain[0] chain[1].T ...``."""
    unit = float(np.finfo(point.dtype).eps)
    svd = first = _factor_svd(point, chain, tolerance, rotated=rotated)
    # A pivot just above its expected error leaves values that are known to no digit. Then the tolerance is raised, and
    # what that may lose counts as an error like that of rounding.
    raised = 1.0
    while svd.rank and 4.0 * unit * svd.amplification > _LEAST_KNOWN and raised * tolerance < _MOST_TOLERANCE:
        raised *= 8.0
        svd = _factor_svd(point, chain, raised * tolerance, rotated=rotated)
        svd = svd._replace(amplification=raised * svd.amplification, lost=raised * svd.lost)
    determined = 4.0 * unit * svd.amplification < 1 and bool((svd.values[: svd.rank] > 0).all())
    if svd.rank and not determined:  # a value known to no digit may be zero
        svd = _above_norm(chain, first, tolerance, unit)
    if svd.rank == 0 and not all(factor.any() for factor in chain):  # nothing was lost: a factor is zero
        svd = svd._replace(dropped=0.0, lost=0.0)
    return svd


def _factor_svd(point: Point, chain: list[Matrix], tolerance: float, *, rotated: bool) -> ProductSvd:
    work = sum(50.0 * factor.size * min(factor.shape) for factor in chain)
    first, *weights = chain
    product_svd = point.backend.product_svd
    try:
        return interruptibly(product_svd, first, weights, tolerance, rotated=rotated, seconds=work / RATE)
    except np.linalg.LinAlgError:  # errors have left float64, and the values with them
        count = min(*first.shape, *map(len, weights))
        return ProductSvd(np.zeros(count), np.zeros(count, np.int64), 0, 1.0, 1.0, math.nan, 0.0)


def _input_chain(point: Point, part: Part, data: Data) -> list[Matrix]:
    """Return X and weights whose product ``X W_1.T ... W_{l-1}.T`` is the input of a layer, biases included."""
    net, layer = point.net, part.layer
    if not net.has_bias:
        return [_float64(factor) for factor in (data.X, *net.weights[:layer])]
    chain: list[Array] = [np.column_stack([data.X, data.column])]
    for weight, bias in zip(net.weights[:layer], net.biases[:layer], strict=True):
        constant = np.zeros((1, weight.shape[1] + 1))
        constant[0, -1] = 1.0
        column = np.zeros(len(weight)) if bias is None else bias
        chain.append(np.vstack([np.column_stack([weight, column]), constant]))
    inner = inner_indices(part, net.weights[layer].shape[1])
    chain[-1] = chain[-1][inner] if layer > 0 else chain[-1][:, inner]
    return [_float64(factor) for factor in chain]


def _float64(array: Array) -> Matrix:
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
    eigenvalue = _Number(scale * value * value, 2 * (int(inner.exponents[i]) + int(outer.exponents[j])))
    return eigenvalue + _Number(shift) if shift else eigenvalue


def _above_norm(chain: list[Matrix], svd: ProductSvd, tolerance: float, unit: float) -> ProductSvd:
    """Return `svd` with only the values that are above errors relative to the norm of the product's magnitudes."""
    product, exponent = _near_one(np.abs(chain[0]))
    for factor in chain[1:]:
        size, shift = _near_one(np.abs(factor))
        product, again = _near_one(product @ size.T)
        exponent += shift + again
    bound = 4.0 * tolerance * float(np.linalg.norm(product))
    with np.errstate(over="ignore"):
        values = np.ldexp(svd.values[: svd.rank], svd.exponents[: svd.rank] - exponent)
    finite = bound > 0 and math.isfinite(svd.amplification) and bool(np.isfinite(values).all())
    rank = int(np.sum(values > 2.0 * bound)) if finite else 0
    if rank == 0:
        return svd._replace(rank=0, dropped=svd.kept)
    relative = bound / float(values[rank - 1])
    return svd._replace(
        rank=rank, dropped=svd.kept, amplification=relative / (4.0 * unit), lost=3.0 * relative / tolerance
    )


def _near_one(matrix: Matrix) -> tuple[Matrix, int]:
    """Return a matrix without negative entries over a power of two, its largest entry about one, and the exponent."""
    exponent = int(np.frexp(matrix.max(initial=0.0))[1])
    return np.ldexp(np.ldexp(matrix, -(exponent // 2)), exponent // 2 - exponent), exponent


def _left_out(scale: float, shift: float, input_svd: ProductSvd, output_svd: ProductSvd, tolerance: float) -> float:
    """Return a bound on eigenvalues that were left out, over the shift: errors of a factor, the other's largest."""
    total = 0.0
    for svd, i, j in ((input_svd, input_svd.rank - 1, 0), (output_svd, 0, output_svd.rank - 1)):
        hidden = tolerance * svd.lost
        if svd.rank == len(svd.values) or hidden == 0:
            continue
        values = math.log2(float(input_svd.values[i])) + math.log2(float(output_svd.values[j])) + math.log2(hidden)
        exponents = int(input_svd.exponents[i]) + int(output_svd.exponents[j])
        logarithm = math.log2(scale) - math.log2(shift) + 2.0 * (values + exponents)
        total += 2.0**logarithm if logarithm < 1024 else math.inf
    return total


def _graded(X: Array) -> bool:
    """Return whether some samples, relative to each feature's largest value, are so small that sums lose them."""
    size = np.abs(X)
    most = size.max(axis=0)
    rows = (size / np.where(most > 0, most, 1)).max(axis=1)
    rows = rows[rows > 0]
    return rows.size > 0 and float(rows.min()) < _SMALL * float(rows.max())
