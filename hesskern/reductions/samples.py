r"""Many samples become few rows with the same loss.

*When it holds.* Always, for losses that are a squared norm of the residual, with all samples in each step.

*What is left.* At most i rows (i+1 with biases) for N samples, and a constant.

*What it costs.* One triangular factor, O(N (i+o)²), in one pass over the samples. Nothing is transformed back: the
parameters are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern._base import devices
from hesskern._base.array_types import Array
from hesskern._base.interrupt import RATE, interruptibly
from hesskern._base.powers import MODERATE, moderate, span, times_power
from hesskern.backends.data import Data


def reduce_samples(
    data: Data, *, bias: bool, triangular_factor: Callable[[Sequence[Array]], NDArray[np.float64]]
) -> Data:
    r"""Replace N samples by at most i (with biases i+1) rows with the same loss, gradient and Hessian.

    With the thin QR ``[X 1] = Q R``, ``‖X P.T - Y‖² = ‖R P.T - Q.T Y‖² + ‖Y - Q Q.T Y‖²`` for every P. One triangular
    factor of ``[X 1 Y]`` holds R, ``Q.T Y`` and the rest, so Q is never formed. QR is orthogonal, so it is backward
    stable; the normal equations would square the condition number.

    Parameters
    ----------
    data : Data
        N samples without a constant; instead of the column of ones it may have another, which biases multiply.
    bias : bool
        Whether the network has biases, that is whether this column belongs to X.
    triangular_factor : callable
        R of the thin QR of matrices side by side, of a backend.

    Returns
    -------
    Data
        The data itself if N is already small; otherwise float64, for any dtype of the samples, because many float32
        samples determine more digits than a few float32 rows can hold.
    """
    X, Y = data.X, data.Y
    columns = X.shape[1] + bool(bias)
    if len(X) <= columns:
        return data
    ones = data.column[:, None] if bias else devices.ones((len(X), 0), X)
    seconds = 2.0 * len(X) * (columns + Y.shape[1]) ** 2 / RATE
    triangle = interruptibly(triangular_factor, (X, ones, Y), seconds=seconds)
    if span(triangle).reach <= MODERATE:
        return of_triangle(triangle, X.shape[1], bias=bias)
    # Squares of such numbers overflow or vanish. Columns may be scaled: those of the factor are scaled likewise.
    left, right = moderate(devices.converted(X, np.float64)), moderate(devices.converted(Y, np.float64))
    parts = left.matrix, devices.converted(ones, np.float64), right.matrix
    triangle = interruptibly(triangular_factor, parts, seconds=seconds)
    scaled = of_triangle(triangle, X.shape[1], bias=bias)
    constant = scaled.constant * math.ldexp(1.0, right.exponent) * math.ldexp(1.0, right.exponent)
    return Data(times_power(scaled.X, left.exponent), scaled.ones, times_power(scaled.Y, right.exponent), constant)


def of_triangle(triangle: NDArray[np.float64], inputs: int, *, bias: bool) -> Data:
    """Return the data whose ``[X 1 Y]`` (``[X Y]`` without biases) has this triangular factor."""
    columns = inputs + bool(bias)
    residual = triangle[columns:, columns:].ravel()
    return Data(
        devices.converted(triangle[:columns, :inputs], np.float64),
        devices.converted(triangle[:columns, inputs], np.float64) if bias else None,
        devices.converted(triangle[:columns, columns:], np.float64),
        0.5 * float(residual @ residual),
    )
