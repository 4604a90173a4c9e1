"""The grid that differences of float64 numbers leave, and the step that it reveals.

Differences of a gradient are multiples of its unit in the last place, and dividing by h leaves a grid ``unit / h``. For
any usual step this grid is coarser than the entries' own digits, so it shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_EPSILON = float(np.finfo(np.float64).eps)

#: Usual steps; others are searched as common divisors.
STEPS = sorted({
    *(10.0**-k for k in range(1, 11)), *(2.0**-k for k in range(2, 31)), *(5.0 * 10.0**-k for k in range(2, 9)),
    *(2.0 * 10.0**-k for k in range(2, 9)), _EPSILON**0.5, _EPSILON ** (1 / 3), _EPSILON**0.25,
})  # fmt: skip

#: Entries that are read, the fewest that are enough, and the share of them that must lie on the grid.
_LOOKED_AT, _FEWEST, _SHARE = 4000, 24, 0.85

#: Counts up to which fractions of a unit are known.
_PRECISE = 0.02 / _EPSILON

#: Share of the entries that must be odd multiples of the spacing: on a coarser grid there are none.
_ODD = 0.2

#: Share of the entries that must be off by more than half a spacing.
_OFF = 0.05

#: The smallest and the largest step.
_LEAST, _MOST = 1e-9, 0.5

#: Number of smallest entries whose quotients are written as fractions, and the largest denominator.
_SMALLEST, _DENOMINATOR = 10, 20_000_000


class Kind(NamedTuple):
    """A kind of finite differences that are exact up to rounding."""

    words: str
    unit: Values  # of the numbers that are subtracted, for each entry
    points: float  # the grid is unit / (points * step), or step**2 for second differences
    second: bool = False


def step_of(matrix: Values, error: Values, kind: Kind) -> float | None:
    """Return the step of the coarsest grid ``unit / (points * step)`` that most entries lie on, or None."""
    flat, errors, units = matrix.ravel(), error.ravel(), np.ascontiguousarray(kind.unit).ravel()
    kept = np.flatnonzero((flat != 0) & (units > 0))
    kept = kept[:: max(1, len(kept) // _LOOKED_AT)]
    per_step = kind.points / units[kept]
    if kind.second:
        # One unit for all entries: with a power of two as the step, the grid is that of any binary rounding.
        steps: Iterable[float] = (step**2 for step in STEPS if np.frexp(step)[0] != 0.5)
    else:
        divisors = (step for step in _divisors(flat[kept] * per_step) if _LEAST <= step <= _MOST)
        steps = itertools.chain(STEPS, divisors)
    for step in steps:
        counts, off = flat[kept] * per_step * step, errors[kept] * per_step * step
        if not _on(counts, off, units[kept]):
            continue
        times = next((times for times in (15, 5, 3) if _whole(counts / times)), 1)
        if times == 1 or _on(counts / times, off / times, units[kept]):
            return float(np.sqrt(step / times)) if kind.second else step / times
    return None


def step_from_pairs(matrix: Values, unit: Values) -> float | None:
    """Return the step of central differences from entries (i, j) and (j, i), which are few units apart, or None."""
    upper = np.triu_indices(len(matrix), 1)
    ratios = np.abs(2.0 * (matrix - matrix.T)[upper] / np.minimum(unit, unit.T)[upper])
    ratios = ratios[ratios > 0]
    for base, times in itertools.product(np.unique(ratios)[:_SMALLEST], (1, 2, 3)):
        step = times / float(base)
        for _ in range(3):  # the nearest whole numbers give the unit more precisely
            few = np.rint(ratios * step) <= 10 * times
            step = float(np.vdot(np.rint(ratios[few] * step), ratios[few]) / np.vdot(ratios[few], ratios[few]))
        counts = ratios * step
        odd = float(np.mean(np.rint(counts) % 2 != 0))
        if _LEAST <= step <= _MOST and _whole(counts) and odd >= _ODD and float(np.median(counts)) < 1e3:
            return step
    return None


def _whole(counts: Values) -> bool:
    """Whether most counts are whole numbers."""
    # The division by h, and its inverse here, lose a part of a unit if the count is large; a number far below a unit
    # lies on every grid.
    counts = counts[(np.abs(counts) < _PRECISE) & (np.abs(counts) > 0.5)]
    return len(counts) >= _FEWEST and float(np.mean(np.abs(counts - np.rint(counts)) < 0.1)) >= _SHARE


def _on(counts: Values, errors: Values, units: Values) -> bool:
    """Whether most counts are whole numbers, with the odd counts and the errors that differences have.

    Numbers that were rounded to a grid are whole as well. But they are off by one half at most, while the difference of
    two rounded numbers is off by up to one, and their grid is the same if the units differ.
    """
    if not _whole(counts):
        return False
    useful = (np.abs(counts) < _PRECISE) & (np.abs(counts) > 0.5)
    counts, errors, units = counts[useful], errors[useful], units[useful]
    if float(np.mean(np.abs(errors) > 0.55)) < _OFF:
        return False
    odd = np.rint(counts) % 2 != 0
    by_size = np.argsort(np.abs(counts))
    if any(float(np.mean(odd[half])) < _ODD for half in np.array_split(by_size, 2)):
        return False
    groups = [units == unit for unit in np.unique(units)]
    sizes = [(int(np.count_nonzero(group)), float(np.mean(odd[group]))) for group in groups]
    enough = [(size, share) for size, share in sizes if size >= _FEWEST] or [(len(odd), float(np.mean(odd)))]
    # If a gradient is just below a power of two, the subtracted numbers have the next larger unit.
    return sum(size for size, share in enough if share >= _ODD) >= 0.75 * sum(size for size, _ in enough)


def _divisors(ratios: Values) -> list[float]:
    """Return steps that make the smallest ratios whole: quotients of them are fractions of whole numbers."""
    smallest = np.unique(np.abs(ratios))[:_SMALLEST]
    steps: set[float] = set()
    for low, high in itertools.combinations(map(float, smallest), 2):
        if not high / low < np.inf:
            continue
        fraction = Fraction(high / low).limit_denominator(_DENOMINATOR)
        if fraction.denominator > 1 and abs(float(fraction) * low / high - 1) <= 4 * _EPSILON:
            steps |= {times * fraction.denominator / low for times in (1, 2, 3, 4)}
    return sorted(steps)
