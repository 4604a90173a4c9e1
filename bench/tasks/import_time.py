"""What ``import hesskern`` costs: whole processes, so that nothing is loaded already."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import hesskern as hk
from bench.contest import Contestant, Target, TimedProblem
from bench.outcomes import ProblemResult

NAME = "import_time"
SUMMARY = "A Python process that imports hesskern and ends; it must not load torch or numba."


def process(statement: str) -> Callable[[], int]:
    """Return a function that runs a statement in a new process and returns its exit status."""
    # The hesskern that is measured here, wherever this process found it; no sources from the current folder.
    environment = os.environ | {"PYTHONPATH": str(Path(hk.__file__).parents[1])}
    command = [sys.executable, "-c", statement]

    def run() -> int:
        return subprocess.run(command, env=environment, cwd=tempfile.gettempdir(), check=False).returncode

    return run


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [_problem]


def _problem() -> TimedProblem:
    ours = "import sys, hesskern; sys.exit(bool({'torch', 'numba'} & set(sys.modules)))"
    return TimedProblem(
        label="one process",
        contestants=[
            Contestant(name="hesskern", run=process(ours), role="ours", note="import hesskern, checks sys.modules"),
            Contestant(name="numpy", run=process("import numpy"), note="import numpy alone"),
            Contestant(
                name="hesskern, with its BLAS",
                run=process("import hesskern; hesskern.backends.get('cpp')"),
                note="and the cpp backend loaded, which takes its BLAS from scipy.linalg: what the first use costs",
            ),
            Contestant(
                name="floor: python", run=process("pass"), role="floor", note="an interpreter that does nothing"
            ),
        ],
        error=lambda status: float(status != 0),
        tolerance=0.0,
        targets=[Target(contestant="hesskern", kind="seconds", bound=0.3)],
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
