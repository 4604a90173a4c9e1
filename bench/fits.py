"""How time grows: exponents fitted to the medians of a ladder, by least squares on logarithms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from scipy import stats

from bench.limits import limit_of
from bench.timing import summary

#: Fewer points have no standard error.
LEAST = 3


class Curve(NamedTuple):
    """A contestant's times along a ladder, in the order of the variable."""

    contestant: str
    role: str
    values: list[float]
    seconds: list[list[float]]

    @property
    def medians(self) -> list[float]:
        return [summary(times).median for times in self.seconds]


class FittedLadder(NamedTuple):
    """Problems of a task in which one quantity grows; `limit`: what the machine needs at least, at each value."""

    name: str
    variable: str
    curves: list[Curve]
    limit: list[tuple[float, float]]


class Exponent(NamedTuple):
    """The exponent of growth, its standard error, and the exponent between the last two rungs alone."""

    exponent: float
    error: float
    last: float


def ladders(task: dict[str, Any]) -> list[FittedLadder]:
    """Return the ladders of a task of a run, in the order they began."""
    found: dict[tuple[str, str], list[tuple[float, dict[str, Any]]]] = {}
    for problem in task["problems"]:
        for rung in problem["rungs"]:
            found.setdefault((rung["ladder"], rung["variable"]), []).append((rung["value"], problem))
    return [_ladder(name, variable, problems) for (name, variable), problems in found.items()]


def _ladder(name: str, variable: str, problems: list[tuple[float, dict[str, Any]]]) -> FittedLadder:
    curves: dict[str, tuple[str, dict[float, list[float]]]] = {}
    limit = []
    for value, problem in sorted(problems, key=lambda found: found[0]):
        for contestant in problem["contestants"]:
            if contestant["status"] == "timed":
                points = curves.setdefault(contestant["name"], (contestant["role"], {}))[1]
                points[value] = contestant["seconds"]
        floor = limit_of(problem)
        if floor is not None:
            limit.append((value, summary(floor["seconds"]).median))
    return FittedLadder(name, variable, list(_curves(curves)), limit)


def _curves(found: dict[str, tuple[str, dict[float, list[float]]]]) -> Iterator[Curve]:
    for name, (role, points) in found.items():
        values = sorted(points)
        yield Curve(name, role, values, [points[value] for value in values])


def exponent(curve: Curve) -> Exponent | None:
    """Return the exponent of a curve, or None where it has too few points."""
    if len(curve.values) < LEAST:
        return None
    x, y = ([math.log(value) for value in values] for values in (curve.values, curve.medians))
    fit = stats.linregress(x, y)
    return Exponent(float(fit.slope), float(fit.stderr), (y[-1] - y[-2]) / (x[-1] - x[-2]))
