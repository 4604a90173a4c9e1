"""What becomes of a benchmark run that is stopped, or whose files are there already."""

import ctypes
import os
import signal
import subprocess
import sys

import benches
import pytest
from looped import few_quick

ROOT = benches.ROOT

from bench import cli, runner, runs  # noqa: E402
from bench.tasks import TASKS  # noqa: E402

contestant, problem_of = benches.contestant, benches.problem_of


class Fake:
    """A task of two problems; the second one's contestant has Ctrl-C pressed at its call number `pressed`."""

    NAME, SUMMARY = "fake", "about"
    notes = staticmethod(lambda results: [])

    def __init__(self, pressed, then=lambda: 1.0):
        self.calls, self.pressed, self.then = 0, pressed, then

    def press(self):
        self.calls += 1
        if self.calls == self.pressed:
            swallowing(lambda: signal.raise_signal(signal.SIGINT))
            return self.then()
        return 1.0

    def problems(self, quick):
        first = problem_of(contestant("hesskern", lambda: 1.0, role="ours"))
        second = problem_of(contestant("hesskern", self.press, role="ours"), contestant("other", lambda: 1.0))
        return [lambda: first, lambda: second]


def swallowing(job):
    """Run a job inside a callback of C, which ignores what is raised there."""
    ctypes.CFUNCTYPE(None)(job)()


def killed():
    raise subprocess.CalledProcessError(-2, "a process that Ctrl-C has reached too")


@pytest.mark.parametrize(
    ("pressed", "then"), few_quick([pytest.param(k, then) for k in (1, 2, 5) for then in (lambda: 1.0, killed)], 3)
)
def test_ctrl_c_keeps_what_is_finished(pressed, then, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(TASKS, "fake", Fake(pressed, then))
    before = signal.getsignal(signal.SIGINT)
    status = cli.main(["run", "--quick", "--task", "fake", "--json", str(tmp_path / "run.json")])
    assert status == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().err.endswith("Stopped by Ctrl-C; 1 problems are finished.\n")
    (found,) = runs.load(str(tmp_path / "run.json"))["tasks"]
    assert [len(problem["contestants"]) for problem in found["problems"]] == [1]


def run_fake(monkeypatch, *arguments):
    """Run the command in this process with a task of its own, which takes no time."""
    monkeypatch.setitem(TASKS, "fake", Fake(0))
    return cli.main(["run", "--quick", "--task", "fake", *map(str, arguments)])


def test_a_run_is_not_overwritten_unless_forced(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    assert run_fake(monkeypatch, "--name", "v0.1") == 0
    (data,) = tmp_path.glob("*/v0.1.json")
    data.write_text("mine")
    pictures = data.with_name("v0.1")
    pictures.mkdir(exist_ok=True)
    (pictures / "growth-old.png").write_text("old")
    capsys.readouterr()
    assert run_fake(monkeypatch, "--name", "v0.1") == 2
    assert capsys.readouterr().err == (
        "There is a run v0.1 of this machine already: take another name, or --force to overwrite it.\n"
    )
    assert data.read_text() == "mine"
    assert (pictures / "growth-old.png").exists()
    assert run_fake(monkeypatch, "--name", "v0.1", "--force") == 0
    assert runs.load("v0.1")["tasks"]
    assert not (pictures / "growth-old.png").exists()
    assert run_fake(monkeypatch, "--name", "../other") == 2


@pytest.mark.parametrize("option", ["--json", "--markdown", "--plots"])
def test_folders_are_not_made_for_files(option, monkeypatch, tmp_path, capsys):
    assert run_fake(monkeypatch, option, tmp_path / "nope" / "x.json") == 2
    assert capsys.readouterr().err == f"There is no folder {tmp_path / 'nope'} to write x.json into.\n"
    assert not (tmp_path / "nope").exists()


@pytest.mark.parametrize("option", [["--plots", "pictures"], ["--name", "v0.1"]])
def test_pictures_without_matplotlib_are_refused_before_anything_runs(option, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(cli, "_measured", lambda *_: pytest.fail("it was measured"))
    assert run_fake(monkeypatch, *option) == 2
    said = capsys.readouterr().err
    assert said.startswith("Pictures need Matplotlib (") and 'pip install ".[plot]"' in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    runs.write(benches.as_run(), tmp_path / "run.json", None)
    assert cli.main(["plot", str(tmp_path / "run.json"), str(tmp_path / "pictures")]) == 2
    assert capsys.readouterr().err.startswith("Pictures need Matplotlib (")


def test_what_fails_by_itself_is_no_ctrl_c(monkeypatch):
    fake = Fake(0)
    monkeypatch.setattr(fake, "problems", lambda quick: [killed])
    with pytest.raises(subprocess.CalledProcessError):
        runner.run_task(fake, runner.QUICK, print)


def test_a_second_ctrl_c_kills():
    script = (
        "import os, signal\nfrom bench.interrupt import Interrupt\n"
        "with Interrupt() as asked:\n    os.kill(os.getpid(), signal.SIGINT)\n    assert asked.stopped()\n"
        "    print('goes on', flush=True)\n    os.kill(os.getpid(), signal.SIGINT)\n    print('never')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"})  # fmt: skip
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "goes on\n")
    assert done.stderr == "Stopping after what runs now; Ctrl-C again kills at once.\n"
