"""The command line, ``python -m bench``: ``list``, ``run``, ``summary``, ``plot``, ``compare``, ``side-by-side``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import compare, interrupt, machine, memory, pages, peers, plots, runs, side_by_side, tables
from bench.outcomes import TaskResult
from bench.runner import QUICK, Settings, run_task
from bench.task import Task
from bench.tasks import TASKS
from bench.threads import extension_threads

#: Where a run goes as JSON, as Markdown, and the folder of its pictures.
Files = tuple[Path | None, Path | None, Path | None]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m bench", description=sys.modules["bench"].__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the tasks and what each measures")

    run = commands.add_parser("run", help="check, time and judge")
    run.add_argument("--task", action="append", choices=sorted(TASKS), help="run this task only (may be repeated)")
    run.add_argument("--quick", action="store_true", help="smallest sizes, two rounds: seconds, to see that all works")
    run.add_argument("--rounds", type=int, help=f"interleaved rounds (default {Settings().rounds})")
    run.add_argument("--budget", type=float, help=f"seconds for one problem's rounds (default {Settings().budget:g})")
    run.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="torch.compile as well (not with --quick)"
    )
    run.add_argument("--memory", action=argparse.BooleanOptionalAction, help="peak memory as well (not with --quick)")
    run.add_argument("--name", help="keep the run as bench/results/<machine>/NAME.json, NAME.md and NAME/*.png")
    run.add_argument("--force", action="store_true", help="overwrite the run of that name")
    run.add_argument("--json", type=Path, metavar="FILE", help="write every measurement with the machine")
    run.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file instead of the screen")
    run.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the pictures")

    for name, what in (("summary", "the tables of a run"), ("plot", "the pictures of a run")):
        show = commands.add_parser(name, help=what)
        show.add_argument("run", help="a file, or the name of a run in bench/results")
        if name == "plot":
            show.add_argument("folder", type=Path)
        else:
            show.add_argument("--kind", choices=["full", *pages.KINDS], default="brief", help="default: brief")
            show.add_argument("--task", action="append", default=[], help="this task only (may be repeated)")

    against = commands.add_parser("compare", help="what became slower or faster between two runs, and how sure that is")
    against.add_argument("before", help="a file, or the name of a run in bench/results")
    against.add_argument("after")
    against.add_argument(
        "--threshold", type=float, default=compare.THRESHOLD, help=f"least change (default {compare.THRESHOLD:g})"
    )

    both = commands.add_parser(
        "side-by-side", help="the same from two checkouts, each with its .venv, timed in the same rounds"
    )
    both.add_argument("before", type=Path, help="the folder of a checkout where `make install` was run")
    both.add_argument("after", type=Path)
    both.add_argument("--task", action="append", choices=sorted(TASKS), help="this task only (may be repeated)")
    both.add_argument("--quick", action="store_true", help="smallest sizes")
    both.add_argument("--rounds", type=int, default=20, help="default %(default)s")
    both.add_argument("--budget", type=float, default=6.0, help="seconds for one problem (default %(default)g)")
    both.add_argument("--threshold", type=float, default=compare.THRESHOLD, help="least change (default %(default)g)")
    both.add_argument("--json", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="write the times of both")

    page = commands.add_parser("pages", help="write the marked tables of pages again from their runs")
    page.add_argument("pages", nargs="+", type=Path)

    peak = commands.add_parser("peak", help="bytes that one contestant's first call adds to this process (for run)")
    peak.add_argument("--task", required=True, choices=sorted(TASKS))
    peak.add_argument("--problem", required=True, type=int)
    peak.add_argument("--quick", action="store_true")
    peak.add_argument("contestant")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    The exit status is 1 if a contestant was wrong or failed (a missed target is only reported) or if something of ours
    became slower, 2 if a file cannot be read, two runs cannot be compared, an argument means nothing or Matplotlib is
    missing, 130 if a run was stopped by Ctrl-C.
    """
    args = parser().parse_args(arguments)
    try:
        return COMMANDS[args.command](args)
    except (runs.UnreadableRunError, plots.NoPicturesError) as error:
        print(error, file=sys.stderr)
        return 2


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _list(args: argparse.Namespace) -> int:
    for name, task in TASKS.items():
        print(f"{name:20} {task.SUMMARY}")
    return 0


