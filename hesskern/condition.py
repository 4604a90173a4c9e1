"""Condition number and rank, with the decision behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hesskern.spectrum import Spectrum


@dataclass(frozen=True, slots=True, repr=False)
class Condition:
    """Condition number of a symmetric matrix: its largest over its smallest nonzero eigenvalue, in absolute value.

    Which eigenvalues are zero is a decision; what it rests on stands beside the number. ``float(condition)`` is its
    value.

    Attributes
    ----------
    value : float
        ``largest / smallest``; NaN for the zero matrix; infinite where it is beyond the largest float64, 1.8e308.
    largest, smallest : float
        Largest and smallest nonzero absolute eigenvalue; infinite and 0 where beyond what float64 holds, though their
        ratio may be an ordinary number.
    rank, size : int
        How many eigenvalues are not zero, and how many there are.
    tolerance : float
        What counted as zero, relative to the largest. For the block of one layer, an entry of a triangular factor
        relative to the magnitudes it was summed from, so that units of measurement decide nothing: ``eps`` of the dtype
        times the largest of the numbers of samples and units. Otherwise an absolute eigenvalue.
    gap : float
        Smallest of these values counted over the largest not counted; infinite where none was left out but those that
        are zero for structural reasons. A gap near 1 means that the rank is a matter of taste; it is 1 where rounding
        errors may hide eigenvalues that are not zero.
    uncertainty : float
        Estimate of the relative error of `value` that rounding in the data, the weights and the computation allows.
    negative : int
        How many eigenvalues are negative; not zero for an indefinite Hessian, whose condition number says nothing about
        the speed of gradient descent.
    remark : str
        What else stands in `note`: that the residual is rounding noise, and the number that of the Gauss-Newton part.
    """

    value: float
    largest: float
    smallest: float
    rank: int
    size: int
    tolerance: float
    gap: float
    uncertainty: float
    negative: int = 0
    remark: str = ""

    @property
    def note(self) -> str:
        """What to know before quoting the number, in words; empty where there is nothing to say."""
        if self.rank == 0:
            doubt = " up to rounding errors" if self.gap < 1e3 else ""
            return f"the matrix is zero{doubt}: its condition number is undefined"
        notes = [self.remark] if self.remark else []
        if math.isinf(self.value):
            notes.append("the condition number is larger than the largest float64, 1.8e308")
        if self.negative:
            notes.append(f"indefinite: {self.negative} negative eigenvalues")
        if self.rank < self.size:
            notes.append(f"rank-deficient: {self.size - self.rank} of {self.size} eigenvalues are zero and left out")
        if self.gap < 1e3:
            notes.append(f"the rank is uncertain: the values around the cut differ by a factor {self.gap:.2g} only")
        if self.uncertainty > 1e-3:
            notes.append(f"the data determine the value to a relative error of {self.uncertainty:.1g} only")
        return "; ".join(notes)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        numbers = f"value={self.value:.10g}, largest={self.largest:.6g}, smallest={self.smallest:.6g}"
        doubt = f"tolerance={self.tolerance:.1e}, gap={self.gap:.2g}, uncertainty={self.uncertainty:.1e}"
        return f"Condition({numbers}, rank={self.rank}, size={self.size}, {doubt}, negative={self.negative})"

    def __str__(self) -> str:
        if self.rank == 0:
            return f"undefined ({self.note})"
        text = f"{self.value:.10g} (rank {self.rank} of {self.size}, relative uncertainty {self.uncertainty:.1e})"
        return f"{text}: {self.note}" if self.note else text


def undefined(size: int, tolerance: float) -> Condition:
    """Return the condition of a zero matrix."""
    return Condition(math.nan, 0.0, 0.0, 0, size, tolerance, math.inf, math.nan)


def from_spectrum(spectrum: Spectrum, shift: float, tolerance: float, error: float) -> Condition:
    """Return the condition of a matrix with this spectrum plus `shift` times the identity.

    Parameters
    ----------
    spectrum : Spectrum
        Without the shift.
    shift : float
    tolerance : float
        Absolute eigenvalues at or below it are zero before the shift.
    error : float
        Absolute error of an eigenvalue.
    """
    values, multiplicities = spectrum.values, spectrum.multiplicities
    before = np.abs(values)
    zero = ~(before > tolerance)
    shifted = np.where(zero, 0.0, values) + shift
    size = np.abs(shifted)
    # What was zero before the shift is exactly the shift; anything else is known to the tolerance only.
    nonzero = np.where(zero, shift != 0, size > tolerance)
    count = np.count_nonzero(nonzero)
    if count == 0:
        return undefined(spectrum.size, tolerance)
    largest = float(size.max())
    smallest = float(size[nonzero].min())
    dropped = float(before[~nonzero].max()) if count < len(values) else 0.0
    return Condition(
        value=largest / smallest,
        largest=largest,
        smallest=smallest,
        rank=int(multiplicities @ nonzero),
        size=spectrum.size,
        tolerance=tolerance / largest,
        gap=smallest / dropped if dropped else math.inf,
        uncertainty=error / largest + error / smallest,
        negative=int(multiplicities @ (shifted < 0)),
    )


def of_squares(found: Condition, unit: float) -> Condition:
    """Return the condition of ``J.T J`` whose eigenvalues are squared singular values of J, of relative error `unit`.

    The singular values carry the rounding errors; an eigenvalue, their square, twice as many.
    """
    if found.rank == 0:
        return found
    return replace(found, uncertainty=2 * unit * (1 + math.sqrt(found.value)))


def from_singular_values(values: NDArray[np.float64], shape: tuple[int, int], epsilon: float) -> Condition:
    """Return the condition of a rectangular matrix from its singular values, descending."""
    tolerance = max(shape) * epsilon
    largest = float(values[0])
    rank = int(np.sum(values > tolerance * largest))
    if rank == 0:
        return undefined(min(shape), tolerance)
    smallest = float(values[rank - 1])
    dropped = float(values[rank]) if rank < len(values) else 0.0
    return Condition(
        value=largest / smallest,
        largest=largest,
        smallest=smallest,
        rank=rank,
        size=min(shape),
        tolerance=tolerance,
        gap=smallest / dropped if dropped else math.inf,
        uncertainty=tolerance * largest / smallest,
    )
