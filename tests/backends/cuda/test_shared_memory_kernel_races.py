"""The training kernel under the thread sanitizer: its barriers are real ones between the system's threads."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from checkout import HELPERS, ROOT

SOURCES = ROOT / "csrc" / "cuda"


def run(sources, folder):
    """Compile the kernel from a folder with the sanitizer, and run it; the process, or None where there is none."""
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH to compile the GPU's kernels for the host")
    program = folder / "races"
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-fsanitize=thread", "-pthread", f"-I{sources}"]
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    made = subprocess.run([compiler, *flags, HELPERS / "cuda_races.cpp", "-o", program], env=environment, check=False)
    if made.returncode:
        pytest.skip("the compiler has no thread sanitizer")
    return subprocess.run([program], capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.mark.long
def test_no_race(tmp_path):
    done = run(SOURCES, tmp_path)
    assert done.returncode == 0, done.stderr[:2000]
    assert len(done.stdout.split()) == 2


@pytest.mark.long
def test_a_missing_barrier_is_found(tmp_path):
    for name in ("common.cuh", "training.cuh"):
        shutil.copy(SOURCES / name, tmp_path)
    shutil.copy(SOURCES / "assembly.cuh", tmp_path)
    whole = (tmp_path / "training.cuh").read_text()
    before, barrier, after = whole.rpartition("        me.sync();\n")
    assert barrier
    (tmp_path / "training.cuh").write_text(before + after)
    assert "data race" in run(tmp_path, tmp_path).stderr