def _run(args: argparse.Namespace) -> int:
    settings = QUICK if args.quick else Settings()
    changes = {name: getattr(args, name) for name in ("rounds", "budget", "memory") if getattr(args, name) is not None}
    if not all(float(value) > 0 for name, value in changes.items() if name != "memory"):
        print("--rounds and --budget: expected numbers above 0.", file=sys.stderr)
        return 2
    settings = dataclasses.replace(settings, **changes)
    peers.CHOICE.compiled = not args.quick if args.compile is None else args.compile
    about = machine.describe()
    chosen = [TASKS[name] for name in args.task or TASKS]
    files: list[Files] = [(args.json, args.markdown, args.plots)]
    old: list[Path] = []
    if args.name:
        kept = runs.RESULTS / machine.short_name(about)
        files.append((kept / f"{args.name}.json", kept / f"{args.name}.md", kept / args.name))
        old += (kept / args.name).glob("*.png")
    refused = _refusal(args, *files)
    if refused:
        print(refused, file=sys.stderr)
        return 2
    if any(folder is not None for *_, folder in files):
        plots.require()  # before anything is measured
    run, stopped = _measured(chosen, settings, about, files, old)
    if run is not None:
        for *_, folder in files:
            if folder is not None:
                plots.draw(run, folder)
        if not args.markdown and not args.name:
            print(tables.report(run))
    wrong = [] if run is None else runs.bad(run)
    for line in wrong:
        print(line, file=sys.stderr)
    if stopped:
        finished = 0 if run is None else sum(len(task["problems"]) for task in run["tasks"])
        print(f"Stopped by Ctrl-C; {finished} problems are finished.", file=sys.stderr)
        return 130
    return 1 if wrong else 0


def _measured(
    chosen: Sequence[Task], settings: Settings, about: dict[str, Any], files: Sequence[Files], old: list[Path]
) -> tuple[dict[str, Any] | None, bool]:
    """Run the tasks and write the run after each; return what is finished, and whether Ctrl-C stopped it.

    The files `old`, which belong to a run that is overwritten, are removed once there is something in its place.
    """
    run, results = None, list[TaskResult]()
    with interrupt.Interrupt() as asked:
        settings = dataclasses.replace(settings, stopped=asked.stopped)
        for task in chosen:
            result = run_task(task, settings, _tell)
            if result.problems:
                results.append(result)
                about["load_average"]["end"] = machine.load()
                run = runs.as_json(about, settings, results)
                for data, text, _ in files:  # after each task: a run that is killed keeps what it has
                    runs.write(run, data, text)
                while old:
                    old.pop().unlink()
            if asked.stopped():
                break
    return run, asked.stopped()


def _refusal(args: argparse.Namespace, given: Files, named: Files = (None, None, None)) -> str:
    """Return why a run may not write what it was asked to, if so."""
    for path in given:
        if path is not None and not path.absolute().parent.is_dir():
            return f"There is no folder {path.parent} to write {path.name} into."
    if args.name and Path(args.name).name != args.name:
        return f"{args.name} is no name of a run: it may not have folders in it."
    if not args.force and any(path is not None and path.exists() for path in named):
        return f"There is a run {args.name} of this machine already: take another name, or --force to overwrite it."
    return ""


def _summary(args: argparse.Namespace) -> int:
    run = runs.load(args.run)
    print(tables.report(run) if args.kind == "full" else pages.KINDS[args.kind](run, args.task), end="")
    return 0


def _plot(args: argparse.Namespace) -> int:
    for path in plots.draw(runs.load(args.run), args.folder):
        print(path)
    return 0


def _compare(args: argparse.Namespace) -> int:
    if not args.threshold > 0:
        print(f"--threshold is {args.threshold:g}; expected a number above 0, 0.05 for five percent.", file=sys.stderr)
        return 2
    return _told(runs.load(args.before), runs.load(args.after), args.threshold)


def _side_by_side(args: argparse.Namespace) -> int:
    if not (args.threshold > 0 and args.rounds > 0 and args.budget > 0):
        print("--threshold, --rounds and --budget: expected numbers above 0.", file=sys.stderr)
        return 2
    effort = side_by_side.Effort(args.rounds, args.budget, args.quick)
    try:
        before, after, wrong = side_by_side.measure(args.before, args.after, args.task or list(TASKS), effort, _tell)
    except side_by_side.CheckoutError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C; nothing is kept.", file=sys.stderr)
        return 130
    for path, run in zip(args.json or (), (before, after), strict=False):
        path.write_text(runs.json_text(run), encoding="utf-8")
    status = _told(before, after, args.threshold)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else status


def _told(before: dict[str, Any], after: dict[str, Any], threshold: float) -> int:
    """Print what changed between two runs, and return the exit status."""
    changes = compare.compare(before, after)
    print(compare.markdown(before, after, changes, threshold), end="")
    if not any(change.comparable for change in changes):
        why = "too few rounds" if changes else "no contestant of a problem was timed in both runs"
        print(f"Nothing could be compared: {why}.", file=sys.stderr)
        return 2
    return 1 if compare.regressions(changes, threshold) else 0


def _pages(args: argparse.Namespace) -> int:
    for path in args.pages:
        print(f"{path}: {'updated' if pages.renew(path) else 'unchanged'}")
    return 0


def _peak(args: argparse.Namespace) -> int:
    peers.CHOICE.only = args.contestant
    problem = TASKS[args.task].problems(args.quick)[args.problem]()
    wanted = next(c for c in problem.contestants if c.name == args.contestant)
    if wanted.run is None:
        print(f"{wanted.name} is absent: {wanted.note}", file=sys.stderr)
        return 1
    with extension_threads(1), wanted.context():
        print(memory.growth(wanted.run))
    return 0


COMMANDS = {
    "list": _list,
    "run": _run,
    "summary": _summary,
    "plot": _plot,
    "compare": _compare,
    "side-by-side": _side_by_side,
    "pages": _pages,
    "peak": _peak,
}
