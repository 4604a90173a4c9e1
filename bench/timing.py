"""Interleaved timing: A B C A B C ..., so that what disturbs the machine disturbs all contestants of a round alike.

`timeit.Timer` runs the inner loops on the processor. pyperf, pytest-benchmark and torch.utils.benchmark run one
contestant after the other and cannot take ratios within a round. What a call of nothing takes is measured in the same
rounds and taken off every time: of a kernel of some hundred nanoseconds it is a part that counts.
"""

from __future__ import annotations

import gc
import statistics
import time
import timeit
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np


class Summary(NamedTuple):
    """Median and quartiles."""

    median: float
    lower: float
    upper: float


def summary(values: Sequence[float]) -> Summary:
    lower, median, upper = np.percentile(values, [25, 50, 75])
    return Summary(float(median), float(lower), float(upper))


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> Summary:
    """Summarise the ratios of two contestants' times, each taken within one round that both were in."""
    return summary([a / b for a, b in zip(numerator, denominator, strict=False)])


#: Runs a job so many times and returns the seconds that took.
Timed = Callable[[int], float]


def host_timer(run: Callable[[], object]) -> Timed:
    """Return the timer of a job that is done when the call returns."""
    return timeit.Timer(run).timeit


def inner_number(timed: Timed, least: float) -> int:
    """Return how many calls last at least `least` seconds (1, 2, 5, 10, ...); `Timer.autorange` insists on 0.2 s."""
    scale = 1
    while True:
        for digit in (1, 2, 5):
            if timed(digit * scale) >= least:
                return digit * scale
        scale *= 10


#: A call that takes so many seconds is its own inner loop, and needs no call before it to warm up.
LONG = 0.5


class Entry(NamedTuple):
    """What `interleaved` times; `known`: how long a call took, where that was seen already."""

    run: Callable[[], object]
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    known: float = 0.0


class Times(NamedTuple):
    """Seconds a call, one entry a round, and the calls of each inner loop."""

    seconds: list[float]
    number: int


class Rounds(NamedTuple):
    """The times of all entries, and what a call of nothing took, which has been taken off them."""

    times: list[Times]
    overhead: float


class StoppedError(Exception):
    """The run was asked to stop; what was being measured is not finished."""


def never() -> bool:
    """Return that nobody asked to stop."""
    return False


def _nothing() -> None:
    pass


def interleaved(
    entries: Sequence[Entry],
    *,
    rounds: int,
    least: float,
    budget: float,
    timer: Callable[[Callable[[], object]], Timed] = host_timer,
    stopped: Callable[[], bool] = never,
) -> Rounds:
    """Time all entries in rounds; each inner loop lasts at least `least` seconds and follows one untimed call.

    A call of half a second and more is neither repeated nor warmed up.

    Parameters
    ----------
    rounds : int
        At most this many rounds.
    least : float
        Seconds an inner loop lasts at least.
    budget : float
        After so many seconds those whose call takes `LONG` are left out of the rounds that remain, and after twice as
        many no round starts; but three rounds (or `rounds`) are always run in full.
    timer : callable
        What makes the timer of a job; that of a device waits until the device is done.
    stopped : callable
        Whether to stop; asked before each measurement.

    Raises
    ------
    StoppedError
        If it was asked to stop.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        timers = [timer(entry.run) for entry in entries]
        empty, empty_calls, nothing = timer(_nothing), 1000, []
        results: list[Times] = []
        for entry, timed in zip(entries, timers, strict=True):
            if stopped():
                raise StoppedError
            with entry.context():
                long = entry.known >= max(LONG, least)
                results.append(Times([], 1 if long else inner_number(timed, least)))
        began = time.perf_counter()
        for k in range(rounds):
            spent = time.perf_counter() - began
            if k >= 3 and spent > 2 * budget:
                break
            nothing.append(empty(empty_calls) / empty_calls)
            for entry, timed, times in zip(entries, timers, results, strict=True):
                last = times.seconds[-1] if times.seconds else entry.known
                if k >= 3 and spent > budget and last >= LONG:
                    continue
                if stopped():
                    raise StoppedError
                with entry.context():
                    if last < LONG:
                        timed(1)
                    times.seconds.append(timed(times.number) / times.number)
    finally:
        if collecting:
            gc.enable()
    overhead = statistics.median(nothing)
    tick = time.get_clock_info("perf_counter").resolution
    return Rounds(
        [Times([max(s - overhead, tick / number) for s in seconds], number) for seconds, number in results], overhead
    )
