"""Learning rates: a constant, a sequence, or a function of the step; one for all networks or one for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hesskern._base import checks

Rates = NDArray[np.float64]
LearningRate = float | ArrayLike | Callable[[int], Any]


class Schedule:
    """Learning rates of `networks` networks for every step.

    Parameters
    ----------
    lr : number, array or callable
        A number > 0; a function of the step (counted from 0) that returns a number >= 0; an array of them. For one
        network an array has one rate for each step. For several (``networks`` is not None) it has one for each network,
        (B,), or for each network and step, (B, steps), and the function may return (B,).
    max_steps : int
        How many steps an array must cover.
    networks : int, optional
        B; default: one network.
    """

    def __init__(self, lr: LearningRate, max_steps: int, networks: int | None = None) -> None:
        self._function: Callable[[int], Any] | None = None
        self._rates: Rates | None = None  # (B or 1, 1 or steps)
        self._count = 1 if networks is None else networks
        self._several = networks is not None
        if callable(lr):
            self._function = lr
        elif isinstance(lr, list | tuple) or np.ndim(lr) > 0:
            self._rates = self._array(lr, max_steps)
        else:
            self._rates = np.full((1, 1), checks.positive(lr, "lr"))

    def _array(self, lr: Any, max_steps: int) -> Rates:
        rates = _numbers(lr, "lr is")
        by_step = rates if self._several else rates[None]
        if self._several and by_step.ndim == 1:
            by_step = by_step[:, None]
        shapes = f"({self._count},) or ({self._count}, max_steps)" if self._several else "(max_steps,)"
        if by_step.ndim != 2 or len(by_step) != self._count:
            raise ValueError(
                f"lr has shape {rates.shape}; expected a number, a function of the step, or shape {shapes}."
            )
        if not (self._several and rates.ndim == 1) and by_step.shape[1] < max_steps:
            raise ValueError(
                f"lr has rates for {by_step.shape[1]} steps; expected one for each of max_steps = {max_steps}."
            )
        if not (np.isfinite(by_step) & (by_step >= 0)).all():
            raise ValueError("lr holds a negative number, an infinity or NaN; expected finite rates, 0 or greater.")
        return by_step

    def rates(self, start: int, stop: int) -> Rates:
        """Return the rates of the steps from `start` to before `stop`, (B, stop - start)."""
        rates = np.empty((self._count, stop - start))
        rates[:] = self.compact(start, stop)
        return rates

    def compact(self, start: int, stop: int) -> Rates:
        """Return the same without repetitions, (1 or B, 1 or stop - start)."""
        if self._rates is not None:
            return self._rates if self._rates.shape[1] == 1 else self._rates[:, start:stop]
        by_step = [np.atleast_1d(self._at(step)) for step in range(start, stop)]
        networks = max(map(len, by_step))
        return np.stack([np.broadcast_to(rates, (networks,)) for rates in by_step], axis=1)

    def _at(self, step: int) -> Rates:
        assert self._function is not None
        value = self._function(step)
        rate = np.asarray(float(value)) if type(value) in (float, int) else _numbers(value, f"lr({step}) returned")
        if rate.shape not in ((), (self._count,) if self._several else ()):
            raise ValueError(f"lr({step}) returned an array of shape {rate.shape}; expected a number.")
        if not (np.isfinite(rate) & (rate >= 0)).all():
            raise ValueError(f"lr({step}) returned {value!r}; expected a finite number, 0 or greater.")
        return rate

    def describe(self) -> str:
        """Return a text that identifies this schedule; all functions have the same text."""
        if self._rates is None:
            return "a function"
        if self._rates.size == 1:
            return repr(float(self._rates[0, 0]))
        return hashlib.blake2b(self._rates.tobytes(), digest_size=16).hexdigest()


def _numbers(value: Any, origin: str) -> Rates:
    """Return real numbers; text, complex numbers and truth values are not converted."""
    numbers = np.asarray(value) if isinstance(value, Real) else checks.read(value, origin.split(maxsplit=1)[0])
    if numbers.dtype == np.dtype(object) and all(isinstance(number, Real) for number in numbers.ravel()):
        numbers = numbers.astype(np.float64)  # fractions, say
    if numbers.dtype.kind not in "iuf":
        kind = "values" if numbers.ndim else "a value"
        raise TypeError(f"{origin} {kind} of type {numbers.dtype}; expected real numbers.")
    return numbers.astype(np.float64, copy=False)
