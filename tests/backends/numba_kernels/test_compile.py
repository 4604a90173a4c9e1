"""What is compiled is kept, and whatever happens to the files it is kept in, results are right and nothing stops."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from children import child_environment
from looped import few_quick
from numba_cache import SCRIPT, files, outcome, run

pytest.importorskip("numba")


def test_compiled_once_for_all_processes(tmp_path):
    assert outcome(run(tmp_path)) == [0, []]
    assert len(files(tmp_path)) == 3
    assert outcome(run(tmp_path)) == [3, []]
    assert outcome(run(tmp_path, "float32")) == [1, []]  # the layout does not depend on it
    assert len(files(tmp_path)) == 5
    assert not list(tmp_path.rglob("*.partial"))


SPOILED = [("empty", "changed", "folder"), ("empty", "short", "changed"), ("text", "text", "folder")]


@pytest.mark.parametrize("spoiled", few_quick([pytest.param(each) for each in SPOILED], 0))
def test_broken_files_are_compiled_again(tmp_path, spoiled):
    """Each of the three in its own way."""
    outcome(run(tmp_path))
    for path, spoil in zip(files(tmp_path), spoiled, strict=True):
        content = path.read_bytes()
        path.unlink()
        if spoil == "folder":
            path.mkdir()
        else:
            middle = len(content) // 2
            path.write_bytes(
                {
                    "empty": b"",
                    "short": content[:middle],
                    "changed": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
                    "text": b"no compiled code",
                }[spoil]
            )
    hits, warned = outcome(run(tmp_path))
    assert hits == 0
    assert bool(warned) == ("folder" in spoiled)
    assert outcome(run(tmp_path))[0] == (2 if "folder" in spoiled else 3)


@pytest.mark.parametrize("times", few_quick([1, 2], 0))
def test_processes_that_compile_at_once(tmp_path, times):
    """Two precisions of the same functions, once or twice each: nobody gets the other's code, nothing is lost."""
    environment = child_environment(NUMBA_CACHE_DIR=str(tmp_path))
    kinds = ["float64", "float32"] * times
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, kind], env=environment, stdout=subprocess.PIPE, text=True)
        for kind in kinds
    ]
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert json.loads(output)[1] == []
    assert len(files(tmp_path)) == 5
    assert outcome(run(tmp_path)) == outcome(run(tmp_path, "float32")) == [3, []]


def test_a_cache_that_cannot_be_written(tmp_path):
    """A file stands where the folder should be, so that root cannot write there either."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    script = SCRIPT.replace(
        "from hesskern.backends.numba_kernels import layout",
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]\n"
        "from hesskern.backends.numba_kernels import layout",
    )
    hits, warned = outcome(run(blocked, script=script))
    assert hits == 0
    assert len(warned) == 1
    assert "set NUMBA_CACHE_DIR to a folder that only you can write to" in warned[0]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(tmp_path):
    outcome(run(tmp_path))
    for folder in [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert outcome(run(tmp_path, "float32"))[0] <= 1
    finally:
        for folder in [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]:
            folder.chmod(stat.S_IRWXU)


def test_nothing_that_runs_in_parallel_is_kept():
    """Numba's cache of parallel functions is known to be unsafe: the package has none of them."""
    import hesskern.numba

    for path in Path(hesskern.numba.__file__).parent.glob("*.py"):
        assert "parallel=True" not in path.read_text()


def test_functions_as_arguments_are_not_kept(tmp_path):
    script = """
import numba, numpy as np, sys
from hesskern.backends.numba_kernels.compile import jit
@jit
def call(function, x):
    return function(x)
@numba.njit
def double(x):
    return 2 * x
assert call(double, 2.0) == 4.0
"""
    path = tmp_path / "module.py"
    path.write_text(script)
    done = run(tmp_path / "cache", script=f"import runpy; runpy.run_path({str(path)!r})")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == []


def test_numba_is_loaded_by_those_only_who_ask(python):
    done = python("import sys, hesskern as hk; assert 'numba' not in sys.modules; hk.fit; hk.use_backend('numba'); "
                  "assert 'numba' in sys.modules")  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["import hesskern.numba", "hk.use_backend('numba')"])
def test_without_numba_it_says_what_to_install(python, name):
    done = python(f"import sys, hesskern as hk\nsys.modules['numba'] = None\n{name}")
    assert done.returncode == 1
    assert 'pip install "hesskern[numba]"' in done.stderr.splitlines()[-1]
