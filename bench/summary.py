"""A run in a few lines for readers: from its JSON, one table a task, ours beside the fastest of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.report import digits, seconds_words
from bench.timing import ratios, summary

OURS = "hesskern"


def markdown(run: dict[str, Any], tasks: Sequence[str] = ()) -> str:
    """Return tables of a run (as `report.as_json` gives it), of some tasks or of all."""
    lines: list[str] = []
    for task in run["tasks"]:
        if tasks and task["name"] not in tasks:
            continue
        lines += [f"### {task['name']}", "", task["about"], ""]
        lines += ["| problem | hesskern | fastest other | x slower | x floor | targets |", "|---|---|---|---|---|---|"]
        lines += [_row(problem) for problem in task["problems"]]
        lines += ["", *(f"- {note}" for note in task["notes"]), *([""] if task["notes"] else [])]
    return "\n".join(lines).rstrip() + "\n"


def _row(problem: dict[str, Any]) -> str:
    timed = [contestant for contestant in problem["contestants"] if contestant["status"] == "timed"]
    first = next(contestant for contestant in timed if contestant["role"] == "ours")
    ours = [first, *(c for c in timed if c is not first and (c["role"] == "ours" or c["name"].startswith(OURS)))]
    others = [c for c in timed if c["role"] == "peer" and c not in ours]
    floor = next((c for c in timed if c["role"] == "floor"), None)
    cells = ["<br>".join(_named_time(contestant, first["name"]) for contestant in ours)]
    if others:
        best = min(others, key=lambda contestant: summary(contestant["seconds"]).median)
        cells.append(f"{best['name']} {seconds_words(summary(best['seconds']).median)}")
        cells.append(digits(ratios(best["seconds"], first["seconds"]).median))
    else:
        cells += ["", ""]
    cells.append("" if floor is None else digits(ratios(first["seconds"], floor["seconds"]).median))
    cells.append("<br>".join([*_targets(problem), *_figures(problem)]))
    return f"| {problem['label']} | {' | '.join(cells)} |"


def _named_time(contestant: dict[str, Any], first: str) -> str:
    time = seconds_words(summary(contestant["seconds"]).median)
    name = contestant["name"].removeprefix(OURS).removeprefix(", ")
    return time if contestant["name"] == first else f"{name}: {time}"


def _targets(problem: dict[str, Any]) -> Iterator[str]:
    for target in problem["targets"]:
        words = target["target"].removeprefix(f"{OURS}: ").removeprefix(f"{OURS}, ")
        measured = target["measured"]
        if measured is None:
            yield f"{words}: not measured"
            continue
        value = measured["median"]
        # What is compared with nothing has a bound in seconds; older files say so in no other way.
        shown = digits(value) if target["against"] else seconds_words(value)
        yield f"{words}: {shown}, {'met' if target['met'] else '**missed**'}"


def _figures(problem: dict[str, Any]) -> Iterator[str]:
    for figure in problem["figures"]:
        if figure["value"] is None:
            continue
        words = f"{figure['name']}: {digits(figure['value'])} {figure['unit']}"
        if figure["bound"] is not None:
            words += f" (at most {figure['bound']:g}), {'met' if figure['met'] else '**missed**'}"
        yield words
