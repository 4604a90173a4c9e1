"""A run as Markdown, made from its JSON alone: every measurement, or one short table a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench import fits
from bench.compare import is_ours
from bench.limits import limit_of
from bench.timing import Summary, ratios, summary
from bench.words import bytes_words, digits, seconds_words

OURS = "hesskern"


def report(run: dict[str, Any]) -> str:
    """Return everything: the machine, the targets, each contestant's times, memory and exponents."""
    lines = [machine_line(run), "", method_line(run), "", *_targets_section(run)]
    for task in run["tasks"]:
        lines += [f"### {task['name']}", "", task["about"], "", *_measurements(task), ""]
        lines += _figures_and_notes(task)
        lines += _growth_section(task)
    return _text(lines)


def brief(run: dict[str, Any], tasks: Sequence[str] = ()) -> str:
    """Return one table a task, of some tasks or of all: ours beside the fastest of the others."""
    lines = [quick(run), ""]
    for task in chosen(run, tasks):
        lines += [f"### {task['name']}", "", task["about"], ""]
        lines += [
            "| problem | hesskern | fastest other | x slower | x of the limit | targets |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_brief_row(problem) for problem in task["problems"]]
        lines += ["", *(f"- {note}" for note in task["notes"]), *([""] if task["notes"] else [])]
    return _text(lines)


def targets(run: dict[str, Any], tasks: Sequence[str] = ()) -> str:
    """Return the table of targets, of some tasks or of all."""
    return _text(_targets_table(chosen(run, tasks)))


def headlines(run: dict[str, Any], tasks: Sequence[str] = ()) -> str:
    """Return one table of the problems with a target: ours, the fastest and the slowest other, and the limit."""
    lines = [
        quick(run),
        "",
        "| task | problem | hesskern | fastest other | slowest other | x of the limit |",
        "|---|---|---|---|---|---|",
    ]
    for task in chosen(run, tasks):
        for problem in [problem for problem in task["problems"] if problem["targets"]] or task["problems"][:1]:
            ours, others, limit = _sides(problem)
            if ours is None or not others:
                continue
            ends = [_times_slower(other, ours) for other in (others[0], others[-1])]
            ends = ends if len(others) > 1 else [*ends[:1], ""]
            time = seconds_words(_median(ours))
            lines.append(f"| {task['name']} | {problem['label']} | {time} | {' | '.join(ends)} | {_of(ours, limit)} |")
    return _text(lines)


def times(run: dict[str, Any], tasks: Sequence[str] = ()) -> str:
    """Return the time of every contestant, of some tasks or of all."""
    lines = [quick(run), "", "| problem | contestant | time (quartiles) |", "|---|---|---|"]
    for problem in (problem for task in chosen(run, tasks) for problem in task["problems"]):
        for contestant in timed(problem):
            time = _time_cell(summary(contestant["seconds"]))
            lines.append(f"| {problem['label']} | {contestant['name']} | {time} |")
    return _text(lines)


def growth(run: dict[str, Any], tasks: Sequence[str] = ()) -> str:
    """Return the fitted exponents, of some tasks or of all."""
    lines = [quick(run), ""]
    for task in chosen(run, tasks):
        table = _growth_table(task)
        lines += [f"### {task['name']}", "", *table, ""] if table else []
    return _text(lines)


def chosen(run: dict[str, Any], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Return the tasks of a run with these names, or all of them; "hvp:3" is the third problem of hvp alone."""
    if not tasks:
        return list(run["tasks"])
    numbers: dict[str, set[str]] = {}
    for task, _, number in (name.partition(":") for name in tasks):
        numbers.setdefault(task, set()).add(number)
    return [_some(task, numbers[task["name"]]) for task in run["tasks"] if task["name"] in numbers]


def _some(task: dict[str, Any], numbers: set[str]) -> dict[str, Any]:
    """Return a task with the problems of these numbers, counted from 1; an empty text: with all of them."""
    problems = [p for number, p in enumerate(task["problems"], 1) if {"", str(number)} & numbers]
    return task | {"problems": problems}


def machine_line(run: dict[str, Any]) -> str:
    """Return processor, memory, graphics card, libraries, revision and load as one sentence."""
    machine = run["machine"]
    libraries = ", ".join(f"{name} {number or 'absent'}" for name, number in machine["libraries"].items())
    gpu = machine["gpu"]
    card = f"{gpu['name']} ({gpu['memory_gib']} GiB, driver {gpu['driver']}, CUDA {gpu['cuda']}); " if gpu else ""
    load = machine["load_average"]
    return (
        f"{machine['cpu']}, {machine['isa']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {card}"
        f"{machine['system']}; {machine['python']}; hesskern {machine['hesskern']}, {libraries}; "
        f"revision {machine['revision'] or 'unknown'}; load {load['start']} at the start, {load['end']} at the end."
    )


def method_line(run: dict[str, Any]) -> str:
    """Return threads, rounds and what was checked as one sentence."""
    machine, settings = run["machine"], run["settings"]
    found = [problem.get("timer_overhead_seconds") for task in run["tasks"] for problem in task["problems"]]
    overheads = [seconds for seconds in found if seconds is not None]
    taken = (
        f" A call of nothing ({seconds_words(summary(overheads).median)}) is taken off every time." if overheads else ""
    )
    return quick(run) + (
        f"One thread (BLAS: {'; '.join(machine['blas'])}; torch: {machine['torch_threads'] or 'absent'}), unless a "
        f"name says otherwise. Up to {settings['rounds']} interleaved rounds; medians with quartiles; ratios are taken "
        f"within each round.{taken} Every result was checked before it was timed; a contestant that was wrong would be "
        "marked so and not timed."
    )


def quick(run: dict[str, Any]) -> str:
    """Return the sentence that a quick run's tables begin with, nothing for another run."""
    settings = run["settings"]
    if not settings["quick"]:
        return ""
    loops = seconds_words(settings["inner_loop_seconds"])
    return f"A quick run: the smallest sizes, inner loops of {loops}; it says that all works, not how fast. "


def _text(lines: Sequence[str]) -> str:
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"


def _median(contestant: dict[str, Any]) -> float:
    return summary(contestant["seconds"]).median


def timed(problem: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the contestants of a problem that were timed."""
    return [contestant for contestant in problem["contestants"] if contestant["status"] == "timed"]


def _sides(
    problem: dict[str, Any],
) -> tuple[dict[str, Any] | None, list[dict[str, Any]], dict[str, Any] | None]:
    """Return the first of ours, the others from fastest to slowest, and the limit."""
    found = timed(problem)
    ours = next((contestant for contestant in found if contestant["role"] == "ours"), None)
    others = sorted((c for c in found if c["role"] == "peer" and not is_ours(c)), key=_median)
    return ours, others, limit_of(problem)


def _times_slower(other: dict[str, Any], ours: dict[str, Any]) -> str:
    return f"{other['name']}, {digits(ratios(other['seconds'], ours['seconds']).median)} x"


def _of(contestant: dict[str, Any], limit: dict[str, Any] | None) -> str:
    return "" if limit is None else digits(ratios(contestant["seconds"], limit["seconds"]).median)


def with_quartiles(measured: Summary) -> str:
    """Return a median with its quartiles."""
    return f"{digits(measured.median)} ({digits(measured.lower)} to {digits(measured.upper)})"


def _time_cell(measured: Summary) -> str:
    return f"{seconds_words(measured.median)} ({seconds_words(measured.lower)} to {seconds_words(measured.upper)})"


# Measurements ---------------------------------------------------------------------------------------------------------


def _measurements(task: dict[str, Any]) -> Iterator[str]:
    yield "| problem | contestant | time (quartiles) | first is faster by | x of the limit | memory | error |"
    yield "|---|---|---|---|---|---|---|"
    for problem in task["problems"]:
        ours, _, limit = _sides(problem)
        for contestant in problem["contestants"]:
            yield f"| {problem['label']} | {_cells(contestant, ours, limit)} |"


def _cells(contestant: dict[str, Any], ours: dict[str, Any] | None, limit: dict[str, Any] | None) -> str:
    name = contestant["name"]
    if contestant["status"] != "timed":
        return f"{name} | {contestant['status']}: {contestant['reason']} | | | | "
    faster = of = ""
    if ours is not None and contestant is not ours and contestant["role"] != "floor":
        faster = with_quartiles(ratios(contestant["seconds"], ours["seconds"]))
    if contestant is not limit:
        of = _of(contestant, limit)
    peak, error = contestant["peak_bytes"], contestant["error"]
    memory = "" if peak is None else bytes_words(peak)
    shown = "" if error is None or contestant["role"] == "floor" else f"{error:.0e}"
    return f"{name} | {_time_cell(summary(contestant['seconds']))} | {faster} | {of} | {memory} | {shown}"


def _figures_and_notes(task: dict[str, Any]) -> list[str]:
    lines = [
        f"- {problem['label']}, {_figure_words(figure)}"
        for problem in task["problems"]
        for figure in problem["figures"]
    ]
    lines += [f"- {note}" for note in task["notes"]]
    return [*lines, ""] if lines else []


def _figure_words(figure: dict[str, Any]) -> str:
    value = "not measured" if figure["value"] is None else f"{digits(figure['value'])} {figure['unit']}"
    return f"{figure['name']}: {value} ({figure['note']})"


# Targets --------------------------------------------------------------------------------------------------------------


def _targets_section(run: dict[str, Any]) -> list[str]:
    table = _targets_table(run["tasks"])
    return ["### Targets", "", *table, ""] if table else []


def _targets_table(tasks: Sequence[dict[str, Any]]) -> list[str]:
    judged = [(task, problem) for task in tasks for problem in task["problems"]]
    rows = [f"| {t['name']} | {p['label']} | {_verdict_cells(v)} |" for t, p in judged for v in p["targets"]]
    rows += [
        f"| {t['name']} | {p['label']} | {_bound_cells(figure)} |"
        for t, p in judged
        for figure in p["figures"]
        if figure["bound"] is not None
    ]
    head = ["| task | problem | target | measured (quartiles) | |", "|---|---|---|---|---|"]
    return [*head, *rows] if rows else []


def _verdict_cells(verdict: dict[str, Any]) -> str:
    if verdict["measured"] is None:
        return f"{verdict['target']} | not measured | -"
    measured = Summary(**verdict["measured"])
    # What is compared with nothing has a bound in seconds; older files say so in no other way.
    shown = f"{with_quartiles(measured)} x" if verdict["against"] else _time_cell(measured)
    if verdict["against"] and not verdict["target"].endswith(verdict["against"]):
        shown += f", {verdict['against']}"
    return f"{verdict['target']} | {shown} | {_met(verdict)}"


def _bound_cells(figure: dict[str, Any]) -> str:
    words = f"{figure['name']}: at most {figure['bound']:g} {figure['unit']}"
    if figure["value"] is None:
        return f"{words} | not measured | -"
    return f"{words} | {digits(figure['value'])} {figure['unit']} | {_met(figure)}"


def _met(judged: dict[str, Any]) -> str:
    measured = judged.get("measured")  # a figure has one value and no quartiles
    if measured is not None and measured["lower"] < judged["bound"] < measured["upper"]:
        return "undecided"
    return "met" if judged["met"] else "**missed**"


# Growth ---------------------------------------------------------------------------------------------------------------


def _growth_section(task: dict[str, Any]) -> list[str]:
    table = _growth_table(task)
    return [*table, ""] if table else []


def _growth_table(task: dict[str, Any]) -> list[str]:
    rows = []
    for ladder in fits.ladders(task):
        for curve in ladder.curves:
            fit = fits.exponent(curve)
            if fit is not None:
                ends = f"{curve.values[0]:g} to {curve.values[-1]:g}, {len(curve.values)} sizes"
                cells = f"{fit.exponent:.2f} ± {fit.error:.2f} | {fit.last:.2f}"
                rows.append(f"| {ladder.variable} | {ladder.name} | {curve.contestant} | {ends} | {cells} |")
    head = [
        "| grows with | of | contestant | from, to | exponent ± standard error | between the last two |",
        "|---|---|---|---|---|---|",
    ]
    return [*head, *rows] if rows else []


# Brief ----------------------------------------------------------------------------------------------------------------


def _brief_row(problem: dict[str, Any]) -> str:
    first, others, limit = _sides(problem)
    if first is None:
        return f"| {problem['label']} | not timed | | | | |"
    ours = [first, *(c for c in timed(problem) if c is not first and c["role"] != "floor" and is_ours(c))]
    cells = ["<br>".join(_named_time(contestant, first["name"]) for contestant in ours)]
    if others:
        cells.append(f"{others[0]['name']} {seconds_words(_median(others[0]))}")
        cells.append(digits(ratios(others[0]["seconds"], first["seconds"]).median))
    else:
        cells += ["", ""]
    cells.append(_of(first, limit))
    cells.append("<br>".join([*_brief_targets(problem), *_brief_figures(problem)]))
    return f"| {problem['label']} | {' | '.join(cells)} |"


def _named_time(contestant: dict[str, Any], first: str) -> str:
    time = seconds_words(_median(contestant))
    name = contestant["name"].removeprefix(OURS).removeprefix(", ")
    return time if contestant["name"] == first else f"{name}: {time}"


def _brief_targets(problem: dict[str, Any]) -> Iterator[str]:
    for target in problem["targets"]:
        words = target["target"].removeprefix(f"{OURS}: ").removeprefix(f"{OURS}, ")
        if target["measured"] is None:
            yield f"{words}: not measured"
            continue
        value = target["measured"]["median"]
        yield f"{words}: {digits(value) if target['against'] else seconds_words(value)}, {_met(target)}"


def _brief_figures(problem: dict[str, Any]) -> Iterator[str]:
    for figure in problem["figures"]:
        if figure["value"] is not None:
            words = f"{figure['name']}: {digits(figure['value'])} {figure['unit']}"
            yield words + (f" (at most {figure['bound']:g}), {_met(figure)}" if figure["bound"] is not None else "")
