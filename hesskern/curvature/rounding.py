r"""Errors of a Hessian by rounding in the products of a network's matrices.

The Hessian consists of products of matrices: inputs ``Z_m``, maps ``M_lm = W_{m-1} ... W_{l+1}`` between layers and
``B_l`` from a layer to the prediction, and the residual E. Forming ``A B`` adds an error of at most about
``sqrt(n) * eps * |A| |B|``, entry by entry, with n the length of the sums (rounding errors add up like sqrt(n); long
sums are computed in blocks). To first order such an error is multiplied by the matrices before and after it, and those
products are known already:

    ``dZ_m = Σ_{k<m} u_k (|Z_k| |W_k|.T + 1 |b_k|.T) |M_km|.T``
    ``dM_lm = Σ_{l+1<j<m} u_j |M_jm| |W_j| |M_lj|``, ``dB_l`` in the same way, with the prediction instead of m
    ``dE = dZ_prediction + u |Y|``.

So the bound does not grow with the depth unless the errors do. Magnitudes are multiplied entry by entry, because a
product of norms can be far too large. Examples are hidden units with large input weights and small output weights, and
small features next to a bias. Of Z and E only the norms of their columns are used: samples are reduced by rotations,
which mix them.

With the Jacobian's blocks ``J_l = B_l ⊗ Z_l``, singular values of J are known up to ‖dJ‖; the functional part has the
blocks ``M_lm ⊗ (E B_m).T Z_l``.

Products of the norms of all these take no time and are enough for most networks: `hesskern.curvature.rounding_norms`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base.cached import cached_property
from hesskern._base.powers import Scaled, aligned, moderate
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.network.parameters import Part

_EPSILON = float(np.finfo(np.float64).eps)
#: Factor between the typical size of a rounding error, which is estimated, and a bound on it.
_SAFETY = 4.0
#: Underflow in an entry of a block that is a product of two float64 numbers, each with a power of two of its own.
_UNDERFLOW = 2.0**-960
#: About how many products BLAS sums up before it adds the sum to others.
_BLOCK = 256
#: Numbers of which norms are taken at once.
_AT_ONCE = 1 << 18


class Errors(NamedTuple):
    """Bounds on what rounding adds to a Hessian, as norms."""

    #: Of the Jacobian, times the root of the loss's scale: of each singular value.
    jacobian: float
    #: Of the functional part.
    functional: float
    #: Of the residual, where weights and data were rounded before, too: logarithm to base 2.
    residual: float


class Magnitudes:
    """Bounds on rounding errors, entry by entry.

    Parameters
    ----------
    factors : Factors
        Of the network before any rotation of hidden units, which mixes the entries.
    """

    def __init__(self, factors: Factors) -> None:
        self._factors = factors
        self._units = [unit_of_sum(weight.shape[1]) for weight in factors.weights]
        self._maps: dict[tuple[int, int], Scaled | None] = {}

    def errors(self, parts: Sequence[Part], input_error: float) -> Errors:
        """Return bounds on the errors of these parameters' Hessian; `input_error`: the error of weights and data."""
        scale = log2(self._factors.scale)
        blocks = [scale / 2 + self._jacobian(part) for part in parts]
        pairs = [scale + self._functional(lower, upper) for lower, upper in _pairs(parts)]
        residual = self.residual_error(input_error)
        return Errors(_power(_root_of_squares(blocks)), _power(0.5 + _root_of_squares(pairs)), residual)

    def residual_error(self, input_error: float) -> float:
        """Return the logarithm to base 2 of a bound on the error of the residual's norm."""
        return _sum([_log(term) for term in self._residual_errors(input_error)])

    def functional_part(self, parts: Sequence[Part]) -> float:
        """Return the norm of the functional part, at most."""
        sizes = [
            _log(self._map(lower.layer, upper.layer))
            + _log(self._back(upper.layer, self._residual))
            + _log(self._inputs(lower))
            for lower, upper in _pairs(parts)
        ]
        return _power(log2(self._factors.scale) + 0.5 + _root_of_squares(sizes))

    def blocks(self, parts: Sequence[Part], mode: Mode) -> NDArray[np.float64]:
        """Return bounds on the errors of the blocks of these layers, as norms (L, L)."""
        bounds = np.zeros((len(parts), len(parts)))
        for row, lower in enumerate(parts):
            for column, upper in enumerate(parts[row:], row):
                bounds[row, column] = bounds[column, row] = self._block(lower, upper, mode)
        return bounds

    def _block(self, lower: Part, upper: Part, mode: Mode) -> float:
        logarithms = []
        if mode != "functional":
            sizes = [self._jacobian_size(part) for part in (lower, upper)]
            # Each entry is itself a sum, over samples and outputs, which may cancel.
            unit = unit_of_sum(max(len(self._factors.column), *map(len, self._factors.weights)))
            logarithms = [
                math.log2(unit) + sum(sizes),
                self._jacobian(lower) + sizes[1],
                self._jacobian(upper) + sizes[0],
            ]
        if mode != "gauss_newton" and upper.weight and upper.layer > lower.layer:
            logarithms.append(self._functional(lower, upper))
        total = log2(self._factors.scale) + _sum(logarithms)
        return max(_power(total), _UNDERFLOW) if total > -math.inf else 0.0

    def gradient(self, parts: Sequence[Part], input_error: float) -> list[float]:
        """Return bounds on the errors of the gradient with respect to each of these layers, as norms."""
        residual, error = _log(self._residual), self.residual_error(input_error)
        unit = math.log2(unit_of_sum(len(self._factors.column)))  # the sum over samples
        scale = log2(self._factors.scale)
        return [
            _power(
                scale
                + _sum([self._jacobian(part) + residual, self._jacobian_size(part) + _sum([unit + residual, error])])
            )
            for part in parts
        ]

    def _jacobian_size(self, part: Part) -> float:
        """Return the logarithm of the norm of ``B ⊗ Z``, at most."""
        return _log(self._map(part.layer, self._factors.depth)) + _log(self._inputs(part))

    def _jacobian(self, part: Part) -> float:
        """Return the logarithm of a bound on the error of a layer's ``B ⊗ Z``."""
        layer, depth = part.layer, self._factors.depth
        top, below = _log(self._map(layer, depth)), _log(self._inputs(part))
        return _sum(
            [
                *(_log(term) + below for term in self._map_errors(layer, depth)),
                *(_log(term) + top for term in self._input_errors(part)),
            ]
        )

    def _functional(self, lower: Part, upper: Part) -> float:
        """Return the same for ``M ⊗ (E B).T Z`` of two layers."""
        between, below = _log(self._map(lower.layer, upper.layer)), _log(self._inputs(lower))
        back = _log(self._back(upper.layer, self._residual))
        back_errors = [self._back(upper.layer, term) for term in self._residual_errors(0.0)]
        back_errors += [_times(self._residual, term) for term in self._map_errors(upper.layer, self._factors.depth)]
        return _sum(
            [
                math.log2(max(self._units)) + between + back + below,
                *(_log(term) + back + below for term in self._map_errors(lower.layer, upper.layer)),
                *(_log(term) + between + below for term in back_errors),
                *(_log(term) + between + back for term in self._input_errors(lower)),
            ]
        )

    # Magnitudes -------------------------------------------------------------------------------------------------------

    @cached_property
    def _columns(self) -> list[Scaled]:
        """Norms of the columns of each layer's inputs, without the constant one."""
        return [
            _column_norms(Scaled(below.matrix[:, : weight.shape[1]], below.exponent))
            for below, weight in zip(self._factors.inputs, self._factors.weights, strict=True)
        ]

    @cached_property
    def _constant(self) -> Scaled:
        return _column_norms(_sizes(self._factors.column[:, None]))

    @cached_property
    def _residual(self) -> Scaled:
        return _column_norms(self._factors.residual)

    def _weight(self, layer: int) -> Scaled:
        return _sizes(self._factors.weights[layer])  # not kept: it may be as large as the network

    def _inputs(self, part: Part) -> Scaled:
        """Return the norms of what multiplies these parameters: inputs, and the constant one."""
        if not part.bias:
            return self._columns[part.layer]
        return self._constant if not part.weight else _joined(self._columns[part.layer], self._constant)

    def _map(self, lower: int, upper: int) -> Scaled | None:
        """Return the map from the output of a layer to the input of another, or to the prediction; None: identity."""
        if (lower, upper) not in self._maps:
            end = upper == self._factors.depth
            product = self._factors.above[lower] if end else self._factors.between(lower, upper)
            self._maps[lower, upper] = None if product is None else Scaled(abs(product.matrix), product.exponent)
        return self._maps[lower, upper]

    def _back(self, layer: int, row: Scaled) -> Scaled:
        """Return the residual, given by its columns' norms, taken back to the output of a layer."""
        return _through(row, self._map(layer, self._factors.depth))

    # Errors -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _terms(self) -> list[list[Scaled]]:
        """The terms of each layer's outputs: products with its weights, and the bias."""
        terms = []
        for layer, (columns, bias) in enumerate(zip(self._columns, self._factors.biases, strict=True)):
            terms.append([_times(columns, _transposed(self._weight(layer)))])
            if bias is not None:
                terms[-1].append(_times(self._constant, _sizes(bias[None, :])))
        return terms

    def _local(self, layer: int, unit: float) -> list[Scaled]:
        """Return the errors made at the outputs of a layer."""
        return [Scaled(term.matrix * unit, term.exponent) for term in self._terms[layer]]

    def _input_errors(self, part: Part) -> list[Scaled]:
        """Return terms that bound the error of a layer's inputs, each a row of column norms."""
        if not part.weight:
            return []
        return [
            _through_transposed(term, self._map(layer, part.layer))
            for layer in range(part.layer)
            for term in self._local(layer, self._units[layer])
        ]

    def _residual_errors(self, input_error: float) -> list[Scaled]:
        """Return terms that bound the error of the residual."""
        depth = self._factors.depth
        terms = [
            _through_transposed(term, self._map(layer, depth))
            for layer, unit in enumerate(self._units)
            for term in self._local(layer, unit + input_error)
        ]
        targets = _column_norms(_sizes(self._factors.Y))
        return [*terms, Scaled(targets.matrix * (_SAFETY * _EPSILON + input_error), targets.exponent)]

    def _map_errors(self, lower: int, upper: int) -> list[Scaled]:
        """Return terms that bound the error of a map between layers."""
        terms = []
        for layer in range(lower + 2, upper):
            below = self._map(lower, layer)
            assert below is not None
            product = _times(self._weight(layer), below)
            after = self._map(layer, upper)
            product = product if after is None else _times(after, product)
            terms.append(Scaled(product.matrix * self._units[layer], product.exponent))
        return terms


