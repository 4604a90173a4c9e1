"""Results as JSON (everything, with each round's time) and as Markdown (what a reader wants)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from bench.runner import MeasuredFigure, Outcome, ProblemResult, Settings, TaskResult, Verdict
from bench.task import Target
from bench.timing import Summary, ratios

SCHEMA = 2


def as_json(machine: dict[str, Any], settings: Settings, results: Sequence[TaskResult]) -> dict[str, Any]:
    """Return a run as plain data."""
    return {
        "schema": SCHEMA,
        "machine": machine,
        "settings": {"rounds": settings.rounds, "inner_loop_seconds": settings.least, "quick": settings.quick},
        "tasks": [
            {
                "name": task.name,
                "about": task.about,
                "notes": task.notes,
                "problems": [_problem(problem) for problem in task.problems],
            }
            for task in results
        ],
    }


def json_text(run: dict[str, Any]) -> str:
    """Return a run as JSON, the times of all rounds on one line: a file that can be read."""
    text = json.dumps(run, indent=1, ensure_ascii=False)
    return re.sub(r"\[[\s\d.,e+-]+\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _problem(result: ProblemResult) -> dict[str, Any]:
    return {
        "label": result.problem.label,
        "tolerance": result.problem.tolerance,
        "contestants": [
            {
                "name": outcome.contestant.name,
                "role": outcome.contestant.role,
                "note": outcome.contestant.note,
                "status": outcome.status,
                "reason": outcome.reason,
                "error": outcome.error,
                "calls_per_round": outcome.number,
                "seconds": [float(f"{second:.4g}") for second in outcome.seconds],
            }
            for outcome in result.outcomes
        ],
        "targets": [
            {
                "target": target_words(verdict.target),
                "kind": verdict.target.kind,
                "against": verdict.against,
                "bound": verdict.target.bound,
                "measured": None if verdict.measured is None else verdict.measured._asdict(),
                "met": verdict.met,
            }
            for verdict in result.verdicts
        ],
        "figures": [
            {
                "name": measured.figure.name,
                "note": measured.figure.note,
                "value": None if measured.value is None else float(f"{measured.value:.4g}"),
                "unit": measured.figure.unit,
                "bound": measured.figure.bound,
                "met": measured.met,
            }
            for measured in result.figures
        ],
    }


def target_words(target: Target) -> str:
    """Return a target as a phrase."""
    if target.kind == "seconds":
        return f"{target.contestant}: at most {seconds_words(target.bound)}"
    than = target.than if isinstance(target.than, str) else target.group or f"the fastest of {', '.join(target.than)}"
    if target.kind == "faster":
        return f"{target.contestant}: at least {target.bound:g} x faster than {than}"
    return f"{target.contestant}: at most {target.bound:g} x {than}"


def seconds_words(seconds: float) -> str:
    """Return a time with a unit that suits it.

    Examples
    --------
    >>> seconds_words(0.000276), seconds_words(0.1411)
    ('276 µs', '141 ms')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{digits(seconds / size)} {unit}"
    return f"{digits(seconds * 1e9)} ns"


