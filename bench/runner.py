"""Checks every contestant, times those that are right, and judges the targets."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from bench.contest import Contestant, TimedProblem
from bench.memory import peak_of
from bench.outcomes import MeasuredFigure, Outcome, ProblemResult, TaskResult
from bench.task import Task
from bench.threads import extension_threads
from bench.timing import Entry, StoppedError, Timed, host_timer, interleaved, never


class Peak(Protocol):
    """Measures the bytes that the first call of a contestant takes; None where it cannot be told."""

    def __call__(
        self, task: str, number: int, problem: TimedProblem, contestant: str, *, quick: bool
    ) -> int | None: ...


def _of_process(task: str, number: int, problem: TimedProblem, contestant: str, *, quick: bool) -> int | None:
    return peak_of(task, number, contestant, quick=quick)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How thoroughly to measure.

    Attributes
    ----------
    rounds, least, budget
        As `timing.interleaved` takes them.
    quick : bool
        The smallest sizes.
    memory : bool
        Whether peak memory is measured.
    peak : callable
        What measures the peak memory of a contestant.
    timer : callable
        What makes the timer of a job.
    stopped : callable
        Whether to stop; asked between measurements.
    """

    rounds: int = 30
    least: float = 0.01
    budget: float = 6.0
    quick: bool = False
    memory: bool = True
    peak: Peak = _of_process
    timer: Callable[[Callable[[], object]], Timed] = host_timer
    stopped: Callable[[], bool] = never


QUICK = Settings(rounds=2, least=0.0002, budget=1.0, quick=True, memory=False)


def checked(contestant: Contestant, problem: TimedProblem) -> Outcome:
    """Run a contestant once and compare its result with the reference."""
    if contestant.run is None:
        return Outcome(contestant, "absent", reason=contestant.note)
    problem.spoil()
    try:
        with contestant.context():
            began = time.perf_counter()
            result = contestant.run()
            first = time.perf_counter() - began
        error = 0.0 if contestant.role == "floor" else problem.error(result)
    except Exception as failure:  # a peer that raises must not end the run; it is reported as failed
        return Outcome(contestant, "failed", reason=f"{type(failure).__name__}: {failure}")
    if contestant.role == "floor":
        return Outcome(contestant, "timed", first=first)
    if not error <= problem.tolerance:  # NaN is wrong as well
        return Outcome(contestant, "wrong", error, f"relative error {error:.1e} > {problem.tolerance:.0e}")
    return Outcome(contestant, "timed", error, first=first)


@extension_threads(1)
def run_problem(
    problem: TimedProblem, settings: Settings, peak: Callable[[str], int | None] | None = None
) -> ProblemResult:
    """Check, then time in interleaved rounds what is right; `peak` measures the memory of a contestant by name.

    Raises
    ------
    StoppedError
        If it was asked to stop.
    """
    if settings.quick:  # the smallest sizes say nothing about the targets, which are about real ones
        problem = replace(problem, targets=(), figures=[replace(figure, bound=None) for figure in problem.figures])
    figures = [MeasuredFigure(figure, figure.measure()) for figure in problem.figures]
    outcomes = []
    for contestant in problem.contestants:
        outcomes.append(checked(contestant, problem))
        if settings.stopped():
            raise StoppedError
    timed = [outcome for outcome in outcomes if outcome.status == "timed"]
    entries = [Entry(o.contestant.run, o.contestant.context, o.first) for o in timed if o.contestant.run is not None]
    measured = interleaved(
        entries, rounds=settings.rounds, least=settings.least, budget=settings.budget, timer=settings.timer,
        stopped=settings.stopped,
    )  # fmt: skip
    for outcome, times in zip(timed, measured.times, strict=True):
        outcome.number = times.number
        outcome.seconds = [second / outcome.contestant.units for second in times.seconds]
        if peak is not None and problem.memory and settings.memory and outcome.contestant.role != "floor":
            outcome.peak = peak(outcome.contestant.name)
        if settings.stopped():
            raise StoppedError
    # The closures hold the arrays of the problem, which may be large: let go of them.
    for outcome in outcomes:
        outcome.contestant = replace(outcome.contestant, run=None, context=nullcontext)
    finished = replace(problem, contestants=(), error=_finished, spoil=_nothing, figures=())
    return ProblemResult(finished, outcomes, figures, measured.overhead)


def _nothing() -> None:
    pass


def _finished(result: object) -> float:
    raise RuntimeError("this problem is finished; its reference is gone")


def run_task(task: Task, settings: Settings, tell: Callable[[str], object], until: float = float("inf")) -> TaskResult:
    """Run the problems of a task; none begins after the time `until` of `time.monotonic`.

    When it is asked to stop, the problems that are finished are the result.
    """
    results: list[ProblemResult] = []
    makers = task.problems(settings.quick)
    for number, make in enumerate(makers):
        if time.monotonic() > until:
            tell(f"{task.NAME}: its time is over, {len(makers) - number} of {len(makers)} problems are left out")
            break
        try:
            problem = make()
            tell(f"{task.NAME}: {problem.label}")
            peak = partial(settings.peak, task.NAME, number, problem, quick=settings.quick)
            results.append(run_problem(problem, settings, peak))
        except Exception:  # a process that Ctrl-C has reached as well fails, wherever it was started
            if not settings.stopped():
                raise
            break
    return TaskResult(task.NAME, task.SUMMARY, results, task.notes(results))
