"""The largest and the smallest absolute eigenvalue of a dense symmetric matrix, without all the others.

The Lanczos method finds the largest from products, and the smallest from solutions with one LU decomposition: together
half the time of all eigenvalues. From a random start vector it finds both with certainty for any practical purpose:
it would miss one only if the vector were orthogonal to its eigenspace up to about 1e-10. Copies do not matter here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Array, Matrix
from hesskern._base.lanczos import steps

#: Vectors between two looks at the residual, and at most.
_LOOK, _MOST = 6, 120
#: A residual of this size, relative to the eigenvalue, is small enough; the eigenvalue's error is at most as large.
_SMALL = 1e-12
#: Products of a larger relative error are not used.
_LARGE = 1e-6


def extreme_magnitudes(matrix: Matrix) -> tuple[float, float] | None:
    """Return the largest and the smallest absolute eigenvalue; None where the method is too slow.

    Parameters
    ----------
    matrix : (n, n) array
        Symmetric and of moderate size; not singular.
    """
    lu = decompositions.lu(matrix)
    if lu is None:
        return None

    def multiply(v: Array, out: Array) -> None:
        np.matmul(matrix, v, out=out)

    largest = _largest(multiply, len(matrix))
    if largest is None:
        return None

    def solve(v: Array, out: Array) -> None:
        out[:] = lu(v)

    inverse = _largest(solve, len(matrix), 4.0 * float(np.finfo(np.float64).eps) * largest)
    return None if inverse is None else (largest, 1.0 / inverse)


def _largest(apply: Callable[[Array, Array], None], size: int, error: float = 0.0) -> float | None:
    """Return the largest absolute eigenvalue of an operator; `error`: the relative error of a product over it."""
    most = min(_MOST, size)
    vectors, images = np.empty((most + 1, size)), np.empty((most, size))
    start: NDArray[np.float64] = np.random.default_rng(0).standard_normal(size)
    vectors[0] = start / np.linalg.norm(start)
    known = 0
    while known < most:
        stop = min(known + _LOOK, most)
        if steps(apply, None, vectors, images, known, stop, 1) >= 0:
            return None
        known = stop
        projected = images[:known] @ vectors[:known].T
        if not np.isfinite(projected).all():
            return None
        values, mix = decompositions.eigh(0.5 * (projected + projected.T))
        at = int(np.argmax(np.abs(values)))
        residual = np.linalg.norm(mix[:, at] @ images[:known] - values[at] * (mix[:, at] @ vectors[:known]))
        size_of_value = abs(float(values[at]))
        if residual <= max(_SMALL, min(error * size_of_value, _LARGE)) * size_of_value:
            return size_of_value
    return None