def digits(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _with_quartiles(measured: Summary) -> str:
    return f"{digits(measured.median)} ({digits(measured.lower)} to {digits(measured.upper)})"


def markdown(machine: dict[str, Any], settings: Settings, results: Sequence[TaskResult]) -> str:
    """Return a run as Markdown: the targets first, then every measurement."""
    lines = [*_machine_lines(machine, settings), ""]
    judged = [(task, problem, v) for task in results for problem in task.problems for v in problem.verdicts]
    bounded = [(t, p, f) for t in results for p in t.problems for f in p.figures if f.figure.bound is not None]
    if judged or bounded:
        lines += ["### Targets", "", "| task | problem | target | measured (quartiles) | |", "|---|---|---|---|---|"]
        lines += [f"| {t.name} | {p.problem.label} | {_verdict_cells(v)} |" for t, p, v in judged]
        lines += [f"| {t.name} | {p.problem.label} | {_bound_cells(f)} |" for t, p, f in bounded]
        lines.append("")
    for task in results:
        lines += [f"### {task.name}", "", task.about, ""]
        lines += [
            "| problem | contestant | time (quartiles) | first is faster by | x floor | error |",
            "|---|---|---|---|---|---|",
        ]
        for problem in task.problems:
            lines += _rows(problem)
        lines.append("")
        for problem in task.problems:
            lines += [f"- {problem.problem.label}, {_figure_words(measured)}" for measured in problem.figures]
        lines += [f"- {note}" for note in task.notes]
        if lines[-1]:
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _machine_lines(machine: dict[str, Any], settings: Settings) -> Iterator[str]:
    libraries = ", ".join(f"{name} {number or 'absent'}" for name, number in machine["libraries"].items())
    yield (
        f"{machine['cpu']}, {machine['isa']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{machine['system']}; {machine['python']}; hesskern {machine['hesskern']}, {libraries}; "
        f"revision {machine['revision'] or 'unknown'}; "
        f"load {machine['load_average']['start']} at the start, {machine['load_average']['end']} at the end."
    )
    yield ""
    threads = "; ".join(machine["blas"])
    yield (
        f"One thread (BLAS: {threads}; torch: {machine['torch_threads'] or 'absent'}), unless a name says otherwise. "
        f"Up to {settings.rounds} interleaved rounds; medians with quartiles; ratios are taken within each round. "
        "Every result was checked before it was timed; a contestant that was wrong would be marked so and not timed."
    )


def _verdict_cells(verdict: Verdict) -> str:
    words = target_words(verdict.target)
    if verdict.measured is None:
        return f"{words} | not measured | -"
    measured = verdict.measured
    shown = _time_cell(measured) if verdict.target.kind == "seconds" else f"{_with_quartiles(measured)} x"
    if verdict.against and verdict.against != verdict.target.than:
        shown += f", {verdict.against}"
    return f"{words} | {shown} | {'met' if verdict.met else '**missed**'}"


def _bound_cells(measured: MeasuredFigure) -> str:
    words = f"{measured.figure.name}: at most {measured.figure.bound:g} {measured.figure.unit}"
    if measured.value is None:
        return f"{words} | not measured | -"
    return f"{words} | {digits(measured.value)} {measured.figure.unit} | {'met' if measured.met else '**missed**'}"


def _figure_words(measured: MeasuredFigure) -> str:
    value = "not measured" if measured.value is None else f"{digits(measured.value)} {measured.figure.unit}"
    return f"{measured.figure.name}: {value} ({measured.figure.note})"


def _time_cell(measured: Summary) -> str:
    return f"{seconds_words(measured.median)} ({seconds_words(measured.lower)} to {seconds_words(measured.upper)})"


def _rows(result: ProblemResult) -> list[str]:
    timed = [outcome for outcome in result.outcomes if outcome.status == "timed"]
    ours = next((outcome for outcome in timed if outcome.contestant.role == "ours"), None)
    floor = next((outcome for outcome in timed if outcome.contestant.role == "floor"), None)
    return [f"| {result.problem.label} | {_cells(outcome, ours, floor)} |" for outcome in result.outcomes]


def _cells(outcome: Outcome, ours: Outcome | None, floor: Outcome | None) -> str:
    name = outcome.contestant.name
    if outcome.status != "timed":
        return f"{name} | {outcome.status}: {outcome.reason} | | | "
    faster = limit = ""
    if ours is not None and outcome is not ours:
        faster = _with_quartiles(ratios(outcome.seconds, ours.seconds))
    if floor is not None and outcome is not floor:
        limit = digits(ratios(outcome.seconds, floor.seconds).median)
    error = "" if outcome.error is None else f"{outcome.error:.0e}"
    return f"{name} | {_time_cell(outcome.summary)} | {faster} | {limit} | {error}"