def unit_of_sum(length: int) -> float:
    """Return the error of a sum of `length` products over the sum of their absolute values; BLAS sums up blocks."""
    return _SAFETY * _EPSILON * math.sqrt(min(length, _BLOCK) + length / _BLOCK)


def _pairs(parts: Sequence[Part]) -> list[tuple[Part, Part]]:
    """Return the pairs of layers, lower first, with a functional part: a bias of the upper layer has none."""
    return [(lower, upper) for at, lower in enumerate(parts) for upper in parts[at + 1 :] if upper.weight]


def logarithm(scaled: Scaled) -> float:
    """Return the logarithm to base 2 of a matrix's norm."""
    return _log(Scaled(abs(scaled.matrix), scaled.exponent))


def _sizes(matrix: Any) -> Scaled:
    """Return absolute values."""
    return moderate(abs(matrix))


def _transposed(scaled: Scaled) -> Scaled:
    return Scaled(scaled.matrix.T, scaled.exponent)


def _times(left: Scaled, right: Scaled) -> Scaled:
    return moderate(left.matrix @ right.matrix, left.exponent + right.exponent)


def _through(row: Scaled, by: Scaled | None) -> Scaled:
    return row if by is None else _times(row, by)


def _through_transposed(row: Scaled, by: Scaled | None) -> Scaled:
    return row if by is None else _times(row, _transposed(by))


