r"""What rounding in the products of a network's matrices does to its Hessian.

The Hessian is made of products of matrices: inputs ``Z_m``, maps ``M_lm = W_{m-1} ... W_{l+1}`` between layers and
``B_l`` from a layer to the prediction, and the residual E. Forming ``A B`` adds an error of at most about
``sqrt(n) * eps * |A| |B|``, entry by entry, with n the length of the sums (rounding errors add up like sqrt(n); long
sums are made of blocks). To first order such an error is multiplied by what comes before and after it, and those
products are there anyway:

    ``dZ_m = Σ_{k<m} u_k (|Z_k| |W_k|.T + 1 |b_k|.T) |M_km|.T``
    ``dM_lm = Σ_{l+1<j<m} u_j |M_jm| |W_j| |M_lj|``,  ``dB_l`` likewise with the prediction in the place of m
    ``dE = dZ_prediction + u |Y|``.

So the bound does not grow with the depth unless the errors do, and since magnitudes are multiplied entry by entry, not
norms, it is that of the numbers as they are: of hidden units with large weights into them and small ones out of them,
or of small features beside a bias, a product of norms says nothing. Of Z and E only the norms of their columns are
used: samples are reduced by rotations, which mix them.

With the Jacobian's blocks ``J_l = B_l ⊗ Z_l``, singular values of J are known up to ‖dJ‖; the functional part has the
blocks ``M_lm ⊗ (E B_m).T Z_l``.

A product of the norms of all these, which takes no time, is looked at first: it is enough for most networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base.cached import cached_property
from hesskern._base.powers import Scaled, aligned, moderate
from hesskern.backends.data import Data
from hesskern.backends.protocol import Layers
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.network.parameters import Part

_EPSILON = float(np.finfo(np.float64).eps)
#: The unit in the last place of float32, relative, about.
_UNIT = 0.5 * float(np.finfo(np.float32).eps)
#: What the estimate of a rounding error is multiplied by, for it is one of its typical size.
_SAFETY = 4.0
#: What entries of a block may lose that are products of two numbers of float64, each with a power of two of its own.
_UNDERFLOW = 2.0**-960
#: How many products are summed up before they are added to others, about.
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
        Of the network as it is: what a rotation of hidden units mixes says nothing about single entries.
    """

    def __init__(self, factors: Factors) -> None:
        self._factors = factors
        self._units = [_unit(weight.shape[1]) for weight in factors.weights]
        self._maps: dict[tuple[int, int], Scaled | None] = {}

    def errors(self, parts: Sequence[Part], given: float) -> Errors:
        """Return bounds on the errors of these parameters' Hessian; `given`: relative error of weights and data."""
        scale = _log2(self._factors.scale)
        blocks = [scale / 2 + self._jacobian(part) for part in parts]
        pairs = [scale + self._functional(lower, upper) for lower, upper in _pairs(parts)]
        wrong = _sum([_log(term) for term in self._residual_errors(given)])
        return Errors(_power(_root_of_squares(blocks)), _power(0.5 + _root_of_squares(pairs)), wrong)

    def functional_part(self, parts: Sequence[Part]) -> float:
        """Return the norm of the functional part, at most."""
        sizes = [
            _log(self._map(lower.layer, upper.layer))
            + _log(self._back(upper.layer, self._residual))
            + _log(self._inputs(lower))
            for lower, upper in _pairs(parts)
        ]
        return _power(_log2(self._factors.scale) + 0.5 + _root_of_squares(sizes))

    def blocks(self, parts: Sequence[Part], mode: Mode) -> NDArray[np.float64]:
        """Return bounds on the errors of the blocks of these layers, as norms (L, L)."""
        found = np.zeros((len(parts), len(parts)))
        for at, lower in enumerate(parts):
            for beside, upper in enumerate(parts[at:], at):
                found[at, beside] = found[beside, at] = self._block(lower, upper, mode)
        return found

    def _block(self, lower: Part, upper: Part, mode: Mode) -> float:
        wrong = []
        if mode != "functional":
            sizes = [self._jacobian_size(part) for part in (lower, upper)]
            # Each entry is itself a sum, over samples and outputs, which may cancel.
            own = _unit(max(len(self._factors.column), *map(len, self._factors.weights)))
            wrong = [math.log2(own) + sum(sizes), self._jacobian(lower) + sizes[1], self._jacobian(upper) + sizes[0]]
        if mode != "gauss_newton" and upper.weight and upper.layer > lower.layer:
            wrong.append(self._functional(lower, upper))
        total = _log2(self._factors.scale) + _sum(wrong)
        return max(_power(total), _UNDERFLOW) if total > -math.inf else 0.0

    def gradient(self, parts: Sequence[Part], given: float) -> list[float]:
        """Return bounds on the errors of the gradient with respect to each of these layers, as norms."""
        residual, error = _log(self._residual), _sum([_log(term) for term in self._residual_errors(given)])
        own = math.log2(_unit(len(self._factors.column)))  # the sum over samples
        scale = _log2(self._factors.scale)
        return [
            _power(
                scale
                + _sum([self._jacobian(part) + residual, self._jacobian_size(part) + _sum([own + residual, error])])
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
        wrong = [self._back(upper.layer, term) for term in self._residual_errors(0.0)]
        wrong += [_times(self._residual, term) for term in self._map_errors(upper.layer, self._factors.depth)]
        return _sum(
            [
                math.log2(max(self._units)) + between + back + below,
                *(_log(term) + back + below for term in self._map_errors(lower.layer, upper.layer)),
                *(_log(term) + between + below for term in wrong),
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
            found = self._factors.above[lower] if end else self._factors.between(lower, upper)
            self._maps[lower, upper] = None if found is None else Scaled(abs(found.matrix), found.exponent)
        return self._maps[lower, upper]

    def _back(self, layer: int, row: Scaled) -> Scaled:
        """Return what a residual of these columns is when taken back to the output of a layer."""
        return _through(row, self._map(layer, self._factors.depth))

    # Errors -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _terms(self) -> list[list[Scaled]]:
        """What each layer sums up to its outputs: products with its weights, and the bias."""
        found = []
        for layer, (columns, bias) in enumerate(zip(self._columns, self._factors.biases, strict=True)):
            found.append([_times(columns, _transposed(self._weight(layer)))])
            if bias is not None:
                found[-1].append(_times(self._constant, _sizes(bias[None, :])))
        return found

    def _local(self, layer: int, unit: float) -> list[Scaled]:
        """Return the errors made at the outputs of a layer."""
        return [Scaled(term.matrix * unit, term.exponent) for term in self._terms[layer]]

    def _input_errors(self, part: Part) -> list[Scaled]:
        """Return terms that bound the error of a layer's inputs, all of these terms rows of column norms."""
        if not part.weight:
            return []
        return [
            _through_transposed(term, self._map(layer, part.layer))
            for layer in range(part.layer)
            for term in self._local(layer, self._units[layer])
        ]

    def _residual_errors(self, given: float) -> list[Scaled]:
        """Return terms that bound the error of the residual."""
        depth = self._factors.depth
        found = [
            _through_transposed(term, self._map(layer, depth))
            for layer, unit in enumerate(self._units)
            for term in self._local(layer, unit + given)
        ]
        targets = _column_norms(_sizes(self._factors.Y))
        return [*found, Scaled(targets.matrix * (_SAFETY * _EPSILON + given), targets.exponent)]

    def _map_errors(self, lower: int, upper: int) -> list[Scaled]:
        """Return terms that bound the error of a map between layers."""
        found = []
        for layer in range(lower + 2, upper):
            below = self._map(lower, layer)
            assert below is not None
            product = _times(self._weight(layer), below)
            after = self._map(layer, upper)
            product = product if after is None else _times(after, product)
            found.append(Scaled(product.matrix * self._units[layer], product.exponent))
        return found


def roughly(
    factors: Factors, parts: Sequence[Part], widths: Sequence[int], given: float, *, functional: bool
) -> Errors:
    """Return bounds as `Magnitudes.errors` does, from norms alone: of any network that can be rotated into this one.

    Infinite where these numbers may overflow.

    Parameters
    ----------
    factors : Factors
    parts : sequence of Part
    widths : sequence of int
        Inputs of each layer before any rotation.
    given : float
        Relative error of weights and data.
    functional : bool
        Whether there is a functional part; without one nothing is said of the residual either.
    """
    if not factors.ordinary:
        return Errors(math.inf, math.inf, math.inf)
    units = [_unit(width) for width in widths]
    weights = [_size(weight) for weight in factors.weights]
    above = [1.0 if top is None else _size(top.matrix) for top in factors.above]
    inputs = [_size(below.matrix) for below in factors.inputs]
    terms = [
        (weight + (0.0 if bias is None else _size(bias))) * below
        for weight, bias, below in zip(weights, factors.biases, inputs, strict=True)
    ]
    forward, upward = [0.0], [0.0] * len(weights)
    for unit, weight, term in zip(units, weights, terms, strict=True):
        forward.append(forward[-1] * weight + unit * term)
    for layer in range(len(weights) - 3, -1, -1):
        upward[layer] = (upward[layer + 1] + units[layer + 1] * above[layer + 1]) * weights[layer + 1]
    root = math.sqrt(abs(factors.scale))
    jacobian = root * math.hypot(
        *(upward[part.layer] * inputs[part.layer] + above[part.layer] * forward[part.layer] for part in parts)
    )
    if not functional:
        return Errors(jacobian, 0.0, -math.inf)
    # The last entry of `forward` has gone through all layers; errors go to the prediction through `above`, which is
    # less where weights cancel.
    reached = sum(top * term for top, term in zip(above, terms, strict=True)) + _size(factors.Y)
    residual, most, total = _size(factors.residual.matrix), max(units), 0.0
    wrong = most * reached
    for at, part in enumerate(parts):
        lower = part.layer
        between, layer = 1.0, lower + 1
        for other in parts[at + 1 :]:
            upper = other.layer
            for passed in range(layer, upper):
                between *= weights[passed]
            layer = upper
            back = (most * (upper - lower) * above[upper] + upward[upper]) * residual + above[upper] * wrong
            block = between * (back * inputs[lower] + above[upper] * residual * forward[lower])
            total = math.hypot(total, block)
    return Errors(jacobian, math.sqrt(2.0) * root**2 * total, _log2(wrong + given * reached))


def moved_by_rounding(
    net: Layers, data: Data, samples: int
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64] | None], Data]:
    """Return weights, biases and data in float64, moved by about one unit in the last place of float32, at random.

    Rounding has moved each number by half a unit at most. Of rows that `samples` were reduced to, every number moves by
    what rounding does to a column of samples, in any direction; always the same numbers.
    """
    generator = np.random.default_rng(0)

    def moved(matrix: Any, *, reduced: bool = False) -> NDArray[np.float64]:
        exact = np.asarray(matrix, dtype=np.float64)
        size = np.linalg.norm(exact, axis=0) / math.sqrt(samples) if reduced else exact
        found: NDArray[np.float64] = exact + _UNIT * size * generator.standard_normal(exact.shape)
        return found

    data = data.astype(np.dtype(np.float64))
    reduced = len(data.X) != samples
    return (
        [moved(weight) for weight in net.weights],
        [None if bias is None else moved(bias) for bias in net.biases],
        data._replace(X=moved(data.X, reduced=reduced), Y=moved(data.Y, reduced=reduced)),
    )


def undetermined(here: NDArray[np.float64], there: NDArray[np.float64], least: float, most: float) -> float:
    """Return the largest absolute eigenvalue between two bounds that a change makes another number; 0 if there is none.

    `here` and `there`: all absolute eigenvalues before and after the change, descending.
    """
    other = (np.abs(here - there) > 0.5 * here) & (here > least) & (here <= most)
    return float(here[other].max(initial=0.0))


def moves(here: NDArray[np.float64], there: NDArray[np.float64], shift: float, rank: int) -> float:
    """Return by how much a condition number changes with its absolute eigenvalues: the first `rank`, plus `shift`."""
    if rank == 0:
        return 0.0
    kept = here[:rank] + shift
    relative = np.abs(here - there)[:rank] / np.where(kept > 0, kept, 1.0)
    # Of the smallest ones the most that any changes: one alone may stay where it is by chance.
    return float(relative[0] + relative[kept <= 4.0 * kept[-1]].max())


def _unit(length: int) -> float:
    """Return the error of a sum of so many products over their absolute values: BLAS sums up blocks, and then those."""
    return _SAFETY * _EPSILON * math.sqrt(min(length, _BLOCK) + length / _BLOCK)


def _pairs(parts: Sequence[Part]) -> list[tuple[Part, Part]]:
    """Return the pairs of layers, lower first, with a functional part: of a bias above there is none."""
    return [(lower, upper) for at, lower in enumerate(parts) for upper in parts[at + 1 :] if upper.weight]


def _size(matrix: Any) -> float:
    """Return the Frobenius norm of a matrix of ordinary numbers, fast."""
    return math.sqrt(float(np.vdot(matrix, matrix)))


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
    one, two, exponent = aligned(left, right)
    return Scaled(np.hstack([one, two]), exponent)


def _column_norms(scaled: Scaled) -> Scaled:
    """Return the norms of the columns as one row."""
    matrix, exponent = moderate(*scaled)
    found = []
    step = max(1, _AT_ONCE // max(len(matrix), 1))
    for start in range(0, matrix.shape[1], step):  # what is made on the way is large
        some = matrix[:, start : start + step]
        largest = abs(some).max(axis=0, initial=0.0)
        unit = np.where(largest > 0, largest, 1.0)
        found.append(unit * np.linalg.norm(some / unit, axis=0))
    return Scaled(np.concatenate(found)[None, :], exponent)


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


def _log2(number: float) -> float:
    return math.log2(abs(number)) if number else -math.inf


def _sum(logarithms: Sequence[float]) -> float:
    """Return the logarithm of the sum of numbers with these logarithms."""
    most = max(logarithms, default=-math.inf)
    if math.isinf(most):
        return most
    return most + math.log2(sum(2.0 ** (each - most) for each in logarithms))


def _root_of_squares(logarithms: Sequence[float]) -> float:
    return _sum([2 * each for each in logarithms]) / 2


def _power(logarithm: float) -> float:
    return 2.0**logarithm if logarithm < 1024 else math.inf
