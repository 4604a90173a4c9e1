"""The whole of the benchmark on a graphics card: validates, runs its tests, times, and writes all into one folder."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import machine, peers, plots, runs
from bench.contest import TimedProblem
from bench.cuda import assembly, device, ensembles, products, training
from bench.cuda.device import Device
from bench.outcomes import ProblemResult, TaskResult
from bench.runner import Settings, run_task
from bench.task import Task

ROOT = Path(__file__).parents[2]
MODULES = (assembly, products, ensembles, training)
#: Of ten minutes, for timing; building and the last problem to begin need what these leave.
TIMING = 240.0
VALIDATING = 120.0
TESTING = 120.0


@dataclass(frozen=True)
class OnDevice:
    """A module of this folder as a task."""

    module: ModuleType
    device: Device

    @property
    def NAME(self) -> str:  # noqa: N802  as the modules of bench.tasks have it
        return str(self.module.NAME)

    @property
    def SUMMARY(self) -> str:  # noqa: N802
        return str(self.module.SUMMARY)

    def problems(self, quick: bool) -> Sequence[Callable[[], TimedProblem]]:
        found: Sequence[Callable[[], TimedProblem]] = self.module.problems(self.device, quick)
        return found

    def notes(self, results: Sequence[ProblemResult]) -> list[str]:
        where = "the processor, in a dry run: its times say nothing of a card" if self.device.dry else "CUDA events"
        return [f"Timed by {where}."]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m bench.cuda", description=__doc__)
    default = Path(os.environ.get("OUT") or ROOT / "build" / "bench-cuda")
    top.add_argument("--out", type=Path, default=default, help="the folder (default: $OUT, or build/bench-cuda)")
    top.add_argument("--dry-run", action="store_true", help="every path on the processor, at the smallest sizes")
    top.add_argument("--quick", action="store_true", help="the smallest sizes on the card")
    top.add_argument("--rounds", type=int, default=11)
    top.add_argument("--compile", action="store_true", help="torch.compile as well, which takes minutes")
    top.add_argument("--task", action="append", choices=[module.NAME for module in MODULES])
    top.add_argument("--only-times", action="store_true", help="neither validate nor run the tests")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all of it; the exit status is 1 if anything was wrong or failed, 2 without a device."""
    args = parser().parse_args(arguments)
    found = device.find(dry=args.dry_run)
    if isinstance(found, str):
        print(found, file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    failed = [] if args.only_times else _checks(args.out)
    peers.CHOICE.compiled = args.compile
    quick = args.quick or args.dry_run
    settings = Settings(
        rounds=2 if quick else args.rounds,
        least=0.0002 if quick else 0.005,
        budget=1.0 if quick else 2.0,
        quick=quick,
        peak=found.peak,
        timer=found.timer,
    )
    run = timed(found, settings, args.task or [module.NAME for module in MODULES], args.out)
    _tell("pictures")
    try:
        plots.draw(run, args.out)
    except ImportError as error:
        print(f"No pictures: {error}", file=sys.stderr)
    failed += runs.bad(run)
    print(*failed, f"Everything is in {args.out}.", sep="\n", file=sys.stderr)
    return 1 if failed else 0


def timed(found: Device, settings: Settings, names: Sequence[str], out: Path) -> dict[str, Any]:
    """Time the tasks, each until its share of the time is over; what is then left out is said.

    The run is written after each task: one that is cut off keeps what it has.
    """
    about, began, results = machine.describe(), time.monotonic(), list[TaskResult]()
    chosen = [module for module in MODULES if module.NAME in names]
    for k, module in enumerate(chosen, 1):
        _tell(f"timing {module.NAME}, task {k} of {len(chosen)}")
        task: Task = OnDevice(module, found)  # type: ignore[assignment]
        results.append(run_task(task, settings, _tell, until=began + TIMING * k / len(chosen)))
        about["load_average"]["end"] = machine.load()
        run = runs.as_json(about, settings, results)
        runs.write(run, out / "run.json", out / "run.md")
    return run


def _checks(out: Path) -> list[str]:
    """Validate hesskern and run the tests of its CUDA backend; return what failed, and keep what they printed."""
    validate = [sys.executable, "-m", "hesskern", "validate"]
    failed = [checked("validate", validate, out, VALIDATING)]
    paths = [path for name in ("test_cuda*.py", "test_device*.py") for path in (ROOT / "tests").glob(name)]
    tests = sorted(path for path in paths if "bench" not in path.name)
    if tests:
        failed.append(checked("tests", [sys.executable, "-m", "pytest", "-q", *map(str, tests)], out, TESTING))
    else:
        _tell("tests: this checkout has none of a CUDA backend")
    return [line for line in failed if line]


def checked(name: str, command: Sequence[str], out: Path, limit: float) -> str:
    """Run a command for so many seconds at most, its output in a file; return what failed, or nothing."""
    path = out / f"{name}.txt"
    _tell(f"{name}: at most {limit:.0f} s")
    with path.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=out, start_new_session=True)
        try:
            status = child.wait(limit)
        except BaseException as error:  # what the command started must not run on beside the timing
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = None
    words = "passed" if status == 0 else "failed" if status is not None else f"cut off after {limit:.0f} s"
    _tell(f"{name}: {words}, see {path.name}")
    last = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return "" if status == 0 else f"{name} {words}: {last}"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
