"""Constant factors between losses, and the fit of a factor and a multiple of the identity."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.given.causes import Cause

Values = NDArray[np.float64]

_KINDS = {
    "half_sum": "half the sum of squares",
    "sum": 'the sum of squares, nn.MSELoss(reduction="sum")',
    "mean": "the mean of squares, nn.MSELoss()",
}


@dataclass(frozen=True, slots=True)
class Scales:
    """The numbers of which the named factors are products.

    Attributes
    ----------
    samples, outputs : int
    kind : str
        Of the loss.
    decay : float
        Its weight decay.
    batch_size : int or None
    """

    samples: int
    outputs: int
    kind: str
    decay: float
    batch_size: int | None

    def names(self, value: float, rounding: float, batch: int) -> list[str]:
        """Return the names that fit a factor, the simplest first; `rounding`: its relative error."""
        sizes = {"N": self.samples, "o": self.outputs}
        if batch != self.samples:
            sizes["batch"] = batch
        elif self.batch_size is not None:
            sizes["batch"] = self.batch_size
            sizes["batches"] = -(-self.samples // self.batch_size)
        names: list[tuple[int, str]] = []
        for two, *powers in itertools.product((-2, -1, 0, 1, 2), *([(-1, 0, 1)] * len(sizes))):
            factor = 2.0**two
            for power, size in zip(powers, sizes.values(), strict=True):
                factor *= float(size) ** power
            if abs(factor - abs(value)) <= rounding * factor:
                effort = abs(two) + sum((1 if power < 0 else 2) * (power != 0) for power in powers)
                names.append((effort, _fraction(two, dict(zip(sizes, powers, strict=True)))))
        if self.samples > 1 and abs((self.samples - 1) * abs(value) - 1) <= rounding:
            names.append((3, "1/(N - 1)"))
        sign = "-" if value < 0 else ""
        return [sign + name for _, name in sorted(names)]

    def nearest(self, value: float, within: float, batch: int) -> list[float]:
        """Return the named factors close to a positive value, the closest first, three at most."""
        sizes = {float(self.samples), float(self.outputs), float(batch), float(self.batch_size or batch)}
        single = {2.0**two for two in (-2, -1, 0, 1, 2)}
        named = {
            a * b * c for a in single for b in {1.0} | {1 / s for s in sizes} for c in {1.0} | {1 / s for s in sizes}
        }
        named |= {a * b * c for a in single for b in {1.0} | sizes for c in {1.0} | sizes}
        close = [factor for factor in named if abs(factor - value) <= within * factor and factor != 1.0]
        return sorted(close, key=lambda factor: abs(factor / value - 1))[:3]

    def kinds(self, value: float, rounding: float) -> list[str]:
        """Return the kinds of loss that this factor leads to."""
        size = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / (self.samples * self.outputs)}
        ratios = {kind: factor / size[self.kind] for kind, factor in size.items() if kind != self.kind}
        return [kind for kind, ratio in ratios.items() if abs(ratio - value) <= rounding * ratio]

    def constant(self, value: float) -> Cause:
        """Return the cause for a factor without a name."""
        return Cause(
            "scale[constant]",
            f"everything is multiplied by a constant, {value:.10g}",
            f"divide by {value:.10g}; look for it in the loss (it is not a product of 2, N, o or a batch size)",
            cost=2,
        )

    def cause(self, value: float, rounding: float, batch: int) -> Cause:
        """Return the cause for a factor, by its name if it has one."""
        kinds, names = self.kinds(value, rounding), self.names(value, rounding, batch)
        if value < 0 and names:
            first = f"the sign is reversed: everything is multiplied by {names[0]}"
            first += "" if names[0][1:].isdigit() else f" = {value:.10g}"
            fix = f"divide by {value:.10g}; look for a minus sign: a log-likelihood for a loss, a descent direction"
            return Cause(f"scale[{names[0]}]", first, fix, tuple(f"the factor {name}" for name in names[1:]))
        if not kinds and not names:
            return self.constant(value)
        words = [f"the factor {name}" for name in names]
        words += [f"the Hessian of the loss {kind!r}, {_KINDS[kind]}" for kind in kinds[1:]]
        first = f"everything is multiplied by {names[0] if names else f'{value:.10g}'}"
        if names and not names[0].lstrip("-").isdigit():
            first += f" = {value:.10g}"
        if kinds:
            first += f": it is the Hessian of the loss {kinds[0]!r} ({_KINDS[kinds[0]]}), not {self.kind!r}"
            fix = f'SquaredLoss(X, Y, kind="{kinds[0]}"), or divide by {value:.10g}'
        else:
            fix = f"divide by {value:.10g}; kind={self.kind!r} is {_KINDS[self.kind]}"
        return Cause(f"scale[{names[0] if names else kinds[0]}]", first, fix, tuple(words[1:] if names else ()))


def _fraction(two: int, powers: dict[str, int]) -> str:
    above = [str(2**two)] if two > 0 else []
    below = [str(2**-two)] if two < 0 else []
    for name, power in powers.items():
        (above if power > 0 else below).extend([name] * (power != 0))
    top = "*".join(above) or "1"
    if not below:
        return top
    return f"{top}/{below[0]}" if len(below) == 1 else f"{top}/({'*'.join(below)})"


#: A Hessian with a smaller share of the candidate does not count as present, however well the identity fits.
_PRESENT = 1e-9


def least_factor(T: Values, V: Values) -> float:
    """Return the largest multiple of M, ``T = M V``, that is lost beside a multiple of the identity of norm one."""
    apart = fit(T, np.zeros_like(T), V).residual  # the part of T that is not a multiple of the identity
    return _PRESENT / apart if apart > 1e-12 * float(np.linalg.norm(T)) else 0.0


class Affine(NamedTuple):
    """``C = factor * M + shift * I``, with the causes that this means."""

    causes: tuple[Cause, ...]
    factor: float
    shift: float


class Fit(NamedTuple):
    """A least-squares fit and the norm of its residual."""

    factor: float
    shift: float
    residual: float


def fit(S: Values, T: Values, V: Values) -> Fit:
    """Return the factor and shift that bring ``factor T + shift V`` closest to S."""
    unit = V / np.linalg.norm(V)
    along_s, along_t = np.vdot(unit, S), np.vdot(unit, T)
    rest_s, rest_t = S - along_s * unit, T - along_t * unit
    square = float(np.vdot(rest_t, rest_t))
    size = float(np.vdot(T, T))
    if square <= 1e-24 * size or size == 0.0:  # M is a multiple of I: the shift alone describes it
        return Fit(0.0, float(along_s / np.linalg.norm(V)), float(np.linalg.norm(rest_s)))
    factor = float(np.vdot(rest_s, rest_t)) / square
    shift = float((along_s - factor * along_t) / np.linalg.norm(V))
    return Fit(factor, shift, float(np.linalg.norm(rest_s - factor * rest_t)))


def affine(
    S: Values, T: Values, V: Values, scales: Scales, *, part: str, batch: int, limit: float, rounding: float
) -> Affine | None:
    """Return the simplest factor and shift with ``S = factor T + shift V`` to rounding, or None.

    Parameters
    ----------
    S, T, V : (P, k) arrays
        Products of the candidate, of the Hessian without weight decay, and of the identity with the same vectors.
    part : str
        The part of the Hessian that T belongs to; the Gauss-Newton and the functional part have no weight decay.
    batch : int
        Samples in the data.
    limit : float
        Largest norm of a residual that is rounding, for factor 1.
    rounding : float
        Relative error of the factor.
    """
    decay = scales.decay
    free, norm, least = fit(S, T, V), float(np.linalg.norm(S)), least_factor(T, V)

    def within(residual: float, factor: float) -> bool:
        """Whether the residual is rounding, and the Hessian more than rounding beside a multiple of the identity."""
        return abs(factor) > least * norm and residual <= limit * abs(factor) + 1e-15 * norm

    general = len(V) > 1  # of a single number, any factor is a fit
    if general and not within(free.residual, free.factor or 1.0):
        return None
    usual = [0.0, decay] if part in ("gauss_newton", "functional") else [decay]
    for shift in dict.fromkeys(usual):
        if within(float(np.linalg.norm(S - T - shift * V)), 1.0):
            return Affine((), 1.0, shift)
    fits: list[Affine] = []
    if general and within(float(np.linalg.norm(S - T - (alone := _project(S - T, V)) * V)), 1.0):
        fits.append(Affine((damping(alone, decay),), 1.0, alone))
    size = float(np.linalg.norm(T))
    if size > limit:
        for shift, per in dict.fromkeys([(0.0, decay), *((shift, 0.0) for shift in usual)]):
            whole = T + per * V if per else T
            factor = _project(S - shift * V, whole)
            if factor == 0.0 or not within(float(np.linalg.norm(S - shift * V - factor * whole)), factor):
                continue
            cause = scales.cause(factor, rounding, batch)
            if general or cause.cost == 1:
                fits.append(Affine((cause,), factor, shift + factor * per))
        if general and len(V) > 2 and free.factor != 0.0:
            cause = scales.cause(free.factor, rounding, batch)
            fits.append(Affine((cause, damping(free.shift, decay)), free.factor, free.shift))
    return min(fits, key=lambda one: sum(cause.cost for cause in one.causes), default=None)


def _project(S: Values, T: Values) -> float:
    square = float(np.vdot(T, T))
    return float(np.vdot(S, T)) / square if square else 0.0


def damping(shift: float, decay: float) -> Cause:
    """Return the cause for a multiple of the identity that is not the expected one."""
    added = shift - decay
    if decay and abs(shift) <= 1e-9 * decay:
        return Cause(
            "damping",
            f"weight decay is left out: {decay:g} is missing on the diagonal",
            f"add {decay:g} * numpy.eye(P)",
        )
    shown = rounded(added, abs(shift) + decay)
    expected = f", where weight_decay is {decay:g}" if decay else ""
    return Cause(
        "damping",
        f"{shown} times the identity is added{expected}: weight decay or damping, lambda = {shown}",
        f"subtract {shown} * numpy.eye(P), or SquaredLoss(..., weight_decay={rounded(shift, abs(shift))})"
        if shift >= 0
        else f"subtract {shown} * numpy.eye(P)",
    )


def rounded(value: float, size: float) -> str:
    """Return an estimated number as text, by the round number next to it if that is within rounding."""
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if math.isclose(float(text), value, rel_tol=1e-10, abs_tol=1e-12 * size):
            return text
    return f"{value:.10g}"
