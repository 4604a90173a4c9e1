"""The command line: exit codes, one-sentence errors, JSON, closed pipes, Ctrl-C."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from hesskern import __version__
from hesskern.backends import host_names
from hesskern.cli import common
from hesskern.cli import main as cli
from hesskern.demo import case as demo
from hesskern.demo import results


@pytest.fixture(autouse=True)
def without_torch(monkeypatch):
    """Most of these tests are about the command, not about PyTorch, which takes seconds to load."""
    monkeypatch.setitem(sys.modules, "torch", None)


def hesskern(*arguments, **options):
    options = {"capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run([sys.executable, "-m", "hesskern", *arguments], check=False, **options)


def one_sentence(error):
    assert error.startswith("hesskern: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


def test_demo(capsys):
    assert cli.main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert "174.0739" in out and "5345.8106" in out and "agree" in out
    assert err == ""


@pytest.mark.parametrize("backend", host_names())
def test_demo_json_is_one_object(capsys, backend):
    assert cli.main(["demo", "--json", "--backend", backend]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert found["backend"] == backend and found["ok"] is True
    assert found["condition"]["value"] == pytest.approx(174.0739405, rel=1e-6)
    assert err == ""


def test_demo_json_and_plot_together(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert cli.main(["demo", "--json", "--plot", str(tmp_path / "demo.png")]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 608
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_with_torch(monkeypatch, capsys):
    monkeypatch.undo()  # PyTorch is wanted here
    pytest.importorskip("torch")
    assert cli.main(["demo"]) == 0
    assert capsys.readouterr().out.count("174.0739") == 3


def test_disagreement_is_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(results, "AGREE", 1e-18)  # nothing agrees to that: it stands in for a wrong number
    assert cli.main(["demo"]) == 1
    out, err = capsys.readouterr()
    assert "CHECKS FAILED" in out
    assert "hesskern demo: hesskern's condition number is 174.07394" in err


def test_missing_matplotlib_is_said_before_the_work(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(demo, "run", lambda *args, **options: pytest.fail("the work was started"))
    assert cli.main(["demo", "--plot", "demo.png"]) == 2
    assert 'pip install "hesskern[plot]"' in one_sentence(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("path", "said"),
    [("missing/demo.png", "No such file or directory"), ("demo.xyz", "suffix '.xyz'"), (".", "has no suffix")],
)
def test_bad_plot_path_is_said_before_the_work(monkeypatch, capsys, tmp_path, path, said):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(demo, "run", lambda *args, **options: pytest.fail("the work was started"))
    assert cli.main(["demo", "--plot", f"{tmp_path}/{path}"]) == 2
    error = one_sentence(capsys.readouterr().err)
    assert said in error and "--plot" in error and str(tmp_path) in error


def test_results_are_shown_although_the_picture_failed(monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    from hesskern import plot

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plot, "save_demo", full)
    assert cli.main(["demo", "--plot", str(tmp_path / "demo.png")]) == 2
    out, err = capsys.readouterr()
    assert "174.0739" in out
    assert "No space left on device" in one_sentence(err)


def test_unknown_backend(capsys):
    assert cli.main(["demo", "--backend", "fortran"]) == 2
    assert "--backend is 'fortran'; expected one of 'cpp'" in one_sentence(capsys.readouterr().err)


@pytest.mark.parametrize("command", ["demo", "info"])
def test_unknown_backend_in_the_environment(monkeypatch, capsys, command):
    monkeypatch.setenv("HESSKERN_BACKEND", "fortran")
    assert cli.main([command]) == 2
    assert "HESSKERN_BACKEND is 'fortran'" in one_sentence(capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [[], ["dmeo"], ["demo", "--frob"], ["demo", "--plot"], ["info", "more"]])
def test_usage_errors(capsys, arguments):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    command = f"hesskern {arguments[0]}" if arguments and arguments[0] != "dmeo" else "hesskern"
    assert out == "" and err.startswith("hesskern: ") and err.count("\n") == 1
    assert err.endswith(f"; {command} --help lists the options.\n")


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hesskern {__version__}\n"
    assert cli.main(["demo", "--help"]) == 0
    assert "--plot FILE" in capsys.readouterr().out


def test_info_json_is_info(capsys):
    from hesskern import info

    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == info()


def test_info_text_says_everything(capsys):
    from hesskern import info

    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    found = info()
    for part in (found["hesskern"], found["versions"]["numpy"], found["isa"], found["platform"]):
        assert part in out
    assert "{" not in out and "None" not in out


def test_info_names_what_is_not_there():
    text = cli._table({"versions": {"torch": None}, "blas": [], "gpu": None, "isa": "avx2"})
    assert [line.split(maxsplit=1)[1:] for line in text.splitlines()] == [["not installed"], [], ["none"], ["avx2"]]


def test_python_m():
    done = hesskern("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hesskern {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"], ["--help"]])
def test_closed_pipe(arguments):
    read, write = os.pipe()
    os.close(read)
    try:
        done = hesskern(*arguments, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert done.stderr == ""
    if arguments != ["--help"]:  # argparse keeps a failed write to itself where stdout is unbuffered
        assert done.returncode == cli.UNREAD


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_full_disk():
    with open("/dev/full", "w") as full:
        done = hesskern("info", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert "No space left on device" in one_sentence(done.stderr)


def test_ctrl_c_is_130(monkeypatch, capsys):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr() == ("", "hesskern: interrupted\n")


ENDLESS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it from the start
sys.modules["torch"] = None
from hesskern.cli import main as cli
from hesskern.demo import case as demo
fit = demo.fit
def endless(*args, **options):
    print("training", flush=True)
    return fit(*args, **options | {"rtol": 0.0, "lr": 1e-9, "max_steps": 10**12, "record_every": 10**6})
demo.fit = endless
sys.exit(cli.main(["demo"]))
"""


def test_ctrl_c_while_the_kernel_trains():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", ENDLESS], **pipes) as process:
        try:
            assert process.stdout.readline() == "training\n"
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            # The kernel returns every 0.1 s; alone it would train for days.
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "hesskern: interrupted\n")


def test_progress_goes_to_a_terminal_only(capsys, monkeypatch):
    common.say("loading PyTorch")
    assert capsys.readouterr().err == ""
    terminal, other = pty.openpty()
    with os.fdopen(other, "w") as stderr:
        monkeypatch.setattr(common, "sys", SimpleNamespace(stderr=stderr))
        common.say("loading PyTorch")
        assert os.read(terminal, 100) == b"hesskern: loading PyTorch ...\r\n"
    os.close(terminal)


@pytest.mark.parametrize(
    "module", ["hesskern._core", "numpy.linalg", "hesskern.losses.squared", "hesskern.cli.main", "argparse"]
)
def test_ctrl_c_while_the_command_imports(module):
    """As the console script does it, with Ctrl-C at the moment when this module is looked for."""
    script = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background, where it is ignored
sys.argv = ["/somewhere/bin/hesskern", "info"]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and "hesskern" in sys.modules:
            signal.raise_signal(signal.SIGINT)
for name in ({module!r},):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Finder())
from hesskern.cli.main import main
sys.exit(main())
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "hesskern: interrupted\n")
