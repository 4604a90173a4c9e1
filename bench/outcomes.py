"""What came out of problems: times, errors, targets met or missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.contest import Contestant, Figure, Target, TimedProblem
from bench.timing import Summary, ratios, summary

Status = Literal["timed", "absent", "wrong", "failed"]


@dataclass
class Outcome:
    """A contestant with what came out.

    `seconds` is the time of one job, one entry a round; `first` that of the check; `peak` the bytes that the first call
    adds to a process of its own.
    """

    contestant: Contestant
    status: Status
    error: float | None = None
    reason: str = ""
    first: float = 0.0
    number: int = 0
    seconds: list[float] = field(default_factory=list)
    peak: int | None = None

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
    against: str = ""  # of several to compare with, the fastest


@dataclass(frozen=True)
class MeasuredFigure:
    """A figure with its value, or None."""

    figure: Figure
    value: float | None

    @property
    def met(self) -> bool | None:
        """Whether it is within its bound; None without a value or a bound."""
        if self.value is None or self.figure.bound is None:
            return None
        return self.value <= self.figure.bound


@dataclass(frozen=True)
class ProblemResult:
    """A problem with the outcomes of its contestants."""

    problem: TimedProblem
    outcomes: list[Outcome]
    figures: list[MeasuredFigure] = field(default_factory=list)
    overhead: float = 0.0

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

    def fastest(self, names: Sequence[str]) -> str | None:
        """Return which of these contestants has the smallest median time, or None where none was timed."""
        medians = {name: summary(times).median for name in names if (times := self.times(name)) is not None}
        return min(medians, key=medians.__getitem__, default=None)

    @property
    def verdicts(self) -> list[Verdict]:
        """The targets, judged by medians."""
        return [self._judge(target) for target in self.problem.targets]

    def _judge(self, target: Target) -> Verdict:
        times = self.times(target.contestant)
        than = target.than if isinstance(target.than, str) else self.fastest(target.than)
        if target.kind == "seconds":
            measured = None if times is None else summary(times)
        elif than is None:
            measured = None
        elif target.kind == "faster":
            measured = self.speedup(target.contestant, than)
        else:
            measured = self.speedup(than, target.contestant)
        if measured is None:
            return Verdict(target, None, None)
        met = measured.median >= target.bound if target.kind == "faster" else measured.median <= target.bound
        return Verdict(target, measured, met, than or "")


@dataclass(frozen=True)
class TaskResult:
    """A task with its results."""

    name: str
    about: str
    problems: list[ProblemResult]
    notes: list[str]
