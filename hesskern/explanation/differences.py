"""Finite differences: the truncation error of one-sided ones, and the grid that subtraction leaves behind.

A squared residual is a polynomial of degree two in each single parameter, so a gradient's central difference along one
parameter is exact, and a one-sided difference with step h is off by h/2 times a third derivative, which is computed
here from three gradients. What remains is rounding: gradients are floats, so their difference is a multiple of their
unit in the last place, and dividing by h leaves a grid that tells h.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.causes import Cause
from hesskern.loss import SquaredLoss
from hesskern.network import LinearNetwork

Values = NDArray[np.float64]

_EPSILON = float(np.finfo(np.float64).eps)

#: Steps that people take.
_STEPS = sorted({
    *(10.0**-k for k in range(1, 11)), *(2.0**-k for k in range(2, 31)), *(5.0 * 10.0**-k for k in range(2, 9)),
    *(2.0 * 10.0**-k for k in range(2, 9)), _EPSILON**0.5, _EPSILON ** (1 / 3), _EPSILON**0.25,
})  # fmt: skip

#: Columns whose third derivatives are looked at first.
_COLUMNS = 64

#: Share of the difference that may be left when the truncation error is taken away.
_LEFT = 0.3

#: Entries looked at for the grid, the fewest that are enough, and the share of them that has to lie on it.
_LOOKED_AT, _FEWEST, _SHARE = 4000, 24, 0.85


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
    gradient: Values = loss.gradient(net)[positions].astype(np.float64)
    noise = gradient_noise(net, loss) * np.sqrt(len(matrix))
    rest = matrix - hessian
    size = float(np.linalg.norm(rest))
    symmetric = float(np.linalg.norm(rest - rest.T)) <= 1e-3 * size
    some = np.random.default_rng(3).permutation(len(matrix))[:_COLUMNS]
    corner = _third_derivatives(hessian, net, loss, positions, gradient, some)[some]
    shapes = [corner + corner.T] if symmetric else [corner, corner.T]
    if any(_parallel(rest[np.ix_(some, some)], shape) for shape in shapes):
        third = _third_derivatives(hessian, net, loss, positions, gradient, np.arange(len(matrix)))
        for shape in [0.5 * (third + third.T)] if symmetric else [third, third.T]:
            found = _one_sided(rest, shape, noise, symmetric=symmetric)
            if found is not None:
                return found
    units = np.spacing(np.abs(gradient))
    grids: list[tuple[float, float, str]] = []  # spacing, step, how
    if symmetric:
        smaller = np.minimum(units[:, None], units[None, :])
        grids += _grid(matrix, smaller, 4.0, _STEPS, "central differences of the gradient, made symmetric afterwards")
        value = np.full(matrix.shape, np.spacing(loss(net)))
        squares = [step**2 for step in _STEPS]
        found_squares = _grid(matrix, value, 4.0, squares, "second differences of the loss")
        grids += [(spacing, float(np.sqrt(square)), how) for spacing, square, how in found_squares]
    else:
        exact = "" if corner.any() else " (or one-sided ones with twice this step: the third derivatives vanish)"
        for unit in (units[:, None], units[None, :]):
            grids += _grid(
                matrix, np.broadcast_to(unit, matrix.shape), 2.0, _STEPS, f"central differences of the gradient{exact}"
            )
    for _, step, how in sorted(grids, reverse=True):  # the coarsest grid says most
        allowed = noise / step
        if how.startswith("second"):
            allowed = 64 * _EPSILON * np.sqrt(loss.Y.size) * loss(net) * len(matrix) / step**2
        if size <= allowed:
            return Found(_cause(how, step), step, np.zeros_like(matrix), allowed)
    return None


def _parallel(rest: Values, third: Values) -> bool:
    """Whether most of a difference has the direction of the third derivatives."""
    product, sizes = float(np.vdot(rest, third)), float(np.linalg.norm(rest) * np.linalg.norm(third))
    return sizes > 0 and abs(product) > 0.9 * sizes


def _third_derivatives(
    hessian: Values, net: LinearNetwork, loss: SquaredLoss, positions: NDArray[np.intp], gradient: Values,
    some: NDArray[np.intp],
) -> Values:  # fmt: skip
    """Return the second derivatives of the gradient along some parameters, in the columns; exact but for rounding."""
    theta = net.flatten()
    third = np.empty((len(hessian), len(some)))
    for at, column in enumerate(some):
        moved = theta.copy()
        moved[positions[column]] += 1.0
        ahead = loss.gradient(net.unflatten(moved))[positions]
        third[:, at] = 2.0 * (ahead - gradient - hessian[:, column])  # degree two along one parameter
    third[np.abs(third) <= 1e-12 * np.abs(hessian).max()] = 0.0
    return third


def gradient_noise(net: LinearNetwork, loss: SquaredLoss) -> float:
    """Return a bound on the norm of the rounding error of a gradient."""
    norms = [float(np.linalg.norm(weight)) + (0.0 if bias is None else float(np.linalg.norm(bias)))
             for weight, bias in zip(net.weights, net.biases, strict=True)]  # fmt: skip
    data = float(np.linalg.norm(loss.X)) + (np.sqrt(len(loss.X)) if net.has_bias else 0.0)
    residual = data * float(np.prod(norms)) + float(np.linalg.norm(loss.Y))
    each = sum(data * float(np.prod(norms)) / norm for norm in norms if norm)
    terms = len(loss.X) + sum(net.widths)
    return float(4.0 * np.sqrt(terms) * _EPSILON * loss.scale * residual * each)


def _one_sided(rest: Values, third: Values, noise: float, *, symmetric: bool) -> Found | None:
    """Return one-sided differences if the difference has the shape of their truncation error."""
    square = float(np.vdot(third, third))
    if square == 0.0:
        return None
    step = 2.0 * float(np.vdot(rest, third)) / square
    if step == 0.0:
        return None
    near = [known for known in _STEPS if abs(known - abs(step)) <= 1e-2 * known]
    if near and float(np.linalg.norm(rest - 0.5 * np.copysign(near[0], step) * third)) <= noise / near[0]:
        step = float(np.copysign(near[0], step))
    correction = 0.5 * step * third
    left, allowed = float(np.linalg.norm(rest - correction)), noise / abs(step)
    # An error of P² entries that is parallel to the third derivatives is no accident.
    if left > _LEFT * float(np.linalg.norm(rest)) or left > allowed:
        return None
    how = f"{'forward' if step > 0 else 'backward'} differences of the gradient"
    return Found(
        _cause(f"{how}, made symmetric afterwards" if symmetric else how, abs(step)), step, correction, allowed
    )


def _grid(matrix: Values, unit: Values, points: float, steps: list[float], how: str) -> list[tuple[float, float, str]]:
    """Return the smallest step whose grid ``unit / (points * step)`` holds most entries, with its median spacing."""
    flat, units = matrix.ravel(), unit.ravel()
    kept = np.flatnonzero((flat != 0) & (units > 0))
    kept = kept[:: max(1, len(kept) // _LOOKED_AT)]
    for step in steps:
        count = flat[kept] * (points * step) / units[kept]
        # The division by h, and its inverse here, lose a part of a unit where the count is large; what is far below a
        # unit lies on every grid.
        useful = (np.abs(count) < 0.02 / _EPSILON) & (np.abs(count) > 0.5)
        if np.count_nonzero(useful) < _FEWEST:
            continue
        off = np.abs(count[useful] - np.rint(count[useful]))
        if float(np.mean(off < 0.1)) >= _SHARE:
            return [(float(np.median(units[kept])) / (points * step), step, how)]
    return []


def _cause(how: str, step: float) -> Cause:
    return Cause(
        "finite-differences",
        f"it comes from {how}, with step h = {step:.3g}",
        "differentiate instead: loss.hessian(net), or torch.func.hessian in float64",
    )
