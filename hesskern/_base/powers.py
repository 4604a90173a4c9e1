"""Powers of two moved between the factors of a product, so that no factor overflows or vanishes.

A Hessian of order one may be the product of a matrix of 1e+320 and one of 1e-320. Multiplying by a power of two is
exact. So no digit is lost by keeping each factor as a matrix of moderate size and an exponent, and by adding the
exponents at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hesskern._base import devices

#: Entries of a factor stay between 2**-MODERATE and 2**MODERATE where they can: then sums of products of two of them
#: are float64 numbers.
MODERATE = 480
#: Numbers that are looked at together.
_AT_ONCE = 1 << 18


class Span(NamedTuple):
    """Exponents of a matrix: of its largest entry and of its smallest nonzero one, in absolute value."""

    largest: float
    smallest: float

    @property
    def reach(self) -> float:
        """Distance of the farther one from 0."""
        return max(abs(self.largest), abs(self.smallest))


class Scaled(NamedTuple):
    """The matrix ``2**exponent * matrix``."""

    matrix: Any
    exponent: int = 0

    @property
    def value(self) -> Any:
        """The matrix itself; infinite or zero where float64 has no such number."""
        return times_power(self.matrix, self.exponent)


def span(matrix: Any) -> Span:
    """Return the span of a matrix; ``(0, 0)`` of one that is zero."""
    numbers = matrix.reshape(-1)
    largest, smallest = 0.0, math.inf
    for start in range(0, len(numbers), _AT_ONCE):  # absolute values are a copy
        size = abs(numbers[start : start + _AT_ONCE])
        most, least = float(size.max()), float(size.min())
        if most > 0 and least == 0:
            least = float(size[size > 0].min())
        if most > 0:
            largest, smallest = max(largest, most), min(smallest, least)
    return Span(math.log2(largest), math.log2(smallest)) if largest else Span(0.0, 0.0)


def reach(matrices: Sequence[Any]) -> float:
    """Return the sum of the matrices' reaches: where it is at most MODERATE, products of all of them can be squared."""
    if sum(map(devices.size, matrices)) <= _AT_ONCE:
        farthest = span(devices.concatenate([matrix.reshape(-1) for matrix in matrices])).reach
        if len(matrices) * farthest <= MODERATE / 4:
            return len(matrices) * farthest  # not less, and no reason to look at them one by one
    return sum(span(matrix).reach for matrix in matrices)


def magnitude(matrix: Any) -> float:
    """Return the exponent of a matrix's largest entry, or fast, where no square overflows, of its typical one."""
    mean = devices.squared_norm(matrix) / max(devices.size(matrix), 1)
    return math.log2(mean) / 2 if 0.0 < mean < math.inf else span(matrix).largest


def times_power(matrix: Any, exponent: int) -> Any:
    """Return ``2**exponent * matrix``; in two halves, each of which is a float64 number."""
    if exponent == 0:
        return matrix
    exponent = max(min(exponent, 2000), -2000)
    half = exponent // 2
    with np.errstate(over="ignore", under="ignore"):
        return (matrix * math.ldexp(1.0, half)) * math.ldexp(1.0, exponent - half)


def moderate(matrix: Any, exponent: int = 0) -> Scaled:
    """Return ``2**exponent * matrix`` with entries that can be squared and added up.

    If they span more than the range of float64, the smallest are lost; they are negligible next to the largest.
    """
    largest, smallest = span(matrix)
    if max(largest, -smallest) <= MODERATE:
        return Scaled(matrix, exponent)
    by = math.ceil(max((largest + smallest) / 2, largest - MODERATE))
    return Scaled(times_power(matrix, -by), exponent + by)


def aligned(left: Scaled, right: Scaled) -> tuple[Any, Any, int]:
    """Return both matrices with the exponent of the larger one, and this exponent."""
    if left.exponent == right.exponent:
        return left.matrix, right.matrix, left.exponent
    if span(left.matrix).largest + left.exponent >= span(right.matrix).largest + right.exponent:
        return left.matrix, times_power(right.matrix, right.exponent - left.exponent), left.exponent
    return times_power(left.matrix, left.exponent - right.exponent), right.matrix, right.exponent


def shared(left: Scaled, right: Scaled, low: float, high: float) -> tuple[Any, Any]:
    """Return two matrices with the same entrywise or Kronecker product as these, entries between 2**low and 2**high.

    The smallest possible power of two moves from one matrix to the other; if both are in range already, nothing moves.
    If not all entries can be in range, the largest are.
    """
    left_span, right_span = span(left.matrix), span(right.matrix)
    # How many powers of two may be taken from the right and given to the left: at least and at most.
    least, most = right_span.largest + right.exponent - high, high - left_span.largest - left.exponent
    if least > most:
        up = (least + most) / 2
    else:
        up_least, up_most = low - left_span.smallest - left.exponent, right_span.smallest + right.exponent - low
        if up_least > up_most:  # both lose entries, as few as possible
            up_least = up_most = (up_least + up_most) / 2
        least, most = max(least, min(up_least, most)), min(most, max(up_most, least))
        up = min(max(0.0, least), most)
    move = math.ceil(up) if up > 0 else math.floor(up)
    return times_power(left.matrix, left.exponent + move), times_power(right.matrix, right.exponent - move)


def in_dtype(left: Scaled, right: Scaled, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return two matrices of this dtype with the same entrywise or Kronecker product as these.

    Raises
    ------
    OverflowError
        If the product has entries that the dtype cannot hold.
    """
    limits = np.finfo(dtype)
    largest = span(left.matrix).largest + left.exponent + span(right.matrix).largest + right.exponent
    if largest > limits.maxexp - 1:
        raise too_large(dtype)
    left_matrix, right_matrix = shared(left, right, float(limits.minexp), limits.maxexp - 2.0)
    return devices.converted(left_matrix, dtype), devices.converted(right_matrix, dtype)


def too_large(dtype: np.dtype[Any]) -> OverflowError:
    """Return the error to raise if the curvature does not fit into this dtype."""
    wider = " or use float64" if np.dtype(dtype) == np.float32 else ""
    return OverflowError(
        f"entries of the matrix are larger than {np.dtype(dtype)} can hold ({np.finfo(dtype).max:.2g}); "
        f"scale the samples or the weights down{wider}."
    )
