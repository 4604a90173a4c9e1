"""Checks every contestant, times those that are right, and judges the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

from bench.task import Contestant, Problem, Target, Task
from bench.timing import Entry, Summary, interleaved, ratios, summary

Status = Literal["timed", "absent", "wrong", "failed"]


@dataclass
class Outcome:
    """A contestant with what came out; `seconds` is the time of one job, one entry a round."""

    contestant: Contestant
    status: Status
    error: float | None = None
    reason: str = ""
    number: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def summary(self) -> Summary:
        """Median and quartiles of the seconds."""
        return summary(self.seconds)


@dataclass(frozen=True)
class Verdict:
    """A target with its measurement."""

    target: Target
    measured: Summary | None
    met: bool | None  # None: not measured


@dataclass(frozen=True)
class ProblemResult:
    """A problem with the outcomes of its contestants."""

    problem: Problem
    outcomes: list[Outcome]

    def times(self, name: str) -> list[float] | None:
        """Return the seconds of a contestant, or None where it was not timed."""
        for outcome in self.outcomes:
            if outcome.contestant.name == name:
                return outcome.seconds if outcome.status == "timed" else None
        raise KeyError(f"{self.problem.label} has no contestant {name!r}")

    def speedup(self, name: str, than: str) -> Summary | None:
        """Return how many times faster `name` is than `than`."""
        fast, slow = self.times(name), self.times(than)
        return None if fast is None or slow is None else ratios(slow, fast)

    @property
    def verdicts(self) -> list[Verdict]:
        """The targets, judged by medians."""
        return [self._judge(target) for target in self.problem.targets]

    def _judge(self, target: Target) -> Verdict:
        times = self.times(target.contestant)
        if target.kind == "seconds":
            measured = None if times is None else summary(times)
        elif target.kind == "faster":
            measured = self.speedup(target.contestant, target.than)
        else:
            measured = self.speedup(target.than, target.contestant)
        if measured is None:
            return Verdict(target, None, None)
        met = measured.median >= target.bound if target.kind == "faster" else measured.median <= target.bound
        return Verdict(target, measured, met)


@dataclass(frozen=True)
class TaskResult:
    """A task with its results."""

    name: str
    about: str
    problems: list[ProblemResult]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How thoroughly to measure."""

    rounds: int = 30
    least: float = 0.01
    budget: float = 12.0
    quick: bool = False


QUICK = Settings(rounds=2, least=0.0002, budget=1.0, quick=True)


def checked(contestant: Contestant, problem: Problem) -> Outcome:
    """Run a contestant once and compare its result with the reference."""
    if contestant.run is None:
        return Outcome(contestant, "absent", reason=contestant.note)
    problem.spoil()
    try:
        with contestant.context():
            result = contestant.run()
        error = 0.0 if contestant.role == "floor" else problem.error(result)
    except Exception as failure:  # a peer that raises must not end the run; it is reported as failed
        return Outcome(contestant, "failed", reason=f"{type(failure).__name__}: {failure}")
    if contestant.role == "floor":
        return Outcome(contestant, "timed")
    if not error <= problem.tolerance:  # NaN is wrong as well
        return Outcome(contestant, "wrong", error, f"relative error {error:.1e} > {problem.tolerance:.0e}")
    return Outcome(contestant, "timed", error)


def run_problem(problem: Problem, settings: Settings) -> ProblemResult:
    """Check, then time in interleaved rounds what is right."""
    if settings.quick:  # the smallest sizes say nothing about the targets, which are about real ones
        problem = replace(problem, targets=())
    outcomes = [checked(contestant, problem) for contestant in problem.contestants]
    timed = [outcome for outcome in outcomes if outcome.status == "timed"]
    entries = [Entry(o.contestant.run, o.contestant.context) for o in timed if o.contestant.run is not None]
    measured = interleaved(entries, rounds=settings.rounds, least=settings.least, budget=settings.budget)
    for outcome, times in zip(timed, measured, strict=True):
        outcome.number = times.number
        outcome.seconds = [second / outcome.contestant.units for second in times.seconds]
    # The closures hold the arrays of the problem, which may be large: let go of them.
    for outcome in outcomes:
        outcome.contestant = replace(outcome.contestant, run=None, context=nullcontext)
    return ProblemResult(replace(problem, contestants=(), error=_finished, spoil=_nothing), outcomes)


def _nothing() -> None:
    pass


def _finished(result: object) -> float:
    raise RuntimeError("this problem is finished; its reference is gone")


def run_task(task: Task, settings: Settings, tell: Callable[[str], object]) -> TaskResult:
    results: list[ProblemResult] = []
    for problem in task.problems(settings.quick):
        tell(f"{task.NAME}: {problem.label}")
        results.append(run_problem(problem, settings))
    return TaskResult(task.NAME, task.SUMMARY, results, task.notes(results))


def run_tasks(tasks: Iterable[Task], settings: Settings, tell: Callable[[str], object]) -> list[TaskResult]:
    return [run_task(task, settings, tell) for task in tasks]
