"""What counts as wrong, and how much of everything was tried."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

#: A normalised residual above this is wrong; LAPACK's own tests use 30.
LIMIT = 30.0


class Judge:
    """Counts checks and collects what is wrong with one case.

    Attributes
    ----------
    wrong : list of str
        One sentence for each failure.
    tried : Counter
        How often each check ran, by "method/backend".
    worst : dict
        The largest normalised residual of each check.
    """

    def __init__(self) -> None:
        self.wrong: list[str] = []
        #: How many cases this was: more than one where a seed stands for a batch.
        self.cases = 1
        self.tried: Counter[str] = Counter()
        self.worst: dict[str, float] = {}
        self._now = ""

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        """Run one check: an exception or a warning out of it is a failure."""
        self._now = name
        self.tried[name] += 1
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("error")
                yield
        except Exception as error:
            where = _place(error)
            self.wrong.append(f"{name}: {type(error).__name__} in {where}: {str(error)[:300]}")

    def fail(self, sentence: str) -> None:
        """Say what is wrong with the check that is running."""
        self.wrong.append(f"{self._now}: {sentence}")

    def true(self, condition: Any, sentence: str) -> None:
        """Fail with this sentence where the condition does not hold."""
        if not condition:
            self.fail(sentence)

    def ratio(self, off: float, allowed: float = 1.0, what: str = "") -> None:
        """Judge a normalised residual: what something is off by, in units of what it may be off by."""
        off, allowed = float(off), float(allowed)
        value = off / allowed if allowed > 0 else (0.0 if off == 0 else np.inf)
        if not value <= LIMIT:
            self.fail(f"{what + ': ' if what else ''}normalised residual {value:.3g}")
        elif value > self.worst.get(self._now, 0.0):
            self.worst[self._now] = value

    def close(self, found: Any, truth: Any, size: Any, unit: float, what: str = "") -> None:
        """Judge numbers entry by entry: their difference in units of `unit` (eps times roundings) times `size`."""
        found, truth = np.asarray(found), np.asarray(truth)
        if found.shape != truth.shape:
            self.fail(f"{what} shape {found.shape} instead of {truth.shape}")
            return
        if not found.size:
            return
        # Numbers below the smallest normal one have no relative accuracy in any format.
        floor = np.finfo(found.dtype if found.dtype.kind == "f" else np.float64).tiny
        allowed = unit * np.asarray(size, np.longdouble) + floor
        off = abs(found.astype(np.longdouble) - truth) / allowed
        worst = off.max()
        if np.isfinite(found).all() and worst <= LIMIT:
            self.ratio(worst, 1.0, what)
            return
        index = np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)
        self.fail(
            f"{what + ' ' if what else ''}entry {tuple(map(int, index))} is {found[index]:.17g} instead of "
            f"{truth[index]:.17g} (normalised residual {float(off[index]):.3g})"
        )

    def same(self, found: Any, truth: Any, what: str = "") -> None:
        """Judge numbers that must agree to the last bit."""
        found, truth = np.asarray(found), np.asarray(truth)
        if found.shape != truth.shape or not np.array_equal(found, truth.astype(found.dtype), equal_nan=True):
            self.fail(f"{what + ' ' if what else ''}is not exact" if found.shape == truth.shape else f"{what} shape")

    def refused(self, call: Callable[[], Any], kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
        """Return whether a call ends in one of these errors."""
        try:
            call()
        except kinds:
            return True
        return False


def _place(error: BaseException) -> str:
    trace, place = error.__traceback__, "?"
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "hesskern" in name:
            place = f"{name.rsplit('hesskern', 1)[-1].lstrip('/')}:{trace.tb_lineno}"
        elif place == "?":
            place = f"{name.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
