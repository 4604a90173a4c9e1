"""The command `hesskern validate`."""

import json
import re
import sys

import numpy as np
import problems
import pytest

from hesskern.cli import main as cli

pytest.importorskip("torch")

from hesskern.backends.numpy_backend import ReferenceBackend
from hesskern.validation import validator


@pytest.fixture
def files(tmp_path):
    problem = problems.normal([3, 4, 2], 6, bias=True)
    problem.network().save(tmp_path / "net.npz")
    np.save(tmp_path / "X.npy", problem.X)
    np.savetxt(tmp_path / "Y.csv", problem.Y, delimiter=",")
    return ["--net", f"{tmp_path}/net.npz", "--X", f"{tmp_path}/X.npy", "--Y", f"{tmp_path}/Y.csv"]


def refused(capsys):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hesskern: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def test_on_files(files, capsys):
    assert cli.main(["validate", *files, "--kind", "mean", "--weight-decay", "0.1"]) == 0
    out, err = capsys.readouterr()
    assert "3-4-2, biases, N = 6, mean, weight decay 0.1, float64" in out and "everything agrees" in out
    assert "gradient of 1.bias" in out and err == ""


def test_json(files, capsys):
    assert cli.main(["validate", *files, "--json", "--backend", "cpp", "--dense-size", "5"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert found["ok"] is True and {row["backend"] for row in found["rows"]} == {"cpp"}
    assert "3 directions" in {row["method"] for row in found["rows"]}


def test_built_in_networks_and_all_their_rows(capsys):
    assert cli.main(["validate", "--problem", "square", "--problem", "one sample"]) == 0
    short = capsys.readouterr().out
    assert "square: 4-4-4" in short
    assert re.search(r"gradient \((8|12)\)", short)  # four for each backend that is installed
    assert cli.main(["validate", "--problem", "square", "--problem", "one sample", "--rows"]) == 0
    assert capsys.readouterr().out.count("gradient of 0.weight") == 2


def test_disagreement_is_exit_code_1(files, capsys, monkeypatch):
    original = ReferenceBackend.forward
    monkeypatch.setattr(ReferenceBackend, "forward", lambda self, net, X: original(self, net, X) * 1.01)
    assert cli.main(["validate", *files]) == 1
    out, err = capsys.readouterr()
    assert "HESSKERN IS WRONG: prediction (backend numpy, whole)" in out
    assert "  hesskern and autograd differ by 1.0e-02" in out and "sample " in out
    assert err == "hesskern validate: 1 disagree, the first: prediction.\n"
    assert cli.main(["validate", *files, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_ctrl_c_shows_what_was_checked(files, capsys, monkeypatch):
    original, count = validator.row_of, []

    def interrupted(*arguments):
        count.append(1)
        if len(count) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(validator, "row_of", interrupted)
    assert cli.main(["validate", *files]) == 130
    out, err = capsys.readouterr()
    assert "Interrupted: 4 comparisons" in out and err == "hesskern: interrupted\n"


def test_without_torch(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["validate", *files]) == 2
    assert 'pip install "hesskern[torch]"' in refused(capsys)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--X", "X.npy"], "--X needs --net"),
        (["--kind", "sum"], "--kind needs --net"),
        (["--net", "nothing.npz", "--X", "X.npy"], "--net is given, but --Y is not"),
        (["--net", "nothing.npz", "--X", "X.npy", "--Y", "Y.npy"], "--net: cannot read 'nothing.npz': No such file"),
        (["--problem", "round"], "--problem is 'round'"),
        (["--backend", "fortran"], "--backend is 'fortran'"),
        (["--directions", "0"], "--directions is 0; expected at least 1"),
        (["--dense-size", "0"], "--dense-size is 0"),
        (["--seed", "-1"], "--seed is -1"),
    ],
)
def test_refused(capsys, changed, said):
    assert cli.main(["validate", *changed]) == 2
    assert said in refused(capsys)


def test_refused_with_files(files, capsys):
    assert cli.main(["validate", *files, "--problem", "square"]) == 2
    assert "--problem names built-in networks" in refused(capsys)
    assert cli.main(["validate", *files, "--weight-decay", "-1"]) == 2
    assert "--weight-decay is -1.0" in refused(capsys)
    assert cli.main(["validate", *files[:4], "--Y", files[3]]) == 2
    assert "--Y has shape (6, 3); expected (N, 2)" in refused(capsys)
