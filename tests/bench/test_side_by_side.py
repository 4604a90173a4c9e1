"""Two checkouts in the same rounds."""

import json
import os
import sys
from pathlib import Path

import pytest
from checkout import ROOT

import hesskern as hk
from bench import cli, side_by_side

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="the checkouts of these tests have a shell script for Python"
)

#: Where the hesskern is that is tested.
PACKAGES = str(Path(hk.__file__).parents[1])
#: Makes every product with a Hessian of one checkout slower.
SLOWER = """
import time, hesskern.linalg.symmetric_operator as module
product = module.CurvatureOperator.__matmul__
def slow(self, v):
    time.sleep(0.0002)
    return product(self, v)
module.CurvatureOperator.__matmul__ = slow
"""


def checkout(folder, start=""):
    """A folder like a checkout with its .venv; `start`: what its Python runs first."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "bench").symlink_to(ROOT / "bench")
    first = f"import runpy, sys\nsys.path.insert(0, {PACKAGES!r})\n{start}\n"
    then = "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    (folder / "before.py").write_text(first + then)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder / "before.py"}" "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.mark.long
def test_what_became_slower_is_found(tmp_path, capsys):
    same, slow = checkout(tmp_path / "same"), checkout(tmp_path / "slow", SLOWER)
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    arguments = ["--task", "hvp", "--quick", "--rounds", "12", "--budget", "1000", "--json", *files]
    assert cli.main(["side-by-side", str(same), str(slow), *arguments]) == 1
    told = capsys.readouterr().out
    assert "**slower**" in told and "of ours 0 became slower" not in told
    problems = [json.loads(Path(name).read_text())["tasks"][0]["problems"][0] for name in files]
    times = [problem["contestants"][0]["seconds"] for problem in problems]
    assert [len(own) for own in times] == [12, 12] and min(times[1]) > 0.0002 > min(times[0]) > 0


#: Makes every product with a Hessian of one checkout wrong.
WRONG = SLOWER.replace("time.sleep(0.0002)", "return 0 * product(self, v)")


@pytest.mark.long
def test_what_became_wrong_is_found(tmp_path, capsys):
    same, wrong = checkout(tmp_path / "same"), checkout(tmp_path / "wrong", WRONG)
    assert cli.main(["side-by-side", str(same), str(wrong), "--task", "hvp", "--quick", "--rounds", "2"]) != 0
    told = capsys.readouterr().err
    assert f"hesskern of {wrong}: relative error" in told and f"hesskern of {same}" not in told


def test_ctrl_c_ends_it_in_one_sentence(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "_problems", interrupted)
    both = str(checkout(tmp_path / "both"))
    assert cli.main(["side-by-side", both, both, "--task", "hvp", "--quick"]) == 130
    assert "Stopped by Ctrl-C" in capsys.readouterr().err


def test_a_python_that_does_not_start_is_named(tmp_path, capsys):
    broken = checkout(tmp_path / "broken")
    (broken / ".venv" / "bin" / "python").chmod(0o644)
    assert cli.main(["side-by-side", str(broken), str(broken)]) == 2
    assert "cannot be started" in capsys.readouterr().err
    ended = checkout(tmp_path / "ended", "raise SystemExit(3)")
    assert cli.main(["side-by-side", str(ended), str(ended), "--task", "hvp", "--quick"]) == 2
    assert "ended at" in capsys.readouterr().err


def test_what_is_no_checkout_is_refused(tmp_path, capsys):
    assert cli.main(["side-by-side", str(tmp_path), str(ROOT)]) == 2
    assert "has no .venv: run `make install` there first" in capsys.readouterr().err
    assert cli.main(["side-by-side", str(tmp_path), str(ROOT), "--rounds", "0"]) == 2


def test_a_process_that_ends_is_named(tmp_path):
    broken = checkout(tmp_path / "broken", "raise SystemExit(3)")
    with side_by_side.Checkout(broken) as process, pytest.raises(side_by_side.CheckoutError, match="ended at"):
        process.ask(task="hvp", problem=0, quick=True)
