"""Finite differences: the truncation error of one-sided ones, and the grid that subtraction leaves behind.

A squared residual is a polynomial of degree two in each single parameter, so a gradient's central difference along one
parameter is exact, and a one-sided difference with step h is off by h/2 times a third derivative, which is computed here
from three gradients. What remains is rounding: gradients are floats, so their difference is a multiple of their unit in the
last place, and dividing by h leaves a grid that tells h.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.causes import Cause
from hesskern.explanation.orders import Tensor
from hesskern.loss import SquaredLoss
from hesskern.network import LinearNetwork

Values = NDArray[np.float64]

_EPSILON = float(np.finfo(np.float64).eps)

#: Steps that people take.
_STEPS = sorted({
    *(10.0**-k for k in range(1, 11)), *(2.0**-k for k in range(2, 31)), *(5.0 * 10.0**-k for k in range(2, 9)),
    *(2.0 * 10.0**-k for k in range(2, 9)), _EPSILON**0.5, _EPSILON ** (1 / 3), _EPSILON**0.25,
})  # fmt: skip

#: Entries looked at for the grid, the fewest that are enough, and the share of them that has to lie on it.
_LOOKED_AT, _FEWEST, _SHARE = 4000, 24, 0.8


class Found(NamedTuple):
    """Finite differences with what they explain."""

    cause: Cause
    step: float
    correction: Values  # the truncation error, to be added to the Hessian
    allowed: float  # Frobenius norm of the rounding error at this step


def find(
    matrix: Values, hessian: Values, net: LinearNetwork, loss: SquaredLoss, positions: NDArray[np.intp]
) -> Found | None:
    """Return the finite differences that the matrix came from, or None.

    Parameters
    ----------
    matrix, hessian : (P, P) arrays
        The candidate and the Hessian, both in `named_parameters()` order.
    net, loss
        Float64; the loss with its weight decay.
    positions : (P,) array
        Where the parameters stand in ``net.flatten()``.
    """
    gradient = loss.gradient(net)[positions]
    noise = gradient_noise(net, loss)
    for orientation, given in (("", matrix), ("rows", matrix.T)):
        found = _one_sided(given, hessian, net, loss, positions, gradient, noise)
        if found is not None:
            if orientation:
                return found._replace(correction=found.correction.T)
            return found
    rest = float(np.linalg.norm(matrix - hessian))
    for given, units in ((matrix, gradient[:, None]), (matrix.T, gradient[:, None])):
        step = _grid(given, np.spacing(np.broadcast_to(np.abs(units), matrix.shape)), 2.0)
        if step is not None and rest <= (allowed := noise * np.sqrt(len(matrix)) / step):
            return Found(_cause("central differences of the gradient", step), step, np.zeros_like(matrix), allowed)
    smaller = np.minimum(np.abs(gradient)[:, None], np.abs(gradient)[None, :])
    step = _grid(matrix, np.spacing(smaller) / 2, 2.0)
    if step is not None and rest <= (allowed := noise * np.sqrt(len(matrix)) / step):
        words = "central differences of the gradient, made symmetric afterwards"
        return Found(_cause(words, step), step, np.zeros_like(matrix), allowed)
    value = loss(net)
    unit = np.spacing(np.full(matrix.shape, value))
    squared = _grid(matrix, unit, 4.0, [step**2 for step in _STEPS])
    if squared is not None:
        step = float(np.sqrt(squared))
        allowed = 64 * _EPSILON * np.sqrt(loss.Y.size) * value * len(matrix) / squared
        if rest <= allowed:
            return Found(_cause("second differences of the loss", step), step, np.zeros_like(matrix), allowed)
    return None


def gradient_noise(net: LinearNetwork, loss: SquaredLoss) -> float:
    """Return a bound on the norm of the rounding error of a gradient."""
    norms = [float(np.linalg.norm(weight)) + (0.0 if bias is None else float(np.linalg.norm(bias)))
             for weight, bias in zip(net.weights, net.biases, strict=True)]  # fmt: skip
    data = float(np.linalg.norm(loss.X)) + (np.sqrt(len(loss.X)) if net.has_bias else 0.0)
    residual = data * float(np.prod(norms)) + float(np.linalg.norm(loss.Y))
    each = sum(data * float(np.prod(norms)) / norm for norm in norms if norm)
    terms = len(loss.X) + sum(net.widths)
    return 4.0 * np.sqrt(terms) * _EPSILON * loss.scale * residual * each


def _one_sided(
    matrix: Values, hessian: Values, net: LinearNetwork, loss: SquaredLoss, positions: NDArray[np.intp],
    gradient: Values, noise: float,
) -> Found | None:  # fmt: skip
    theta = net.flatten()
    third = np.empty_like(hessian)
    for column, position in enumerate(positions):
        moved = theta.copy()
        moved[position] += 1.0
        ahead = loss.gradient(net.unflatten(moved))[positions]
        third[:, column] = 2.0 * (ahead - gradient - hessian[:, column])  # exact: degree two along one parameter
    rest = matrix - hessian
    square = float(np.vdot(third, third))
    if square == 0.0:
        return None
    half = float(np.vdot(rest, third)) / square
    step = 2.0 * half
    if step == 0.0:
        return None
    near = [known for known in _STEPS if abs(known - abs(step)) <= 1e-3 * known]
    step = float(np.copysign(near[0], step)) if near else step
    correction = 0.5 * step * third
    allowed = 2.0 * noise * np.sqrt(len(matrix)) / abs(step)
    # The truncation error has to stand out of the noise, or any noise would do.
    if float(np.linalg.norm(rest - correction)) > allowed or float(np.linalg.norm(correction)) < 10 * allowed:
        grid = _grid(matrix, np.spacing(np.broadcast_to(np.abs(gradient)[:, None], matrix.shape)), 1.0)
        if grid is None or abs(grid - abs(step)) > 1e-3 * grid or float(np.linalg.norm(rest - correction)) > allowed:
            return None
    side = "forward" if step > 0 else "backward"
    return Found(_cause(f"{side} differences of the gradient", abs(step)), step, correction, allowed)


def _grid(matrix: Values, unit: Values, points: float, steps: list[float] | None = None) -> float | None:
    """Return the smallest step whose grid ``unit / (points * step)`` holds most entries, or None."""
    flat, units = matrix.ravel(), unit.ravel()
    kept = np.flatnonzero((flat != 0) & (units > 0))
    kept = kept[:: max(1, len(kept) // _LOOKED_AT)]
    for step in steps or _STEPS:
        count = flat[kept] * (points * step) / units[kept]
        # The division by h, and its inverse here, lose a part of a unit where the count is large; where it is small
        # and zero everything lies on the grid.
        useful = (np.abs(count) < 0.02 / _EPSILON) & (np.abs(count) > 0.5)
        if np.count_nonzero(useful) < _FEWEST:
            continue
        off = np.abs(count[useful] - np.rint(count[useful]))
        if float(np.mean(off < 0.1)) >= _SHARE:
            return step
    return None


def _cause(how: str, step: float) -> Cause:
    return Cause(
        "finite-differences",
        f"it comes from {how}, with step h = {step:.3g}",
        "differentiate instead: loss.hessian(net), or torch.func.hessian in float64",
    )
