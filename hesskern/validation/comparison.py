"""One comparison: the same quantity from hesskern, from autograd and from the third witness, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from hesskern.validation.case import Matrix
from hesskern.validation.evidence import Evidence, Subject, Witness
from hesskern.validation.report import (
    AGREES,
    DIFFERS,
    HESSKERN_WRONG,
    OVERFLOWED,
    RAISED,
    UNCHECKED,
    UNDECIDED,
    Row,
    decide,
)
from hesskern.validation.rounding import Bounds, ErrorBound, norm

#: Errors are relative to the quantity, unless rounding could be this much of it: then its terms cancel.
_CANCELS = 1e-3


#: Bounds below the smallest normal number have lost their digits or vanished, so they bound nothing.
_SMALLEST = float(np.finfo(np.float64).tiny)
#: Note if the third witness has no finite number: it overflowed, or a divisor vanished.
NOT_CHECKED_BY_THIRD = "not checked by the third witness, whose result is not finite"


class CheckResult(NamedTuple):
    """The numbers and the verdict of a check, for a `Row`."""

    error: float = math.nan
    tolerance: float = math.nan
    third: str = ""
    third_pair: tuple[float, float] | None = None
    witnesses: tuple[float, float] | None = None
    verdict: str | None = None
    note: str = ""


class Check(Protocol):
    """A quantity that can be compared."""

    @property
    def group(self) -> str:
        """Kind of the quantity."""

    @property
    def quantity(self) -> str:
        """Name of the quantity."""

    @property
    def method(self) -> str:
        """How it is compared: whole, or by samples; see `Row`."""

    def find(self, subject: Subject, evidence: Evidence) -> CheckResult:
        """Compare."""


#: Error of an entry below the smallest normal number, in units of the smallest number.
_UNITS = 8.0


@dataclass(frozen=True)
class Comparison:
    """An array, or a number, that hesskern and the witnesses compute.

    Attributes
    ----------
    group, quantity, method : str
    computed : callable
        Of `Subject` and `Evidence`: hesskern's array.
    expected : callable
        Of `Evidence` and a witness: the array that it should be.
    part : callable
        Of `Evidence` and a program's `Bounds`: the size of the quantity's terms and its rounding error.
    third : callable
        Of `Evidence`: the bound on the error of the differences; None if they do not have the quantity.
    label : callable, optional
        Of `Evidence` and an index: the name of that entry.
    """

    group: str
    quantity: str
    computed: Callable[[Subject, Evidence], Any]
    expected: Callable[[Evidence, Witness], Any]
    part: Callable[[Evidence, Bounds], ErrorBound]
    third: Callable[[Evidence], float | None]
    method: str = "whole"
    label: Callable[[Evidence, tuple[int, ...]], str] | None = None

    def find(self, subject: Subject, evidence: Evidence) -> CheckResult:
        """Compare; the caller handles errors that hesskern raises."""
        computed = _numbers(self.computed(subject, evidence))
        expected = _numbers(self.expected(evidence, evidence.autograd))
        if computed.shape != expected.shape:
            note = f"hesskern's has shape {computed.shape}, autograd's {expected.shape}."
            return CheckResult(math.inf, 0.0, verdict=HESSKERN_WRONG, note=note)
        own_part, autograd_part = (
            self.part(evidence, evidence.hesskern_bounds),
            self.part(evidence, evidence.autograd_bounds),
        )
        size, cancels = norm(expected), ""
        if not (size > 0 and own_part.error + autograd_part.error < _CANCELS * size):
            terms = max(own_part.size, autograd_part.size)
            if np.isfinite(size) and terms > size:
                size, cancels = terms, "relative to its terms, which cancel"
            size = size or 1.0
        error = norm(computed - expected) / size
        # Below the smallest normal number the error of an entry is absolute: some units of the smallest number.
        smallest = float(np.finfo(evidence.problem.net.dtype).smallest_subnormal)
        rounded = own_part.error + _UNITS * smallest * math.sqrt(computed.size)
        tolerance = (rounded + autograd_part.error) / size
        if np.isfinite(computed).all() and expected.any() and own_part.error + autograd_part.error < _SMALLEST:
            tolerance, cancels = math.nan, "the bound on its rounding vanishes in float64"
        third_error, third_pair, witnesses, unchecked = self.third(evidence), None, None, ""
        if third_error is not None:
            third = _numbers(self.expected(evidence, evidence.differences))
            if np.isfinite(third).all():
                # Even in extended precision its results are rounded to float64, and so are the two or three matrices
                # that it subtracts for a functional part.
                third_error += 3 * 2.0**-53 * autograd_part.size
                third_pair = norm(computed - third) / size, (rounded + third_error) / size
                witnesses = norm(expected - third) / size, (autograd_part.error + third_error) / size
            else:
                unchecked = NOT_CHECKED_BY_THIRD
        verdict = decide(error, tolerance, third_pair, witnesses)
        note = "; ".join(filter(None, (cancels, unchecked)))
        if verdict not in (AGREES, UNDECIDED) and self.label is not None:
            note = self._where(evidence, computed, expected, size)
        name = evidence.differences.name if third_pair is not None else ""
        return CheckResult(error, tolerance, name, third_pair, witnesses, verdict, note)

    def _where(self, evidence: Evidence, computed: Matrix, expected: Matrix, size: float) -> str:
        assert self.label is not None
        distance = np.abs(computed - expected)
        distance[np.isnan(distance)] = np.inf
        at = tuple(int(k) for k in np.unravel_index(int(distance.argmax()), distance.shape))
        count = int(np.sum(distance > 1e-3 * distance.max())) if np.isfinite(distance.max()) else 0
        return (
            f"The largest difference is at {self.label(evidence, at)}: "
            f"hesskern {computed[at]:.10g}, autograd {expected[at]:.10g}"
            + (f"; {count} of {distance.size} entries are off by a thousandth of that or more." if count else ".")
        )


def _numbers(value: Any) -> Matrix:
    return np.asarray(value, dtype=np.float64)


def row_of(problem: str, check: Check, subject: Subject, evidence: Evidence) -> Row:
    """Run one check; an error that hesskern raises becomes a verdict."""
    about: dict[str, Any] = {
        "problem": problem,
        "backend": subject.backend,
        "group": check.group,
        "quantity": check.quantity,
        "method": check.method,
    }
    try:
        with np.errstate(all="ignore"):
            result = check.find(subject, evidence)
    except (NotImplementedError, MemoryError) as error:
        return Row(**about, verdict=UNCHECKED, note=_one_line(error))
    except Exception as error:  # the report shows whatever a broken backend raises
        if overflow := _overflow(evidence):
            return Row(**about, verdict=OVERFLOWED, note=overflow)
        return Row(**about, verdict=RAISED, note=f"{type(error).__name__}: {_one_line(error)}")
    # Numbers that are not finite count as a failure only if nothing could have overflowed.
    judged = (result.error, result.tolerance, *(result.third_pair or ()), *(result.witnesses or ()))
    if result.verdict != AGREES and not np.isfinite(judged).all() and (overflow := _overflow(evidence)):
        return Row(**about, verdict=OVERFLOWED, note=overflow)
    third, third_tolerance = result.third_pair or (math.nan, math.nan)
    witnesses, witnesses_tolerance = result.witnesses or (math.nan, math.nan)
    return Row(
        **about,
        error=result.error,
        tolerance=result.tolerance,
        third=result.third,
        third_error=third,
        third_tolerance=third_tolerance,
        witnesses=witnesses,
        witnesses_tolerance=witnesses_tolerance,
        verdict=result.verdict or DIFFERS,
        note=result.note,
    )


def _overflow(evidence: Evidence) -> str:
    """Return a sentence if the numbers of the computation do not fit into the network's dtype; empty if they do."""
    dtype = evidence.problem.net.dtype
    largest = float(np.finfo(dtype).max)
    with np.errstate(all="ignore"):
        reach = evidence.reach
    if reach <= largest:
        return ""
    return (
        f"the {dtype} computation overflowed: it goes through numbers as large as {reach:.1g}, and {dtype} ends at "
        f"{largest:.2g}; this says nothing about hesskern. Scale the data or the weights"
        + (", or use float64." if dtype == np.float32 else ".")
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
