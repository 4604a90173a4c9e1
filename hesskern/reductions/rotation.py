r"""The data rotated once, so that X is diagonal: the residual then costs o·i and not o·i² multiply-adds a step.

*When it holds.* For full batches. With ``X = U D V.T``, ``‖X P.T - Y‖ = ‖D (P V).T - U.T Y‖``: the rows are rotated by
U, the inputs by V.

*What it leaves.* As many weights as before: ``W_1 V`` instead of W_1.

*How runs are transformed back.* As with the rank of the inputs, with a square V:
`hesskern.reductions.input_rank.InputStage`.

*What it costs.* One singular value decomposition of the reduced X.

*Where it is not used.* With minibatches. Where it does not pay (`pays`), or where rows or columns of the data differ by
orders of magnitude, so that a rotation would mix their scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hesskern._base import decompositions
from hesskern._base.array_types import Array, Matrix
from hesskern.backends.data import Data

#: How many times larger than another a column of X, or a row of ``[X Y]`` that no QR has mixed yet, may be.
_ALIKE = 1e3
#: The fewest inputs, and the smallest part of a step's multiply-adds that has to be saved.
FEWEST, _SAVED = 16, 0.15


class Rotation(NamedTuple):
    """Data with a diagonal X, and V."""

    data: Data
    turn: Matrix  # V, (i, i)


def pays(widths: Sequence[int], rows: int, *, bias: bool) -> bool:
    """Return whether a diagonal X (rows, i) makes a step noticeably faster.

    Examples
    --------
    >>> pays([50, 60, 10], 50, bias=False), pays([5, 10, 5], 5, bias=False)
    (True, False)
    """
    inputs, outputs, first = widths[0], widths[-1], widths[0] * widths[1]
    later = sum(a * b for a, b in zip(widths[1:-1], widths[2:], strict=True))
    seeds = inputs + bias
    product, saved = 3 * seeds * later + 2 * rows * seeds * outputs, 2 * rows * inputs * outputs
    samples = rows * (2 * first + 3 * later)
    return inputs >= FEWEST and product < samples and saved > _SAVED * product


def rotated(data: Data, *, mixed: bool) -> Rotation | None:
    """Return the rotation of some rows of data, in float64; None if it would mix scales.

    Parameters
    ----------
    data : Data
        At least as many rows as inputs.
    mixed : bool
        Whether the rows are combinations of samples already.

    Examples
    --------
    >>> X = np.random.default_rng(0).standard_normal((4, 3))
    >>> rotation = rotated(Data(X, None, X @ np.ones((3, 2)), 0.0), mixed=True)
    >>> bool((np.diag(rotation.data.X.diagonal()) == rotation.data.X[:3]).all())
    True
    """
    X, Y = data.X.astype(np.float64), data.Y.astype(np.float64)
    if len(X) < X.shape[1] or not _alike(np.linalg.norm(X, axis=0)):
        return None
    if not mixed and not _alike(np.linalg.norm(np.hstack([X, Y]), axis=1)):
        return None
    left, values, right = decompositions.svd(X)
    diagonal = np.zeros_like(X)
    diagonal.reshape(-1)[: X.shape[1] * X.shape[1] : X.shape[1] + 1] = values
    ones = left.T @ data.column.astype(np.float64)
    return Rotation(Data(diagonal, ones, left.T @ Y, data.constant), right.T)


def _alike(sizes: Array) -> bool:
    return bool(sizes.max() <= _ALIKE * sizes.min())
