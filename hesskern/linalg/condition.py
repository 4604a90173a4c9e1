"""Condition number and rank, with the decision on which eigenvalues are zero."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hesskern.linalg.spectrum import Spectrum


@dataclass(frozen=True, slots=True, repr=False)
class Condition:
    """Condition number of a symmetric matrix: its largest over its smallest nonzero eigenvalue, in absolute value.

    It depends on a decision: which eigenvalues are zero. The other attributes describe this decision.
    ``float(condition)`` is `value`.

    There are three kinds of eigenvalues. `rank` eigenvalues count, because rounding errors alone cannot have produced
    them. `undecided` eigenvalues are left out, because they cannot be told from zero. All others are zero for any
    numbers of these shapes (for instance with more inputs than samples). So the exact rank is at least `rank` and at
    most ``rank + undecided``.

    Attributes
    ----------
    value : float
        ``largest / smallest``; NaN for the zero matrix; infinite if it is beyond the largest float64, 1.8e308.
    largest, smallest : float
        Largest and smallest nonzero absolute eigenvalue. If float64 cannot hold them, they are infinite and 0, even if
        it can hold their ratio.
    rank, size : int
        How many eigenvalues are certainly not zero, and how many there are.
    tolerance : float
        Level up to which an eigenvalue was left out, relative to the largest (absolute if the rank is 0). For the block
        of one layer it is the level for an entry of a triangular factor, relative to the magnitudes of its terms, so
        that units of measurement do not matter: ``eps`` of the dtype times the largest of the numbers of samples and
        units.
    gap : float
        Smallest value that counts, divided by the upper bound of the values left out, rounding errors included;
        infinite if all values left out are certainly zero. A gap near 1 means that the rank is arbitrary. A large gap
        does not prove that the values left out are zero: see `undecided`.
    uncertainty : float
        Estimate of the relative error of `value` that rounding in the data, the weights and the computation allows, for
        the stated `rank`. 1 or more means that no digit is known.
    negative : int
        How many eigenvalues are negative. If there are any, the Hessian is indefinite, and its condition number does
        not describe the speed of gradient descent.
    undecided : int
        How many of the eigenvalues left out may be nonzero.
    below : float
        Bound on the absolute value of the undecided eigenvalues; 0 if there are none. It is infinite for the block of
        one layer, because eigenvalues do not decide its rank.
    remark : str
        An addition to `note`: for instance that the residual is rounding noise, so that the number belongs to the
        Gauss-Newton part.
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
    undecided: int = 0
    below: float = 0.0
    remark: str = ""

    @property
    def note(self) -> str:
        """Warnings about the number, in words; empty if there are none."""
        if self.rank == 0:
            state = f"cannot be told from zero at this precision{self._below}" if self.undecided else "is zero"
            return f"the matrix {state}: its condition number is undefined"
        notes = [self.remark] if self.remark else []
        if math.isinf(self.value):
            notes.append("the condition number is larger than the largest float64, 1.8e308")
        if self.negative:
            notes.append(f"indefinite: {self.negative} negative eigenvalues")
        zeros = self.size - self.rank - self.undecided
        if zeros:
            notes.append(f"rank-deficient: {zeros} of {self.size} eigenvalues are zero and left out")
        if self.undecided:
            notes.append(
                f"{self.undecided} of {self.size} eigenvalues cannot be told from zero at this precision"
                f"{self._below} and are left out"
            )
        if self.gap < 1e3:
            notes.append(f"the rank is uncertain: the values around the cut differ only by a factor {self.gap:.2g}")
        if math.isinf(self.uncertainty):
            notes.append("the data do not determine the value: the bound on its error overflows")
        elif self.uncertainty >= 1:
            notes.append("the data do not determine a single digit of the value")
        elif self.uncertainty > 1e-3:
            notes.append(f"the data determine the value only to a relative error of {self.uncertainty:.1g}")
        return "; ".join(notes)

    @property
    def _below(self) -> str:
        return "" if self.below in (0.0, math.inf) else f" (known only to be below {self.below:.2g})"

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        numbers = f"value={self.value:.10g}, largest={self.largest:.6g}, smallest={self.smallest:.6g}"
        doubt = f"tolerance={self.tolerance:.1e}, gap={self.gap:.2g}, uncertainty={self.uncertainty:.1e}"
        counts = f"negative={self.negative}, undecided={self.undecided}"
        return f"Condition({numbers}, rank={self.rank}, size={self.size}, {doubt}, {counts})"

    def __str__(self) -> str:
        if self.rank == 0:
            return f"undefined ({self.note})"
        text = f"{self.value:.10g} (rank {self.rank} of {self.size}, relative uncertainty {self.uncertainty:.1e})"
        return f"{text}: {self.note}" if self.note else text


