"""What a benchmark is: a task, a module of `bench.tasks`, has problems, one for each size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bench.contest import TimedProblem
from bench.outcomes import ProblemResult


class Task(Protocol):
    """A module in bench/tasks."""

    NAME: str
    SUMMARY: str

    def problems(self, quick: bool) -> Sequence[Callable[[], TimedProblem]]:
        """Return what makes each problem: one is made at a time, and its memory is free before the next."""

    def notes(self, results: Sequence[ProblemResult]) -> list[str]:
        """Say what can be read off the times, in sentences."""
