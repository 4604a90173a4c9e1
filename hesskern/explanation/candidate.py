"""What was given: a dense matrix, a spectrum or one number, and what stands in it that no Hessian has."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hesskern._array import Array

Kind = Literal["matrix", "spectrum", "number"]

#: Rows of a large matrix that are looked at together: enough for whole cache lines, and no second matrix in memory.
ROWS = 256


@dataclass(frozen=True, slots=True)
class Candidate:
    """A matrix (P, P), eigenvalues (P,) ascending, or a number with half a unit of its last digit."""

    kind: Kind
    array: NDArray[np.float64]  # a number: 0-d
    dtype: np.dtype[np.generic]  # as given
    half_unit: float = 0.0  # of a number's last digit


def read(value: object) -> Candidate:
    """Return what was given.

    Parameters
    ----------
    value : (P, P) array, (P,) array, real number or text
        A matrix, its eigenvalues in any order, or one number; as text ("5345.81") its digits say how precise it is, and
        a float counts as precise as its shortest decimal form.

    Raises
    ------
    TypeError, ValueError
        If it is nothing of the kind.
    """
    if isinstance(value, str):
        return _number(value)
    if isinstance(value, Real) and not isinstance(value, bool | np.bool_):
        return _number(_shortest(value))
    try:
        array = np.asarray(value)
    except Exception as error:  # a tensor that requires grad or lives on a GPU raises its own kind
        raise TypeError(
            f"candidate is a {type(value).__name__} that NumPy cannot read ({error}); "
            "for a torch tensor pass candidate.detach().cpu().numpy()."
        ) from error
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TypeError(
            f"candidate has dtype {array.dtype}; expected real numbers: a matrix, its eigenvalues, or one number."
        )
    if array.ndim == 0:
        return _number(_shortest(array[()]))
    if array.ndim > 2 or array.size == 0:
        raise ValueError(
            f"candidate has shape {array.shape}; expected a matrix (P, P), its eigenvalues (P,), or one number. "
            "A Hessian with one axis per axis of the weights becomes a matrix by reshape(P, P)."
        )
    given = np.ascontiguousarray(array, dtype=np.float64)
    return Candidate("matrix" if array.ndim == 2 else "spectrum", given, array.dtype)


def _shortest(value: object) -> str:
    """Return a float's shortest decimal form in its own precision, whose zero after the point is not a digit given."""
    text = str(value) if isinstance(value, np.floating) else repr(float(value))  # type: ignore[arg-type]
    return text.removesuffix(".0")


def _number(text: str) -> Candidate:
    stripped = text.strip()
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", stripped, re.IGNORECASE):
        raise ValueError(f"candidate is {text!r}; expected a number, for instance 5345.81.")
    value = float(stripped)
    half_unit = 0.0
    if math.isfinite(value):
        exponent = Decimal(stripped).as_tuple().exponent
        assert isinstance(exponent, int)
        half_unit = max(0.5 * 10.0**exponent, float(np.spacing(abs(value))))
    return Candidate("number", np.array(value), np.dtype(np.float64), half_unit)


def bad_entries(array: Array) -> NDArray[np.intp]:
    """Return the indices of NaN and infinities, (count, ndim)."""
    if math.isfinite(float(np.sum(array))):  # one pass without a second array; a sum may overflow, so look then
        return np.empty((0, array.ndim), dtype=np.intp)
    return np.argwhere(~np.isfinite(array))


@dataclass(frozen=True, slots=True)
class Symmetry:
    """Frobenius norms of ``(C - C.T) / 2`` and of what lies above and below the diagonal."""

    skew: float
    upper: float
    lower: float


def symmetry(matrix: NDArray[np.float64]) -> Symmetry:
    """Measure how far a matrix is from symmetric, in blocks: O(P²) time, no second matrix."""
    skew = upper = lower = 0.0
    size = len(matrix)
    for at in range(0, size, ROWS):
        end = min(at + ROWS, size)
        for left in range(0, end, ROWS):
            right = min(left + ROWS, size)
            low, high = matrix[at:end, left:right], matrix[left:right, at:end].T
            if left == at:
                low, high = np.tril(low, -1), np.tril(high, -1)
            difference = low - high
            skew += float(np.vdot(difference, difference))
            lower += float(np.vdot(low, low))
            upper += float(np.vdot(high, high))
    return Symmetry(math.sqrt(skew / 2), math.sqrt(upper), math.sqrt(lower))
