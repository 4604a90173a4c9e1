"""What is compared: a problem has contestants, a check and targets.

Problems in which one quantity grows while the rest stays as it is are the rungs of a ladder: from their times the
exponents of growth are fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

Role = Literal["ours", "peer", "floor"]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to do the job.

    Attributes
    ----------
    name, note : str
        `note` says what it is and what its time includes.
    run : callable or None
        Does the job once and returns the result to be checked; None where a library it needs is absent.
    role : {"ours", "peer", "floor"}
        A floor is a limit of the machine (stores, multiply-adds); its result is not checked.
    part : str
        Of a floor: which part of the job it is the limit of; several of one part are ways to do the same.
    units : float
        How many jobs one call does: its time is divided by this.
    context : callable
        Entered around its calls, outside the timed part.
    """

    name: str
    run: Callable[[], object] | None
    role: Role = "peer"
    note: str = ""
    part: str = ""
    units: float = 1.0
    context: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True, kw_only=True)
class Target:
    """What has to come out.

    Attributes
    ----------
    contestant : str
    than : str or sequence of str
        The contestant compared with, or several, of which the fastest counts; empty for a bound in seconds.
    group : str
        What several are called together.
    kind : {"faster", "at_most", "seconds"}
        Time of `than` over time of `contestant` at least `bound`; time of `contestant` over time of `than` at most
        `bound`; time of `contestant` at most `bound`.
    """

    contestant: str
    kind: Literal["faster", "at_most", "seconds"]
    bound: float
    than: str | Sequence[str] = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What is measured once and is no time, such as memory.

    Attributes
    ----------
    name, unit, note : str
    measure : callable
        Returns the value; None where this system cannot tell.
    bound : float or None
        What the value may be at most, if there is a target.
    """

    name: str
    measure: Callable[[], float | None]
    unit: str = ""
    bound: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Rung:
    """A problem's place on a ladder.

    Attributes
    ----------
    ladder : str
        What all its problems share, such as "20-200-20".
    variable : str
        What grows, such as "N"; the exponent is that of this quantity.
    value : float
    """

    ladder: str
    variable: str
    value: float


@dataclass(frozen=True, kw_only=True)
class TimedProblem:
    """One size of a task.

    Attributes
    ----------
    error : callable
        Relative error of a contestant's result against a reference that does not come from hesskern.
    tolerance : float
        A contestant whose error is not at most this is wrong and is not timed.
    spoil : callable
        Called before each check: destroys what the contestant before left in an array they share.
    figures : sequence of Figure
        Measured before the contestants are timed.
    rungs : sequence of Rung
        The ladders this size is on.
    memory : bool
        Whether the peak memory of each contestant is measured, in processes of their own.
    """

    label: str
    contestants: Sequence[Contestant]
    error: Callable[[object], float]
    tolerance: float
    targets: Sequence[Target] = ()
    spoil: Callable[[], object] = lambda: None
    figures: Sequence[Figure] = ()
    rungs: Sequence[Rung] = ()
    memory: bool = False

    def __post_init__(self) -> None:
        """Refuse a target of a contestant that is not there, before anything is measured."""
        names = {contestant.name for contestant in self.contestants}
        for target in self.targets if self.contestants else ():
            for name in (target.contestant, *([target.than] if isinstance(target.than, str) else target.than)):
                if name and name not in names:
                    raise ValueError(f"{self.label} has a target of {name!r}, but no such contestant.")
