"""Finite differences: the truncation error of one-sided ones, and the grid that subtraction leaves behind.

A squared residual is a polynomial of degree two in each single parameter. So a central difference of the gradient along
one parameter is exact, and a one-sided difference with step h is off by h/2 times a third derivative, which is computed
here from three gradients. The rest is rounding: gradients are floats, so their difference is a multiple of their unit
in the last place, and dividing by h leaves a grid that reveals h. The errors are as large as those of the same
differences computed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base.cached import cached_property
from hesskern.explanation.given.candidate_model import chunks
from hesskern.explanation.given.causes import Cause
from hesskern.explanation.given.formats import grid_of
from hesskern.explanation.search.step_grid import STEPS, Kind, step_from_pairs, step_of
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork

Values = NDArray[np.float64]

_AFTERWARDS = ", made symmetric afterwards"

#: Columns whose third derivatives are computed, and columns whose differences are computed here.
_COLUMNS, _OWN = 64, 12

#: Share of the difference that may remain without the truncation error.
_LEFT = 0.3

#: How large rounding errors may be, as a multiple of those of the same differences computed here.
_SMALLEST, _LARGEST = 0.4, 2.0

#: Standard deviations by which the share of a truncation error may be off.
_DEVIATIONS = 4.0


@dataclass(frozen=True)
class Function:
    """The loss along some parameters: ``factor`` times the squared loss plus ``decay`` times half the squared norm.

    Attributes
    ----------
    net : LinearNetwork
        In float64.
    loss : SquaredLoss
        Without weight decay.
    positions : (P,) array
        Positions of the parameters in ``net.flatten()``.
    factor, decay : float
    """

    net: LinearNetwork
    loss: SquaredLoss
    positions: NDArray[np.intp]
    factor: float
    decay: float

    @cached_property
    def _theta(self) -> Values:
        return self.net.flatten().astype(np.float64, copy=False)

    def _moved(self, by: Values) -> tuple[Values, LinearNetwork]:
        theta = self._theta.copy()
        theta[self.positions] += by
        return theta, self.net.unflatten(theta)

    def value(self, by: Values) -> float:
        """Return the value after a displacement (P,)."""
        theta, net = self._moved(by)
        return self.factor * self.loss(net) + 0.5 * self.decay * float(np.vdot(theta, theta))

    def gradient(self, by: Values) -> Values:
        """Return the gradient (P,) after a displacement (P,)."""
        theta, net = self._moved(by)
        gradient: Values = (self.factor * self.loss.gradient(net) + self.decay * theta)[self.positions]
        return gradient

    @cached_property
    def gradient_at_zero(self) -> Values:
        """The gradient without a displacement."""
        return self.gradient(np.zeros(len(self.positions)))


class FiniteDifferences(NamedTuple):
    """Finite differences, and the error that they explain."""

    cause: Cause
    step: float
    correction: Values  # the truncation error, to be added to the Hessian
    how_large: float  # the remaining error, as a multiple of that of the same differences computed here


def find(matrix: Values, hessian: Values, function: Function) -> FiniteDifferences | None:
    """Return the finite differences that the matrix came from, or None.

    Parameters
    ----------
    matrix, hessian : (P, P) arrays
        The candidate and the Hessian of `function`, both in the order of its positions.
    """
    error = _Error(matrix - hessian, hessian, function)
    differences = _truncated(error)
    if differences is not None or grid_of(matrix, chunks(len(matrix))) is not None:
        return differences  # differences of float64 numbers have more digits than those formats
    for kind in _kinds(matrix, function, symmetric=error.symmetric, third=bool(error.corner.any())):
        step = step_of(matrix, error.whole, kind)
        if step is None and not error.symmetric:
            some = np.ix_(error.some, error.some)
            step = step_from_pairs(matrix[some], kind.unit[some])
        if step is not None:
            differences = _rounded(error, kind, step)
            if differences is not None:
                return differences
    return None


class _Error:
    """A candidate's distance from the Hessian, and the third derivatives that a truncation error would show."""

    def __init__(self, whole: Values, hessian: Values, function: Function) -> None:
        self.whole, self.hessian, self.function = whole, hessian, function
        self.some = np.random.default_rng(3).permutation(len(whole))[:_COLUMNS]
        rows = whole[self.some]
        self.symmetric = float(np.linalg.norm(rows - whole[:, self.some].T)) <= 1e-3 * float(np.linalg.norm(rows))
        self.corner = _third_derivatives(hessian, function, self.some)[self.some]

    @property
    def part(self) -> Values:
        """The distance where the third derivatives are known."""
        return self.whole[np.ix_(self.some, self.some)]

    def shapes(self, third: Values) -> list[Values]:
        """Return what the truncation error may look like, for a step of 2."""
        return [0.5 * (third + third.T)] if self.symmetric else [third, third.T]

    @cached_property
    def every(self) -> list[Values]:
        """The same everywhere."""
        return self.shapes(_third_derivatives(self.hessian, self.function, np.arange(len(self.whole))))


