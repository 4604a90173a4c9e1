"""Data that were prepared before the Hessian was taken: standardised, centred, or targets broadcast by accident."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hesskern._base.array_types import Array
from hesskern.explanation.given.causes import Cause
from hesskern.losses.squared import SquaredLoss


class Prepared(NamedTuple):
    """Other data, the factor of their loss, and what was done to them."""

    cause: Cause
    factor: float
    X: Array
    Y: Array


def prepared(loss: SquaredLoss) -> Iterator[Prepared]:
    """Yield the ways to prepare the data of a float64 loss, without those that overflow."""
    with np.errstate(all="ignore"):
        for data in (*_broadcast(loss), *_scaled(loss)):
            if np.isfinite(data.X).all() and np.isfinite(data.Y).all():
                yield data


def _broadcast(loss: SquaredLoss) -> Iterator[Prepared]:
    samples, outputs = loss.Y.shape
    if outputs != 1 or samples < 2:
        return
    # The mean over all pairs (prediction n, target m) has the gradient and the Hessian of the mean target.
    cause = Cause(
        "targets-broadcast",
        "targets of shape (N,) are subtracted from predictions of shape (N, 1), which gives N x N residuals: every "
        "prediction is compared with every target, as if each target were the mean of all",
        "give the targets the shape of the predictions: Y.reshape(-1, 1), or prediction.squeeze(1)",
    )
    yield Prepared(cause, 1.0 if loss.kind == "mean" else samples, loss.X, np.full_like(loss.Y, loss.Y.mean()))


def _scaled(loss: SquaredLoss) -> Iterator[Prepared]:
    X, Y = loss.X, loss.Y
    fix = "pass the same X and Y to SquaredLoss as to the other program"
    centred = {"X": X - X.mean(axis=0), "Y": Y - Y.mean(axis=0)}
    for names in ("X", "Y", "XY"):
        words = {"X": "the inputs are", "Y": "the targets are", "XY": "inputs and targets are"}[names]

        def both(change: dict[str, Array], names: str = names) -> tuple[Array, Array]:
            return change["X"] if "X" in names else X, change["Y"] if "Y" in names else Y

        yield Prepared(Cause(f"{names}-centred", f"{words} centred: the mean of each column is subtracted", fix), 1.0,
                       *both(centred))  # fmt: skip
        for ddof in (0, 1):
            if len(X) <= ddof:
                continue
            standardised = {name: array / _nonzero(array.std(axis=0, ddof=ddof)) for name, array in centred.items()}
            how = "N" if ddof == 0 else "N - 1, as torch.std does"
            cause = Cause(
                f"{names}-standardised{'[ddof=1]' if ddof else ''}",
                f"{words} standardised: each column has mean 0 and standard deviation 1 (divided by {how})",
                fix,
            )
            yield Prepared(cause, 1.0, *both(standardised))
    least = X.min(axis=0)
    cause = Cause("X-scaled-to-one", "the inputs are scaled to the interval from 0 to 1, column by column", fix)
    yield Prepared(cause, 1.0, (X - least) / _nonzero(np.ptp(X, axis=0)), Y)
    cause = Cause("X-rows-normalised", "the inputs of each sample are divided by their norm", fix)
    yield Prepared(cause, 1.0, X / _nonzero(np.linalg.norm(X, axis=1))[:, None], Y)


def _nonzero(sizes: Array) -> Array:
    return np.where(sizes > 0, sizes, 1.0)