def _joined(left: Scaled, right: Scaled) -> Scaled:
    left_matrix, right_matrix, exponent = aligned(left, right)
    return Scaled(np.hstack([left_matrix, right_matrix]), exponent)


def _column_norms(scaled: Scaled) -> Scaled:
    """Return the norms of the columns as one row."""
    matrix, exponent = moderate(*scaled)
    norms = []
    step = max(1, _AT_ONCE // max(len(matrix), 1))
    for start in range(0, matrix.shape[1], step):  # temporary arrays are as large as the columns
        some = matrix[:, start : start + step]
        largest = abs(some).max(axis=0, initial=0.0)
        unit = np.where(largest > 0, largest, 1.0)
        norms.append(unit * np.linalg.norm(some / unit, axis=0))
    return Scaled(np.concatenate(norms)[None, :], exponent)


def _log(scaled: Scaled | None) -> float:
    """Return the logarithm of a bound on the norm of a matrix without negative entries; of the identity (None) 0."""
    if scaled is None:
        return 0.0
    matrix = scaled.matrix
    largest = float(matrix.max(initial=0.0))
    if largest == 0:
        return -math.inf
    unit = matrix / largest
    frobenius = float(np.linalg.norm(unit))
    size = min(frobenius, math.sqrt(float(unit.sum(axis=0).max()) * float(unit.sum(axis=1).max())))
    return math.log2(largest) + math.log2(size) + scaled.exponent


def log2(number: float) -> float:
    """Return the logarithm of an absolute value; of 0 minus infinity."""
    return math.log2(abs(number)) if number else -math.inf


def _sum(logarithms: Sequence[float]) -> float:
    """Return the logarithm of the sum of numbers with these logarithms."""
    most = max(logarithms, default=-math.inf)
    if math.isinf(most):
        return most
    return most + math.log2(sum(2.0 ** (logarithm - most) for logarithm in logarithms))


def _root_of_squares(logarithms: Sequence[float]) -> float:
    return _sum([2 * logarithm for logarithm in logarithms]) / 2


def _power(logarithm: float) -> float:
    return 2.0**logarithm if logarithm < 1024 else math.inf
