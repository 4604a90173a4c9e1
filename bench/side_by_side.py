"""Two checkouts against each other, in rounds: what became slower or faster from one to the other.

`bench.compare` reads two runs, and a machine that was busier during the second looks like slower code. Here a process
of each checkout has the same problem, and every round times both, the second first in every other round.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from bench import machine
from bench.pinned import PINNED
from bench.tasks import TASKS

WORKER = Path(__file__).with_name("worker.py")


class CheckoutError(Exception):
    """A checkout cannot be used; the message says why."""


class Effort(NamedTuple):
    """How thoroughly to measure."""

    rounds: int
    budget: float  # seconds for one problem, after at least eight rounds
    quick: bool = False


#: With fewer rounds the test of `bench.compare` cannot tell anything.
_LEAST = 8


class Checkout:
    """A process that times one checkout, with the Python of its ``.venv``."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        python = self.root / ".venv" / "bin" / "python"
        if not python.exists():
            raise CheckoutError(f"{root} has no .venv: run `make install` there first.")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= dict.fromkeys(PINNED, "1") | {"PYTHONSAFEPATH": "1"}
        try:
            self._process = subprocess.Popen(
                [python, WORKER, self.root],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=self.root,
            )
        except OSError as error:
            raise CheckoutError(f"{python} cannot be started: {error.strerror}.") from error

    def __enter__(self) -> Checkout:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        if error is not None:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # without input it ends
        self._process.stdout.close()
        self._process.wait()

    def ask(self, **request: object) -> Any:
        """Return the answer to one request; see `bench.worker`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise CheckoutError(f"the process of {self.root} ended at {request}; what it printed is above.")
        return json.loads(answer)

    def revision(self) -> str:
        """Return the revision, "unknown" outside a repository."""
        done = subprocess.run(
            ["git", "-C", self.root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or "unknown"


def measure(
    before: Path, after: Path, tasks: list[str], effort: Effort, tell: Callable[[str], object]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return two runs, as `bench.compare.compare` takes them: hesskern's own contestants, timed in the same rounds.

    Third are the contestants whose results are wrong in one of the checkouts, in words; they are not timed.
    """
    wrong: list[str] = []
    with Checkout(before) as first, Checkout(after) as second:
        pair = first, second
        runs: list[dict[str, Any]] = [
            {"machine": machine.describe() | {"revision": own.revision()}, "settings": effort._asdict(), "tasks": []}
            for own in pair
        ]
        for task in tasks:
            measured = list(_problems(task, pair, effort, tell, wrong))
            for which, run in enumerate(runs):
                problems = [problem[which] for problem in measured]
                run["tasks"].append({"name": task, "about": TASKS[task].SUMMARY, "notes": [], "problems": problems})
        for run in runs:
            run["machine"]["load_average"]["end"] = machine.load()
    return runs[0], runs[1], wrong


def _problems(
    task: str, pair: tuple[Checkout, Checkout], effort: Effort, tell: Callable[[str], object], wrong: list[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each problem that both checkouts have, as each of them has timed it."""
    number = 0
    while True:
        made = [checkout.ask(task=task, problem=number, quick=effort.quick) for checkout in pair]
        if None in made:
            return
        number += 1
        if made[0]["label"] != made[1]["label"]:
            tell(f"{task}: {made[0]['label']} before is {made[1]['label']} after; not compared")
            continue
        tell(f"{task}: {made[0]['label']}")
        for checkout, answer in zip(pair, made, strict=True):
            wrong += [
                f"{task}: {answer['label']}: {name} of {checkout.root}: {why}" for name, why in answer["wrong"].items()
            ]
        calls = {name: min(count, made[1]["calls"].get(name, 0)) for name, count in made[0]["calls"].items()}
        names = [name for name in calls if calls[name]]
        seconds: list[dict[str, list[float]]] = [{name: [] for name in names} for _ in pair]
        began = time.perf_counter()
        for k in range(effort.rounds):
            if k >= _LEAST and time.perf_counter() - began > effort.budget:
                break
            for name in names:
                for which in (0, 1) if k % 2 else (1, 0):
                    seconds[which][name].append(pair[which].ask(contestant=name, calls=calls[name]))
        yield _timed(made[0]["label"], seconds[0]), _timed(made[0]["label"], seconds[1])


def _timed(label: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    contestants = [{"name": name, "role": "ours", "status": "timed", "seconds": own} for name, own in seconds.items()]
    return {"label": label, "contestants": contestants}
