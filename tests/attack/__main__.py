"""Attack hesskern; see docs/attack.md."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import shared_folder

from attack import driver, groups
from attack.driver import Tally

#: Failures of one method, and of one group, that are printed; all are counted, and in the file of --json.
_SHOWN, _SHOWN_OF_GROUP = 5, 30


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign or single cases; the exit code is 1 where anything was wrong."""
    options = _parser().parse_args(arguments)
    folder = shared_folder.begin()
    try:
        return _run(options)
    finally:
        if folder is not None:
            shared_folder.end(folder)


def _run(options: argparse.Namespace) -> int:
    if options.case:
        return _cases(options)
    known = groups.available()
    names = options.group or list(known)
    wanted = {name: known[name].per_minute for name in names}
    seconds: float | None = options.seconds
    if options.count:
        wanted = {name: int(count) for name, count in (each.split("=") for each in options.count)}
        seconds = None
    elif options.seed is not None:
        wanted = {name: max(1, round(count * options.seconds / 60)) for name, count in wanted.items()}
        seconds = None
    seed = secrets.randbelow(10**6) + 1000 if options.seed is None else options.seed
    print(f"attack: seed {seed}, groups {', '.join(wanted)}", flush=True)
    if "numba" not in os.environ.get("ATTACK_WITHOUT", ""):
        driver.warm_up([name for name in wanted if name in ("problem", "fit", "softmax", "jitted")])
    screen = _Screen()
    start = time.monotonic()
    try:
        tallies = driver.campaign(
            wanted,
            seed * 10**9,
            seconds=seconds,
            workers=options.workers,
            report=screen.wrong,
            progress=screen.progress,
        )
    except KeyboardInterrupt:
        tallies = screen.latest
    _summary(tallies, time.monotonic() - start)
    if options.json:
        Path(options.json).write_text(json.dumps(_as_json(tallies, seed, time.monotonic() - start), indent=1))
    return int(any(tally.wrong for tally in tallies.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m attack", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=60.0, help="time to spend; with --seed the cases of so much time")
    add("--seed", type=int, help="the same cases each time; default: new ones")
    add("--group", action="append", choices=list(groups.available()), help="this group only (may be repeated)")
    add("--count", action="append", metavar="GROUP=N", help="so many seeds of this group, whatever time it takes")
    add("--workers", type=int, default=2)
    add("--json", metavar="FILE", help="write all counts and failures there")
    add("--case", action="append", metavar="GROUP:SEED", help="one case again, in this process (may be repeated)")
    add("--backend", help="with --case: this backend instead of the one drawn")
    add("--everything", action="store_true", help="with --case: every method, not those drawn")
    return parser


def _cases(options: argparse.Namespace) -> int:
    wrong = 0
    for case in options.case:
        name, seed = case.split(":")
        judge = driver.run_case(name, int(seed), backend=options.backend, everything=options.everything)
        print(f"{case}: {'right' if not judge.wrong else 'WRONG'} ({', '.join(judge.tried) or 'nothing tried'})")
        for sentence in judge.wrong:
            print("  " + sentence)
        wrong += bool(judge.wrong)
    return int(wrong > 0)


class _Screen:
    """What is printed while the attack runs."""

    def __init__(self) -> None:
        self.latest: dict[str, Tally] = {}
        self._kinds: Counter[str] = Counter()
        self._last = time.monotonic()

    def wrong(self, name: str, seed: int, sentence: str) -> None:
        """Print a failure with the line that repeats it."""
        method, *_ = sentence.split(":", 1)
        for counted, most in ((f"{name} {method}", _SHOWN), (name, _SHOWN_OF_GROUP)):
            self._kinds[counted] += 1
            if self._kinds[counted] > most:
                return
        print(f"WRONG {name}:{seed} {sentence}")
        print(f'  again: make attack ATTACK_ARGS="--case {name}:{seed}"', flush=True)

    def progress(self, tallies: dict[str, Tally]) -> None:
        """Print counts every ten seconds."""
        self.latest = tallies
        if time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            counts = ", ".join(f"{name} {tally.cases}" for name, tally in tallies.items())
            print(f"  {counts}; wrong: {sum(tally.wrong for tally in tallies.values())}", flush=True)


def _summary(tallies: dict[str, Tally], seconds: float) -> None:
    print(f"\n{'group':12} {'cases':>9} {'wrong':>7} {'ms each':>8}  largest normalised residual")
    for name, tally in tallies.items():
        worst = max(tally.worst.items(), key=lambda item: item[1], default=("", 0.0))
        each = 1e3 * tally.seconds / max(1, tally.cases)
        print(f"{name:12} {tally.cases:9} {tally.wrong:7} {each:8.2f}  {worst[1]:.2g} {worst[0]}")
    counts = ", ".join(f"{tally.cases} {groups.GROUPS[name].what}" for name, tally in tallies.items())
    wrong = sum(tally.wrong for tally in tallies.values())
    print(f"{counts} in {seconds:.0f} s: {wrong or 'nothing'} wrong")


def _as_json(tallies: dict[str, Tally], seed: int, seconds: float) -> dict[str, Any]:
    return {
        "seed": seed,
        "seconds": seconds,
        "groups": {
            name: {
                "cases": tally.cases, "wrong": tally.wrong, "cpu_seconds": tally.seconds,
                "tried": dict(sorted(tally.tried.items())), "worst": dict(sorted(tally.worst.items())),
                "sentences": [[f"{name}:{seed}", sentence] for seed, sentence in tally.sentences],
            }
            for name, tally in tallies.items()
        },
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
