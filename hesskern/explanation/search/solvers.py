"""Rounded numbers of a dense solver, in float64 or float32.

A dense solver moves each eigenvalue by up to P units of the largest. So the relative error of a condition number is P
units times the number itself. For a singular matrix the solver divides by a rounding error, and no digit of the result
is right, only its size. A float32 above 2/eps has no right digit in any case. Below, a float32 may be the true number
of some other matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern.explanation.given.candidate import Candidate
from hesskern.explanation.given.causes import Cause
from hesskern.linalg.condition import Condition

#: Rounding units.
_DOUBLE, _SINGLE = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)
#: The largest condition number that comes from rounding errors, unless an eigenvalue is exactly zero.
_FARTHEST = 1e32

#: Largest probability that a number looks like a float32 by chance for which it counts as one.
_CHANCE = 0.05

#: Relative error up to which a condition number is a rounded one: beyond, no digit is right.
_ROUNDED = 0.1

#: The same if few digits were given, and half a unit of the last of them.
_ROUNDED_FEW, _HALF_UNIT = 1e-4, 1e-6

#: Orders of the parameters for which a float32 solver is tried here, and how far other results may go beyond these.
_ORDERS, _BEYOND = 4, 2.0


class Rounded(NamedTuple):
    """The right number or, if rounding left none of its digits, the candidate."""

    cause: Cause
    quantity: str
    value: float
    evidence: str


class Solvers:
    """The Hessian's numbers as dense solvers round them.

    Parameters
    ----------
    given : Candidate
        A number.
    dense : callable
        Returns the Hessian, or None if it is too large to try a dense solver.
    """

    def __init__(self, candidate: Candidate, dense: Callable[[], NDArray[np.float64] | None]) -> None:
        self._value, self._half_unit, self._dtype = float(candidate.array), candidate.half_unit, candidate.dtype
        self._dense = dense

    def rounded_numbers(self, truth: Condition, quantities: Sequence[str]) -> Iterator[Rounded]:
        """Yield the rounded numbers that this number may be."""
        size = abs(self._value)
        if truth.rank == 0 or not size > 0.0:
            return
        if "largest" in quantities and self._near(truth.largest, truth.size * _SINGLE, "float32"):
            yield _rounded("float32", "largest", truth.largest, truth.size * _SINGLE)
        if "condition" not in quantities:
            return
        for name, epsilon in (("float32", _SINGLE), ("float64", _DOUBLE)):
            relative = truth.size * epsilon * truth.value
            if self._near(truth.value, relative, name):
                yield _rounded(name, "condition", truth.value, relative)
                return
            evidence = self._noise(truth, name)
            if evidence:
                yield Rounded(_noise(truth, name), "condition", self._value, evidence)
                return

    def doubt(self, truth: Condition) -> str:
        """Return a sentence if the number may be float32 rounding although neither size nor digits show it."""
        size, smallest = abs(self._value), 1.0 / (truth.size * _SINGLE)
        if truth.rank == 0 or not smallest <= size < np.inf or not _singular(truth, _SINGLE) or not self._is_single:
            return ""
        return (
            f"it may be rounding noise: the Hessian is {_rank_text(truth)}, and lambda_max divided by an eigenvalue "
            f"that is zero up to rounding is {smallest:.1g} or more in float32; the number itself does not show it"
        )

    @property
    def _is_single(self) -> bool:
        """Whether some float32 rounds to these digits."""
        with np.errstate(over="ignore", under="ignore"):
            return abs(float(np.float32(self._value)) - self._value) <= (1.0 + 1e-9) * self._half_unit

    @property
    def _by_chance(self) -> float:
        """The probability that a number with these digits is a float32 by chance."""
        if not self._is_single:
            return 1.0
        if self._dtype.kind == "f" and self._dtype.itemsize < 8:
            return 0.0
        with np.errstate(over="ignore", under="ignore"):
            return min(1.0, 2.0 * self._half_unit / float(np.spacing(np.float32(abs(self._value)))))

    def _near(self, right: float, relative: float, name: str) -> bool:
        """Whether the number is the right one up to rounding, and has the digits of the format."""
        off = abs(self._value - right) / right if 0.0 < right < np.inf else np.inf
        if not off <= min(relative, _ROUNDED):
            return False
        if name == "float64" or self._by_chance <= _CHANCE:
            return True
        return self._is_single and off <= _ROUNDED_FEW and self._half_unit <= _HALF_UNIT * right

    def _noise(self, truth: Condition, name: str) -> str:
        """Return what shows that the number is lambda_max divided by a rounding error; empty if nothing does."""
        size, epsilon = self._value, _DOUBLE if name == "float64" else _SINGLE
        if not _singular(truth, epsilon) or not size > 0.0:  # solvers give no negative condition number
            return ""
        least = 1.0 / (epsilon * truth.size)
        if name == "float64":
            possible = least <= size <= _FARTHEST or size == np.inf
            right = "no digit of a dense solver's result for this matrix is right"
            return f"high: beyond {least:.2g} {right}" if possible else ""
        if not 2.0 / epsilon <= size < np.inf or not self._is_single:
            return ""
        # A float64 that is a float32 of this size has 29 zero bits: it was computed, or typed with few digits.
        exact = self._dtype.kind == "f" and float(np.float32(self._value)) == self._value
        if exact or self._by_chance <= _CHANCE:
            return f"high: the number is a float32 beyond {2.0 / epsilon:.2g}, where no digit of a float32 is right"
        low, high = self._sizes()
        if low / _BEYOND <= size <= high * _BEYOND:
            return f"fair: too few digits to tell, but float32 solvers tried here give {low:.1g} to {high:.1g}"
        return ""

    def _sizes(self) -> tuple[float, float]:
        """Return the smallest and the largest condition number that float32 solvers give here; 0 if none was tried."""
        dense = self._dense()
        if dense is None:
            return 0.0, 0.0
        with np.errstate(over="ignore", under="ignore"):
            single = dense.astype(np.float32)
        if not np.isfinite(single).all():
            return 0.0, 0.0
        sizes, random = [], np.random.default_rng(3)
        for order in [np.arange(len(single)), *(random.permutation(len(single)) for _ in range(_ORDERS - 1))]:
            arranged = single[np.ix_(order, order)]
            for values in (
                decompositions.eigvalsh(arranged), decompositions.svdvals(arranged), decompositions.svd(arranged)[1],
            ):  # fmt: skip
                magnitudes = np.abs(values.astype(np.float64))
                if magnitudes.min() > 0.0:
                    sizes.append(float(magnitudes.max() / magnitudes.min()))
        return min(sizes, default=0.0), max(sizes, default=0.0)


def _singular(truth: Condition, epsilon: float) -> bool:
    return truth.rank < truth.size or truth.value * truth.size * epsilon >= 1.0


def _rank_text(truth: Condition) -> str:
    return f"singular, of rank {truth.rank} of {truth.size}" if truth.rank < truth.size else "nearly singular"


def _noise(truth: Condition, name: str) -> Cause:
    right = (
        f"divide by the smallest nonzero eigenvalue, s[0] / s[{truth.rank} - 1] = {truth.value:.10g}"
        if truth.rank < truth.size
        else f"take it from factors, not from the matrix: H.condition() has {truth.value:.10g}"
    )
    return Cause(
        "noise" if name == "float64" else f"noise[{name}]",
        f"it is the rounding error of a dense solver in {name}: the Hessian is {_rank_text(truth)}, and lambda_max was "
        "divided by an eigenvalue that is zero up to rounding",
        right,
    )


def _rounded(name: str, quantity: str, right: float, relative: float) -> Rounded:
    name_of_quantity = "the largest eigenvalue" if quantity == "largest" else "the condition number"
    bound = f"{min(relative, 1.0):.1g} of it"
    cause = Cause(
        f"solver-rounding[{name}]",
        f"it is {name_of_quantity} up to the rounding of a dense solver in {name}, which may be off by {bound}",
        "take it from factors: H.condition()" if name == "float64" else "keep everything in float64: .double()",
    )
    return Rounded(cause, quantity, right, f"high: it differs by less than the {bound} that rounding allows")
