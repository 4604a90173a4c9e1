"""Finite differences: the truncation error of one-sided ones, and the grid that subtraction leaves behind.

A squared residual is a polynomial of degree two in each single parameter, so a gradient's central difference along one
parameter is exact, and a one-sided difference with step h is off by h/2 times a third derivative, which is computed
here from three gradients. What remains is rounding: gradients are floats, so their difference is a multiple of their
unit in the last place, and dividing by h leaves a grid that tells h. Its errors are as large as those of the same
differences taken here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.causes import Cause
from hesskern.explanation.curvature import chunks
from hesskern.explanation.formats import grid_of
from hesskern.loss import SquaredLoss
from hesskern.network import LinearNetwork

Values = NDArray[np.float64]

_EPSILON = float(np.finfo(np.float64).eps)

#: Steps that people take; others are looked for as common divisors.
_STEPS = sorted({
    *(10.0**-k for k in range(1, 11)), *(2.0**-k for k in range(2, 31)), *(5.0 * 10.0**-k for k in range(2, 9)),
    *(2.0 * 10.0**-k for k in range(2, 9)), _EPSILON**0.5, _EPSILON ** (1 / 3), _EPSILON**0.25,
})  # fmt: skip

#: Columns whose third derivatives, and whose own differences, are looked at.
_COLUMNS, _OWN = 64, 12

#: Share of the difference that may be left when the truncation error is taken away.
_LEFT = 0.3

#: Entries looked at for the grid, the fewest that are enough, and the share of them that has to lie on it.
_LOOKED_AT, _FEWEST, _SHARE = 4000, 24, 0.85

#: Counts up to which the parts of a unit are known.
_PRECISE = 0.02 / _EPSILON

#: Share of the entries that have to be odd multiples of the spacing: of numbers with a coarser grid, none is.
_ODD = 0.2

#: Share of the entries that have to be off by more than half a spacing.
_OFF = 0.05

#: Steps that are looked for.
_LEAST, _MOST = 1e-9, 0.5

#: Factor by which rounding errors may differ from those of the same differences taken here: of the gradient, whose sums
#: have many orders, and of the loss.
_AS_LARGE, _AS_LARGE_SECOND = 5.0, 2.5

#: The smallest entries, whose quotients are looked at as fractions with a denominator up to this.
_SMALLEST, _DENOMINATOR = 10, 20_000_000


@dataclass(frozen=True)
class Function:
    """The loss along some parameters: ``factor`` times the squared loss plus ``decay`` times half the squared norm.

    Attributes
    ----------
    net : LinearNetwork
        Where it stands, in float64.
    loss : SquaredLoss
        Without weight decay.
    positions : (P,) array
        Where the parameters stand in ``net.flatten()``.
    factor, decay : float
    """

    net: LinearNetwork
    loss: SquaredLoss
    positions: NDArray[np.intp]
    factor: float
    decay: float

    @cached_property
    def _theta(self) -> Values:
        return self.net.flatten().astype(np.float64, copy=False)

    def _moved(self, by: Values) -> tuple[Values, LinearNetwork]:
        theta = self._theta.copy()
        theta[self.positions] += by
        return theta, self.net.unflatten(theta)

    def value(self, by: Values) -> float:
        """Return the value after a displacement (P,)."""
        theta, net = self._moved(by)
        return self.factor * self.loss(net) + 0.5 * self.decay * float(np.vdot(theta, theta))

    def gradient(self, by: Values) -> Values:
        """Return the gradient (P,) after a displacement (P,)."""
        theta, net = self._moved(by)
        found: Values = (self.factor * self.loss.gradient(net) + self.decay * theta)[self.positions]
        return found

    @cached_property
    def here(self) -> Values:
        """The gradient without a displacement."""
        return self.gradient(np.zeros(len(self.positions)))

    @cached_property
    def noise(self) -> float:
        """A bound on the norm of the rounding error of a gradient."""
        net, loss = self.net, self.loss
        norms = [float(np.linalg.norm(weight)) + (0.0 if bias is None else float(np.linalg.norm(bias)))
                 for weight, bias in zip(net.weights, net.biases, strict=True)]  # fmt: skip
        data = float(np.linalg.norm(loss.X)) + (np.sqrt(len(loss.X)) if net.has_bias else 0.0)
        residual = data * float(np.prod(norms)) + float(np.linalg.norm(loss.Y))
        each = sum(data * float(np.prod(norms)) / norm for norm in norms if norm)
        terms = len(loss.X) + sum(net.widths)
        return float(4.0 * np.sqrt(terms) * _EPSILON * abs(self.factor) * loss.scale * residual * each)


class Found(NamedTuple):
    """Finite differences with what they explain."""

    cause: Cause
    step: float
    correction: Values  # the truncation error, to be added to the Hessian
    allowed: float  # Frobenius norm of the rounding error at this step


class _Kind(NamedTuple):
    """A way to take differences that are exact but for rounding."""

    words: str
    unit: Values  # of the numbers that are subtracted, for each entry
    points: float  # the grid is unit / (points * step), or step**2 for second differences
    second: bool = False


def find(matrix: Values, hessian: Values, function: Function) -> Found | None:
    """Return the finite differences that the matrix came from, or None.

    Parameters
    ----------
    matrix, hessian : (P, P) arrays
        The candidate and the Hessian of `function`, both in the order of its positions.
    """
    rest = matrix - hessian
    size = float(np.linalg.norm(rest))
    noise = function.noise * np.sqrt(len(matrix))
    some = np.random.default_rng(3).permutation(len(matrix))[:_COLUMNS]
    rows = rest[some]
    symmetric = float(np.linalg.norm(rows - rest[:, some].T)) <= 1e-3 * float(np.linalg.norm(rows))
    corner = _third_derivatives(hessian, function, some)[some]
    shapes = [corner + corner.T] if symmetric else [corner, corner.T]
    if any(_parallel(rest[np.ix_(some, some)], shape) for shape in shapes):
        third = _third_derivatives(hessian, function, np.arange(len(matrix)))
        for shape in [0.5 * (third + third.T)] if symmetric else [third, third.T]:
            found = _one_sided(rest, shape, noise, symmetric=symmetric)
            if found is not None:
                return found
    if grid_of(matrix, chunks(len(matrix))) is not None:  # differences of float64 numbers have more digits
        return None
    for kind in _kinds(matrix, function, symmetric=symmetric, third=bool(corner.any())):
        step = _step(matrix, rest, kind)
        if step is None and not symmetric:
            step = _from_pairs(matrix[np.ix_(some, some)], kind.unit[np.ix_(some, some)])
        if step is None:
            continue
        allowed = noise / step
        if kind.second:
            value = abs(function.value(np.zeros(len(matrix))))
            allowed = 64 * _EPSILON * np.sqrt(function.loss.Y.size) * value * len(matrix) / step**2
        if size <= allowed and _as_large(rest, hessian, function, kind, step):
            return Found(_cause(kind.words, step), step, np.zeros_like(matrix), allowed)
    return None


def _kinds(matrix: Values, function: Function, *, symmetric: bool, third: bool) -> list[_Kind]:
    units = np.spacing(np.abs(function.here))
    if symmetric:
        value = np.spacing(abs(function.value(np.zeros(len(matrix)))))
        smaller = np.minimum(units[:, None], units[None, :])
        return [
            _Kind("central differences of the gradient, made symmetric afterwards", smaller, 4.0),
            _Kind("second differences of the loss", np.full(matrix.shape, value), 4.0, second=True),
        ]
    exact = "" if third else " (or one-sided ones with twice this step: the third derivatives vanish)"
    words = f"central differences of the gradient{exact}"
    return [_Kind(words, np.broadcast_to(unit, matrix.shape), 2.0) for unit in (units[:, None], units[None, :])]


def _parallel(rest: Values, third: Values) -> bool:
    """Whether most of a difference has the direction of the third derivatives."""
    product, sizes = float(np.vdot(rest, third)), float(np.linalg.norm(rest) * np.linalg.norm(third))
    return sizes > 0 and abs(product) > 0.9 * sizes


def _third_derivatives(hessian: Values, function: Function, some: NDArray[np.intp]) -> Values:
    """Return the second derivatives of the gradient along some parameters, in the columns; exact but for rounding."""
    third = np.empty((len(hessian), len(some)))
    for at, column in enumerate(some):
        ahead = function.gradient(_unit(len(hessian), column, 1.0))
        third[:, at] = 2.0 * (ahead - function.here - hessian[:, column])  # degree two along one parameter
    third[np.abs(third) <= 1e-12 * np.abs(hessian).max()] = 0.0
    return third


def _unit(size: int, at: int, step: float) -> Values:
    found = np.zeros(size)
    found[at] = step
    return found


def _one_sided(rest: Values, third: Values, noise: float, *, symmetric: bool) -> Found | None:
    """Return one-sided differences if the difference has the shape of their truncation error."""
    square = float(np.vdot(third, third))
    if square == 0.0:
        return None
    step = 2.0 * float(np.vdot(rest, third)) / square
    if step == 0.0:
        return None
    near = [known for known in _STEPS if abs(known - abs(step)) <= 1e-2 * known]
    if near and float(np.linalg.norm(rest - 0.5 * np.copysign(near[0], step) * third)) <= noise / near[0]:
        step = float(np.copysign(near[0], step))
    correction = 0.5 * step * third
    left, allowed = float(np.linalg.norm(rest - correction)), noise / abs(step)
    # An error of P² entries that is parallel to the third derivatives is no accident.
    if left > _LEFT * float(np.linalg.norm(rest)) or left > allowed:
        return None
    how = f"{'forward' if step > 0 else 'backward'} differences of the gradient"
    how = f"{how}, made symmetric afterwards" if symmetric else how
    return Found(_cause(how, abs(step), vague=left > 1e-3 * float(np.linalg.norm(rest))), step, correction, allowed)


def _step(matrix: Values, rest: Values, kind: _Kind) -> float | None:
    """Return the step of the coarsest grid ``unit / (points * step)`` that most entries lie on, and no coarser one."""
    flat, errors, units = matrix.ravel(), rest.ravel(), np.ascontiguousarray(kind.unit).ravel()
    kept = np.flatnonzero((flat != 0) & (units > 0))
    kept = kept[:: max(1, len(kept) // _LOOKED_AT)]
    per_step = kind.points / units[kept]
    if kind.second:
        # One unit for all entries: with a power of two as the step, the grid is that of any binary rounding.
        steps: Iterable[float] = (step**2 for step in _STEPS if np.frexp(step)[0] != 0.5)
    else:
        others = (step for step in _divisors(flat[kept] * per_step) if _LEAST <= step <= _MOST)
        steps = itertools.chain(_STEPS, others)
    for step in steps:
        counts, off = flat[kept] * per_step * step, errors[kept] * per_step * step
        if not _on(counts, off, units[kept]):
            continue
        times = next((times for times in (15, 5, 3) if _whole(counts / times)), 1)
        if times == 1 or _on(counts / times, off / times, units[kept]):
            return float(np.sqrt(step / times)) if kind.second else step / times
    return None


def _from_pairs(matrix: Values, unit: Values) -> float | None:
    """Return the step of central differences from entries (i, j) and (j, i), which are few units apart, or None."""
    upper = np.triu_indices(len(matrix), 1)
    ratios = np.abs(2.0 * (matrix - matrix.T)[upper] / np.minimum(unit, unit.T)[upper])
    ratios = ratios[ratios > 0]
    for base, times in itertools.product(np.unique(ratios)[:_SMALLEST], (1, 2, 3)):
        step = times / float(base)
        for _ in range(3):  # the whole numbers that are near say more precisely what they are multiples of
            few = np.rint(ratios * step) <= 10 * times
            step = float(np.vdot(np.rint(ratios[few] * step), ratios[few]) / np.vdot(ratios[few], ratios[few]))
        counts = ratios * step
        odd = float(np.mean(np.rint(counts) % 2 != 0))
        if _LEAST <= step <= _MOST and _whole(counts) and odd >= _ODD and float(np.median(counts)) < 1e3:
            return step
    return None


def _whole(counts: Values) -> bool:
    """Whether most counts are whole numbers."""
    # The division by h, and its inverse here, lose a part of a unit where the count is large; what is far below a
    # unit lies on every grid.
    counts = counts[(np.abs(counts) < _PRECISE) & (np.abs(counts) > 0.5)]
    return len(counts) >= _FEWEST and float(np.mean(np.abs(counts - np.rint(counts)) < 0.1)) >= _SHARE


def _on(counts: Values, errors: Values, units: Values) -> bool:
    """Whether most counts are whole numbers, as many of them odd, and off, as in differences.

    Numbers that were rounded to a grid are whole as well, but off by one half at most, where the difference of two
    rounded numbers is off by up to one; and where the units differ, their grid does not.
    """
    if not _whole(counts):
        return False
    useful = (np.abs(counts) < _PRECISE) & (np.abs(counts) > 0.5)
    counts, errors, units = counts[useful], errors[useful], units[useful]
    if float(np.mean(np.abs(errors) > 0.55)) < _OFF:
        return False
    odd = np.rint(counts) % 2 != 0
    large = np.abs(counts) > np.median(np.abs(counts))
    if min(float(np.mean(odd[large])), float(np.mean(odd[~large]))) < _ODD:
        return False
    groups = [units == unit for unit in np.unique(units)]
    sizes = [(int(np.count_nonzero(group)), float(np.mean(odd[group]))) for group in groups]
    enough = [(size, share) for size, share in sizes if size >= _FEWEST] or [(len(odd), float(np.mean(odd)))]
    # Where a gradient is just below a power of two, the numbers subtracted have the next unit.
    return sum(size for size, share in enough if share >= _ODD) >= 0.75 * sum(size for size, _ in enough)


def _divisors(ratios: Values) -> list[float]:
    """Return steps that make the smallest ratios whole: quotients of them are fractions of whole numbers."""
    smallest = np.unique(np.abs(ratios))[:_SMALLEST]
    found: set[float] = set()
    for low, high in itertools.combinations(map(float, smallest), 2):
        fraction = Fraction(high / low).limit_denominator(_DENOMINATOR)
        if fraction.denominator > 1 and abs(float(fraction) * low / high - 1) <= 4 * _EPSILON:
            found |= {times * fraction.denominator / low for times in (1, 2, 3, 4)}
    return sorted(found)


def _as_large(rest: Values, hessian: Values, function: Function, kind: _Kind, step: float) -> bool:
    """Whether differences taken here, with this step, have rounding errors of that size in some columns."""
    size = len(hessian)
    rng = np.random.default_rng(5)
    chosen = rng.permutation(size)[:_OWN]
    if kind.second:
        rows = rng.permutation(size)[:_OWN]
        own = [
            sum(
                sign * function.value(_unit(size, row, one * step) + _unit(size, column, two * step))
                for one, two, sign in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
            ) / (4 * step**2)
            for row in rows for column in chosen
        ]  # fmt: skip
        here = np.reshape(own, (len(rows), len(chosen))) - hessian[np.ix_(rows, chosen)]
        theirs = rest[np.ix_(rows, chosen)]
    else:
        columns = [
            function.gradient(_unit(size, at, step)) - function.gradient(_unit(size, at, -step)) for at in chosen
        ]
        here = np.transpose(columns) / (2 * step) - hessian[:, chosen]
        theirs = rest[:, chosen]
    ours, seen = float(np.linalg.norm(here)), float(np.linalg.norm(theirs))
    factor = _AS_LARGE_SECOND if kind.second else _AS_LARGE
    return ours <= factor * seen and seen <= factor * ours


def _cause(how: str, step: float, *, vague: bool = False) -> Cause:
    known = not vague or any(math.isclose(step, usual) for usual in _STEPS)
    return Cause(
        "finite-differences",
        f"it comes from {how}, with step h {f'= {step:.3g}' if known else f'of about {step:.1g}'}",
        "differentiate instead: loss.hessian(net), or torch.func.hessian in float64",
    )
