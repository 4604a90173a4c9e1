"""Runs as JSON: everything that was measured, with the machine; and the files that hold them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import tables
from bench.contest import Target
from bench.outcomes import ProblemResult, TaskResult
from bench.runner import Settings
from bench.words import seconds_words

SCHEMA = 3
#: Files of schema 2 have everything but ladders and memory.
READ = (2, SCHEMA)
RESULTS = Path(__file__).with_name("results")


class UnreadableRunError(Exception):
    """A file that holds no run this version can read; its message is a sentence for the reader."""


def as_json(machine: dict[str, Any], settings: Settings, results: Sequence[TaskResult]) -> dict[str, Any]:
    """Return a run as plain data."""
    return {
        "schema": SCHEMA,
        "machine": machine,
        "settings": {
            "rounds": settings.rounds,
            "inner_loop_seconds": settings.least,
            "budget_seconds": settings.budget,
            "quick": settings.quick,
        },
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


def bad(run: dict[str, Any]) -> list[str]:
    """Return a line for each contestant that was wrong or failed."""
    return [
        f"{contestant['name']} {contestant['status']}: {contestant['reason']} ({task['name']}, {problem['label']})"
        for task in run["tasks"]
        for problem in task["problems"]
        for contestant in problem["contestants"]
        if contestant["status"] in ("wrong", "failed")
    ]


def json_text(run: dict[str, Any]) -> str:
    """Return a run as JSON, the times of all rounds on one line: a file that can be read."""
    text = json.dumps(run, indent=1, ensure_ascii=False)
    return re.sub(r"\[[\s\d.,e+-]+\]", lambda found: " ".join(found[0].split()), text) + "\n"


def write(run: dict[str, Any], data: Path | None, text: Path | None) -> None:
    """Write a run as JSON and as Markdown, each where it was asked for."""
    for path, content in ((data, json_text(run)), (text, tables.report(run))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")


def find(name: str) -> Path:
    """Return the file of a run: a path, or a name below bench/results such as "machine/name" or "name"."""
    given = Path(name)
    named = [*RESULTS.glob(f"{name}.json"), *RESULTS.glob(f"*/{name}.json")] if not given.is_absolute() else []
    if given.is_file():
        return given
    if len(named) == 1:
        return named[0]
    if named:
        several = ", ".join(sorted(str(path.relative_to(RESULTS).with_suffix("")) for path in named))
        raise UnreadableRunError(f"{name} is the name of several runs; say which: {several}.")
    raise UnreadableRunError(f"There is no run {name}: neither a file nor a name in bench/results.")


def load(name: str) -> dict[str, Any]:
    """Return a run from its file or by its name, what an older file does not have being empty.

    Raises
    ------
    UnreadableRunError
        If there is no such file, or no run that this version reads is in it.
    """
    path = find(name)
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnreadableRunError(f"{path} is not JSON: {error}.") from error
    schema = run.get("schema") if isinstance(run, dict) else None
    if schema not in READ:
        raise UnreadableRunError(
            f"{path} has schema {schema!r}, and this version reads {' and '.join(map(str, READ))}; "
            "measure again with `python -m bench run`, or read it with the revision that wrote it."
        )
    try:
        _complete(run)
    except KeyError as error:
        raise UnreadableRunError(f"{path} is incomplete: {error} is missing; measure again.") from error
    except (TypeError, AttributeError) as error:
        raise UnreadableRunError(f"{path} holds no run: {error}; measure again.") from error
    return run  # type: ignore[no-any-return]


#: What the tables need of a run and its parts.
NEEDED = {
    "run": ("tasks", "machine", "settings"),
    "machine": (
        "cpu", "isa", "cores", "memory_gib", "system", "python", "hesskern", "libraries", "revision", "load_average",
        "blas", "torch_threads",
    ),
    "settings": ("rounds", "inner_loop_seconds", "quick"),
    "task": ("name", "about", "notes", "problems"),
    "problem": ("label", "contestants", "targets", "figures"),
    "contestant": ("name", "role", "status", "reason", "error", "seconds"),
    "target": ("target", "against", "bound", "measured", "met"),
    "figure": ("name", "note", "value", "unit", "bound", "met"),
}  # fmt: skip


def _complete(run: dict[str, Any]) -> None:
    """Give a run what an older file does not have; raise KeyError with what is missing."""
    _need("run", [run])
    _need("machine", [run["machine"]])
    _need("settings", [run["settings"]])
    _need("task", run["tasks"])
    run["machine"].setdefault("gpu", None)
    for problem in (problem for task in run["tasks"] for problem in task["problems"]):
        _need("problem", [problem])
        problem.setdefault("rungs", [])
        for kind in ("contestant", "target", "figure"):
            _need(kind, problem[f"{kind}s"])
        for contestant in problem["contestants"]:
            contestant.setdefault("peak_bytes", None)
            contestant.setdefault("part", "")


def _need(kind: str, found: Sequence[dict[str, Any]]) -> None:
    for one, name in ((one, name) for one in found for name in NEEDED[kind]):
        one[name]


def _problem(result: ProblemResult) -> dict[str, Any]:
    return {
        "label": result.problem.label,
        "tolerance": result.problem.tolerance,
        "rungs": [
            {"ladder": rung.ladder, "variable": rung.variable, "value": rung.value} for rung in result.problem.rungs
        ],
        "timer_overhead_seconds": float(f"{result.overhead:.3g}"),
        "contestants": [
            {
                "name": outcome.contestant.name,
                "role": outcome.contestant.role,
                "part": outcome.contestant.part,
                "note": outcome.contestant.note,
                "status": outcome.status,
                "reason": outcome.reason,
                "error": outcome.error,
                "calls_per_round": outcome.number,
                "peak_bytes": outcome.peak,
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
