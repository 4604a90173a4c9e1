"""Peak memory in processes of their own: allocators keep what they were given, so this process shows nothing."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import hesskern as hk

# A small process in between: on Linux a new program inherits the peak of the one that started it, here the benchmark's.
LAUNCHER = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
# glibc gives back what is freed only if it lies at the end of its memory, or was more than this; the second number
# grows by itself unless it is set.
GIVES_BACK = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
ROOT = Path(__file__).parents[1]


def peak_bytes(script: str) -> int | None:
    """Return the largest resident size of a Python process that runs a script; None where the system does not tell."""
    if importlib.util.find_spec("resource") is None:
        return None
    environment = os.environ | {"PYTHONPATH": str(Path(hk.__file__).parents[1])}
    command = [sys.executable, "-c", LAUNCHER, script]
    done = subprocess.run(
        command, env=environment, cwd=tempfile.gettempdir(), check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)  # kibibytes everywhere else


def peak_of(task: str, problem: int, contestant: str, *, quick: bool) -> int | None:
    """Return what the first call of a contestant adds to a process of its own; None where it cannot be told."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    paths = [str(Path(hk.__file__).parents[1]), str(ROOT)]
    environment = os.environ | GIVES_BACK | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "bench", "peak", "--task", task, "--problem", str(problem), contestant]
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])], env=environment, cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return int(done.stdout.split()[-1]) if done.returncode == 0 else None


def growth(run: Callable[[], object]) -> int:
    """Return how far the resident size of this process rises above where it is now while a job runs (Linux)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is resident
    before = _status("VmRSS")
    result = run()
    peak = _status("VmHWM")
    del result
    return max(0, peak - before)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
