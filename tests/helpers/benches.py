"""What the tests of the benchmarks share; a checkout without bench/ skips them."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

import hesskern

if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("these tests were copied without the benchmarks", allow_module_level=True)
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from bench import cli, contest, outcomes, runner, runs


def bench(*arguments, module="bench"):
    """Run the command line in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(hesskern.__file__).parents[1]), str(ROOT)])}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def here(*arguments):
    """Run the command line in this process, for what needs none of its own: starting one takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:  # of argparse
            code = ended.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def contestant(name, run, **more):
    return contest.Contestant(name=name, run=run, **more)


def problem_of(*contestants, **more):
    """A problem whose right result is 1."""
    return contest.TimedProblem(
        label="p", contestants=contestants, error=lambda result: abs(result - 1.0), tolerance=1e-12, **more
    )


def fake_machine():
    words = dict.fromkeys(("cpu", "isa", "system", "python", "hesskern"), "some")
    numbers = {"cores": 1, "memory_gib": 1, "load_average": {"start": 0.0, "end": 0.0}, "gpu": None}
    return words | numbers | {"libraries": {"numpy": "1"}, "revision": None, "blas": [], "torch_threads": None}


def as_run(*results):
    """Problems' results as the run that a file would hold."""
    return runs.as_json(fake_machine(), runner.Settings(), [outcomes.TaskResult("t", "about", list(results), [])])
