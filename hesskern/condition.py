"""Condition number and rank, with the decision behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition number of a symmetric matrix: its largest over its smallest nonzero eigenvalue, in absolute value.

    Which eigenvalues are zero is a decision; what it rests on stands beside the number. ``float(condition)`` is its
    value.

    Attributes
    ----------
    value : float
        ``largest / smallest``; NaN for the zero matrix.
    largest, smallest : float
        Largest and smallest nonzero absolute eigenvalue.
    rank, size : int
        How many eigenvalues are not zero, and how many there are.
    tolerance : float
        A singular value of an equilibrated factor at or below `tolerance` times the largest counted as zero:
        ``max(m, n) * eps`` of the (m, n) factor and its dtype. Equilibrated: rows and columns scaled to one, so that
        units of measurement decide nothing.
    gap : float
        Smallest singular value counted over the largest not counted (both of equilibrated factors); infinite where none
        was left out but those that the shapes force to zero. A gap near 1 means that the rank is a matter of taste.
    uncertainty : float
        Estimate of the relative error of `value` that rounding in the data, the weights and the computation allows.
    """

    value: float
    largest: float
    smallest: float
    rank: int
    size: int
    tolerance: float
    gap: float
    uncertainty: float

    @property
    def note(self) -> str:
        """What to know before quoting the number, in words; empty where there is nothing to say."""
        if self.rank == 0:
            return "the matrix is zero: its condition number is undefined"
        notes = []
        if self.rank < self.size:
            notes.append(f"rank-deficient: {self.size - self.rank} of {self.size} eigenvalues are zero and left out")
        if self.gap < 1e3:
            notes.append(f"the rank is uncertain: the values around the cut differ by a factor {self.gap:.2g} only")
        if self.uncertainty > 1e-3:
            notes.append(f"the data determine the value to a relative error of {self.uncertainty:.1g} only")
        return "; ".join(notes)

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        if self.rank == 0:
            return f"undefined ({self.note})"
        text = f"{self.value:.10g} (rank {self.rank} of {self.size}, relative uncertainty {self.uncertainty:.1e})"
        return f"{text}: {self.note}" if self.note else text


def undefined(size: int, tolerance: float) -> Condition:
    """Return the condition of a zero matrix."""
    return Condition(math.nan, 0.0, 0.0, 0, size, tolerance, math.inf, math.nan)