def _truncated(error: _Error) -> FiniteDifferences | None:
    """Return one-sided differences whose truncation error is most of the difference, if that is so."""
    if not any(_parallel(error.part, shape) for shape in error.shapes(error.corner)):
        return None
    for shape in error.every:
        square = float(np.vdot(shape, shape))
        step = 2.0 * float(np.vdot(error.whole, shape)) / square if square else 0.0
        if step == 0.0:
            continue
        usual = [usual_step for usual_step in STEPS if abs(usual_step - abs(step)) <= 1e-2 * usual_step]
        for candidate in [*(float(np.copysign(usual_step, step)) for usual_step in usual), step]:
            correction = 0.5 * candidate * shape
            how = _how_large(error, correction, abs(candidate) / 2)
            if how <= _LARGEST:
                remaining = float(np.linalg.norm(error.whole - correction) / np.linalg.norm(error.whole))
                if remaining > _LEFT:
                    continue
                word = "forward" if candidate > 0 else "backward"
                words = f"{word} differences of the gradient{_AFTERWARDS if error.symmetric else ''}"
                return FiniteDifferences(
                    _cause(words, abs(candidate), vague=remaining > 1e-3), abs(candidate), correction, how
                )
    return None


def _rounded(error: _Error, kind: Kind, step: float) -> FiniteDifferences | None:
    """Return differences with this grid: exact up to rounding, or one-sided with a small truncation error."""
    nothing = np.zeros_like(error.whole)
    sides = [(0, nothing)] if kind.second or not error.corner.any() else _sides(error, step)
    fitting = [
        (side, correction, _how_large(error, correction, step, second=kind.second)) for side, correction in sides
    ]
    fitting = [fit for fit in fitting if _SMALLEST <= fit[2] <= _LARGEST]
    if not fitting:
        return None
    side, correction, how = fitting[0]
    if len({fit[0] for fit in fitting}) > 1:
        words = f"{kind.words} (or one-sided ones with twice this step: rounding hides which)"
    elif side == 0:
        words = kind.words
    else:
        words, step = kind.words.replace("central", "forward" if side > 0 else "backward"), 2 * step
    return FiniteDifferences(_cause(words, step), step, correction, how)


def _sides(error: _Error, step: float) -> list[tuple[int, Values]]:
    """Return the possible kinds, central (0), forward (1) or backward (-1) with twice the step, and truncation errors.

    One-sided differences are off by ``step`` times the third derivatives; the share of that in the error is fitted.
    """
    sides: list[tuple[int, Values]] = []
    for at, shape in enumerate(error.shapes(error.corner)):
        share = float(np.vdot(error.part, shape) / (step * np.vdot(shape, shape)))
        remaining = float(np.linalg.norm(error.part - share * step * shape) / (step * np.linalg.norm(shape)))
        # The errors of a row have one gradient in common, so a row counts once.
        deviation = _DEVIATIONS * remaining / np.sqrt(len(shape))
        if abs(share) <= deviation and not sides:
            sides.append((0, np.zeros_like(error.whole)))
        sides += [(side, side * step * error.every[at]) for side in (1, -1) if abs(share - side) <= deviation]
    return sorted(sides, key=lambda one: abs(one[0]))


