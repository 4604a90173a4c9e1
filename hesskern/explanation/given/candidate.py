"""The candidate: a dense matrix, a spectrum or one number, and the entries in it that no Hessian has."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks
from hesskern._base.array_types import Array

Kind = Literal["matrix", "spectrum", "number"]

#: Rows of a large matrix that are read together: enough for whole cache lines, without a second matrix in memory.
ROWS = 256


#: Quotient of two sizes beyond which the squares of the smaller are lost when both are added.
_FAR = 1e30


@dataclass(frozen=True, slots=True)
class Candidate:
    """A matrix (P, P), eigenvalues (P,) ascending, or a number with half a unit of its last digit."""

    kind: Kind
    array: NDArray[np.float64]  # a number: 0-d
    dtype: np.dtype[np.generic]  # as given; a string dtype for text
    half_unit: float = 0.0  # of a number's last digit


def read_candidate(value: object) -> Candidate:
    """Return the candidate that somebody passed.

    Parameters
    ----------
    value : (P, P) array, (P,) array, real number or text
        A matrix, its eigenvalues in any order, or one number; as text ("5345.81") its digits say how precise it is, and
        a float counts as precise as its shortest decimal form.

    Raises
    ------
    TypeError, ValueError
        If it is something else.
    """
    if isinstance(value, str):
        return _number(value, np.dtype(np.str_))
    if isinstance(value, Real) and not isinstance(value, bool | np.bool_ | np.timedelta64):
        dtype = np.asarray(value).dtype if isinstance(value, float | np.floating) else np.dtype(np.int64)
        return _number(_shortest(value), dtype)
    array = checks.read(value, "candidate")
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise TypeError(
            f"candidate has dtype {array.dtype}; expected real numbers: a matrix, its eigenvalues, or one number."
        )
    if array.ndim == 0:
        return _number(_shortest(array[()]), array.dtype)
    if array.ndim > 2 or array.size == 0:
        raise ValueError(
            f"candidate has shape {array.shape}; expected a matrix (P, P), its eigenvalues (P,), or one number. "
            "A Hessian with one axis per axis of the weights becomes a matrix by reshape(P, P)."
        )
    numbers = np.ascontiguousarray(array, dtype=np.float64)
    return Candidate("matrix" if array.ndim == 2 else "spectrum", numbers, array.dtype)


def _shortest(value: object) -> str:
    """Return a float's shortest decimal form in its own precision, without a lone zero after the point."""
    try:
        text = str(value) if isinstance(value, np.floating) else repr(float(value))  # type: ignore[arg-type]
    except OverflowError as error:
        raise ValueError(f"candidate is {checks.shown(value)}; expected a number that float64 can hold.") from error
    return text.removesuffix(".0")


def _number(text: str, dtype: np.dtype[Any]) -> Candidate:
    stripped = text.strip()
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", stripped, re.IGNORECASE):
        raise ValueError(f"candidate is {text!r}; expected a number, for instance 5345.81.")
    value = float(stripped)
    if math.isinf(value) and stripped[-1].isdigit():
        raise ValueError(f"candidate is {checks.shown(text)}; expected a number that float64 can hold.")
    half_unit = 0.0
    if math.isfinite(value):
        exponent = Decimal(stripped).as_tuple().exponent if value else 0
        assert isinstance(exponent, int)
        half_unit = max(0.5 * 10.0**exponent, float(np.spacing(abs(value))))
    return Candidate("number", np.array(value), dtype, half_unit)


def exponent_to(array: Array, size: float) -> int:
    """Return the power of two that scales entries far from a size to it; 0 if none is needed."""
    largest = float(np.abs(array).max())
    if largest == 0.0 or not 0.0 < size < math.inf or 1.0 / _FAR <= largest / size <= _FAR:
        return 0
    return math.frexp(size)[1] - math.frexp(largest)[1]


def bad_entries(array: Array) -> NDArray[np.intp]:
    """Return the indices of NaN and infinities, (count, ndim)."""
    if math.isfinite(float(np.sum(array))):  # one pass without a second array; a sum may overflow, so look then
        return np.empty((0, array.ndim), dtype=np.intp)
    return np.argwhere(~np.isfinite(array))


@dataclass(frozen=True, slots=True)
class Symmetry:
    """Frobenius norm of ``(C - C.T) / 2``, and the only triangle that is filled: "upper", "lower" or ""."""

    skew: float
    triangle: str


def symmetry(matrix: NDArray[np.float64]) -> Symmetry:
    """Measure how far a matrix is from symmetric, by two random vectors: O(P²), and no second matrix."""
    vectors = np.random.default_rng(7).standard_normal((len(matrix), 2))
    skew = float(np.linalg.norm(matrix @ vectors - matrix.T @ vectors)) / math.sqrt(8.0)
    triangle = ""
    if skew > 1e-3 * float(np.linalg.norm(matrix)):
        upper, lower = (any(map(np.any, strips)) for strips in _strips(matrix))
        if upper != lower:
            triangle = "upper" if upper else "lower"
    return Symmetry(skew, triangle)


def _strips(matrix: NDArray[np.float64]) -> tuple[Iterator[NDArray[np.float64]], Iterator[NDArray[np.float64]]]:
    """Return the rows above and those below the diagonal."""
    rows = range(len(matrix))
    return (matrix[k, k + 1 :] for k in rows), (matrix[k, :k] for k in rows)