def undefined(size: int, tolerance: float) -> Condition:
    """Return the condition of a zero matrix."""
    return Condition(math.nan, 0.0, 0.0, 0, size, tolerance, math.inf, math.nan)


def from_spectrum(
    spectrum: Spectrum, shift: float, tolerance: float, errors: tuple[float, float], zeros: int
) -> Condition:
    """Return the condition of a matrix with this spectrum plus `shift` times the identity.

    Parameters
    ----------
    spectrum : Spectrum
        Without the shift.
    shift : float
    tolerance : float
        Absolute eigenvalues at or below it are left out, or taken for zero before the shift.
    errors : (float, float)
        The largest value that a zero eigenvalue may be computed as, and the error of any eigenvalue, both absolute.
    zeros : int
        How many eigenvalues are zero before the shift, for any numbers of these shapes.
    """
    least, error = errors
    values, multiplicities = spectrum.values, spectrum.multiplicities
    exact = np.where(np.abs(values) > tolerance, values, 0.0)
    shifted = exact + shift
    size = np.abs(shifted)
    # What was zero before the shift is exactly the shift; anything else is known to the tolerance only.
    nonzero = np.where(exact == 0, shift != 0, size > tolerance)
    largest = float(size.max(initial=0.0))
    rank = int(multiplicities @ nonzero)
    left_out = spectrum.size - rank
    undecided = left_out if shift else left_out - zeros
    dropped = float(np.abs(values + shift)[~nonzero].max(initial=0.0)) if left_out else 0.0
    # Errors add up, or their roots do where eigenvalues are squares. The second bound is the larger one.
    below = (math.sqrt(dropped) + math.sqrt(least)) ** 2 if undecided else 0.0
    if below == 0:
        undecided = 0
    if rank == 0:
        zero = undefined(spectrum.size, tolerance)
        return replace(zero, gap=1.0, undecided=undecided, below=below) if undecided else zero
    smallest = float(size[nonzero].min())
    return Condition(
        value=largest / smallest,
        largest=largest,
        smallest=smallest,
        rank=rank,
        size=spectrum.size,
        tolerance=tolerance / largest,
        gap=smallest / below if undecided else math.inf,
        uncertainty=error / largest + error / smallest,
        negative=int(multiplicities @ (shifted < 0)),
        undecided=undecided,
        below=below,
    )


def of_squares(condition: Condition, unit: float) -> Condition:
    """Return the condition of ``J.T J`` whose eigenvalues are squared singular values of J, of relative error `unit`.

    The singular values have these errors; their squares, the eigenvalues, have twice the relative error.
    """
    if condition.rank == 0:
        return condition
    return replace(condition, uncertainty=2 * unit * (1 + math.sqrt(condition.value)))


def from_singular_values(values: NDArray[np.float64], shape: tuple[int, int], error: float) -> Condition:
    """Return the condition of a rectangular matrix.

    Parameters
    ----------
    values : (min(shape),) array
        Its singular values, descending.
    shape : (int, int)
    error : float
        How far the matrix may be, in norm, from the true one.
    """
    largest = float(values[0])
    error += max(shape) * float(np.finfo(np.float64).eps) * largest
    rank = int(np.sum(values > error))
    left_out = len(values) - rank if error else 0
    below = float(values[rank]) + error if left_out else 0.0
    if rank == 0:
        zero = undefined(len(values), error)
        return replace(zero, gap=1.0, undecided=left_out, below=below) if left_out else zero
    smallest = float(values[rank - 1])
    return Condition(
        value=largest / smallest,
        largest=largest,
        smallest=smallest,
        rank=rank,
        size=len(values),
        tolerance=error / largest,
        gap=smallest / below if below else math.inf,
        uncertainty=error / largest + error / smallest,
        undecided=left_out,
        below=below,
    )