def _kinds(matrix: Values, function: Function, *, symmetric: bool, third: bool) -> list[Kind]:
    units = np.spacing(np.abs(function.gradient_at_zero))
    if symmetric:
        value = np.spacing(abs(function.value(np.zeros(len(matrix)))))
        smaller = np.minimum(units[:, None], units[None, :])
        return [
            Kind(f"central differences of the gradient{_AFTERWARDS}", smaller, 4.0),
            Kind("second differences of the loss", np.full(matrix.shape, value), 4.0, second=True),
        ]
    exact = "" if third else " (or one-sided ones with twice this step: the third derivatives vanish)"
    words = f"central differences of the gradient{exact}"
    return [Kind(words, np.broadcast_to(unit, matrix.shape), 2.0) for unit in (units[:, None], units[None, :])]


def _parallel(error: Values, third: Values) -> bool:
    """Whether most of a difference has the direction of the third derivatives."""
    product, sizes = float(np.vdot(error, third)), float(np.linalg.norm(error) * np.linalg.norm(third))
    return sizes > 0 and abs(product) > 0.9 * sizes


def _third_derivatives(hessian: Values, function: Function, some: NDArray[np.intp]) -> Values:
    """Return the second derivatives of the gradient along some parameters, in the columns; exact up to rounding."""
    third = np.empty((len(hessian), len(some)))
    for at, column in enumerate(some):
        ahead = function.gradient(_unit(len(hessian), column, 1.0))
        third[:, at] = 2.0 * (ahead - function.gradient_at_zero - hessian[:, column])  # degree two along one parameter
    third[np.abs(third) <= 1e-12 * np.abs(hessian).max()] = 0.0
    return third


def _unit(size: int, at: int, step: float) -> Values:
    displacement = np.zeros(size)
    displacement[at] = step
    return displacement


def _how_large(error: _Error, correction: Values, step: float, *, second: bool = False) -> float:
    """Return the size of the remaining error, as a multiple of that of differences computed here.

    These are central; one-sided ones with twice the step have the same rounding errors.
    """
    size, hessian, function = len(error.whole), error.hessian, error.function
    rng = np.random.default_rng(5)
    chosen = rng.permutation(size)[:_OWN]
    if second:
        rows = rng.permutation(size)[:_OWN]
        differences = [
            sum(
                sign * function.value(_unit(size, row, one * step) + _unit(size, column, two * step))
                for one, two, sign in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
            ) / (4 * step**2)
            for row in rows for column in chosen
        ]  # fmt: skip
        at = np.ix_(rows, chosen)
        own_error = np.reshape(differences, (len(rows), len(chosen))) - hessian[at]
    else:
        columns = [
            function.gradient(_unit(size, column, step)) - function.gradient(_unit(size, column, -step))
            for column in chosen
        ]
        at = np.ix_(np.arange(size), chosen)
        own_error = np.transpose(columns) / (2 * step) - hessian[at]
        if error.symmetric:  # half the variance is gone where both sides are averaged
            own_error = own_error / np.sqrt(2.0)
    candidate_error = (error.whole - correction)[at]
    return float(np.linalg.norm(candidate_error) / (np.linalg.norm(own_error) or np.inf))


def _cause(how: str, step: float, *, vague: bool = False) -> Cause:
    exact = not vague or any(math.isclose(step, usual) for usual in STEPS)
    return Cause(
        "finite-differences",
        f"it comes from {how}, with step h {f'= {step:.3g}' if exact else f'of about {step:.1g}'}",
        "differentiate instead: loss.hessian(net), or torch.func.hessian in float64",
    )
