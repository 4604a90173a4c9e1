"""The command line: ``python -m bench list``, ``run`` and ``summary``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import machine, report, summary
from bench.runner import QUICK, Settings, run_tasks
from bench.tasks import TASKS


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m bench", description=sys.modules["bench"].__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the tasks and what each measures")
    run = commands.add_parser("run", help="check, time and judge")
    run.add_argument("--task", action="append", choices=sorted(TASKS), help="run this task only (may be repeated)")
    run.add_argument("--quick", action="store_true", help="smallest sizes, two rounds: seconds, to see that all works")
    run.add_argument("--rounds", type=int, help=f"interleaved rounds (default {Settings().rounds})")
    run.add_argument("--json", type=Path, metavar="FILE", help="write every measurement with the machine")
    run.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file instead of the screen")
    show = commands.add_parser("summary", help="one short table a task, from the JSON of a run")
    show.add_argument("file", type=Path)
    show.add_argument("--task", action="append", choices=sorted(TASKS), help="this task only (may be repeated)")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 1 if a contestant was wrong or failed (a missed target is only reported)."""
    args = parser().parse_args(arguments)
    if args.command == "list":
        for name, task in TASKS.items():
            print(f"{name:20} {task.SUMMARY}")
        return 0
    if args.command == "summary":
        print(summary.markdown(json.loads(args.file.read_text()), args.task or ()), end="")
        return 0
    settings = QUICK if args.quick else Settings()
    if args.rounds is not None:
        if args.rounds < 1:
            parser().error(f"--rounds is {args.rounds}; expected at least 1")
        settings = dataclasses.replace(settings, rounds=args.rounds)
    about = machine.describe()
    chosen = [TASKS[name] for name in args.task or TASKS]
    results = run_tasks(chosen, settings, lambda line: print(line, file=sys.stderr, flush=True))
    about["load_average"]["end"] = machine.load()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(report.json_text(report.as_json(about, settings, results)))
    tables = report.markdown(about, settings, results)
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(tables)
    else:
        print(tables)
    bad = [o for t in results for p in t.problems for o in p.outcomes if o.status in ("wrong", "failed")]
    for outcome in bad:
        print(f"{outcome.contestant.name} {outcome.status}: {outcome.reason}", file=sys.stderr)
    return 1 if bad else 0
