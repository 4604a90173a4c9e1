"""Steps of the band Lanczos method with full orthogonalisation: their definition, in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hesskern._base.array_types import Array, Matrix

#: Less than this share of a vector's norm is rounding error: nothing of it is outside the span.
_NOTHING = 1e-13


def steps(
    apply: Callable[[Array, Array], None],
    inside: Array | None,
    vectors: Matrix,
    images: Matrix,
    start: int,
    stop: int,
    block: int,
) -> int:
    """Take the steps `start` ... `stop` - 1 of the band Lanczos method.

    Step j writes the image of vector j, and makes vector j + block of it. O(stop P) a step, and a product.

    Parameters
    ----------
    apply : callable
        Writes the product with its first argument into the second.
    inside : (P,) array, optional
        What images are multiplied by: 1, or 0 at entries that do not belong to the operator.
    vectors : (m, P) array
        The first ``start + block`` rows are orthonormal.
    images : (n, P) array
        The first `start` rows are the images of these rows of `vectors`.
    start, stop, block : int

    Returns
    -------
    int
        -1, or how many vectors have images, if nothing was left of a new vector; it is missing then.
    """
    for j in range(start, stop):
        apply(vectors[j], images[j])
        if inside is not None:
            images[j] *= inside
        if not orthonormalise(vectors[: j + block], images[j].copy(), vectors[j + block]):
            return j + 1
    return -1


def orthonormalise(rows: Matrix, vector: Array, out: Array) -> bool:
    """Write a vector, made orthogonal to orthonormal rows and of norm 1; return False if nothing is left of it."""
    before = left = float(np.linalg.norm(vector))
    for _ in range(5):
        vector -= (rows @ vector) @ rows
        now = float(np.linalg.norm(vector))
        if not now > _NOTHING * before:
            return False
        enough = now > 0.5 * left
        left = now
        if enough:
            break
    np.divide(vector, left, out=out)
    return True
