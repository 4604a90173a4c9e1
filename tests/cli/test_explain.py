"""The command ``hesskern explain``: files in, words or JSON out, exit codes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import hesskern as hk
from hesskern.cli import main as cli


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A network, data and a wrong Hessian in every format; the command runs there."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    net = hk.LinearNetwork.random([4, 5, 3], seed=3, bias=True)
    X, Y = rng.standard_normal((9, 4)), rng.standard_normal((9, 3))
    H = hk.SquaredLoss(X, Y, "mean").hessian(net).toarray()
    net.save("net.npz")
    hk.LinearNetwork.random([4, 5, 3], seed=4, bias=True).save("other.npz")
    for name, array in (("X", X), ("Y", Y), ("H", H), ("wrong", 2 * H), ("values", np.linalg.eigvalsh(2 * H))):
        np.save(f"{name}.npy", array)
        np.savez(f"{name}.npz", array)
        np.savetxt(f"{name}.txt", array, fmt="%.17g")
        np.savetxt(f"{name}.csv", array, fmt="%.17g", delimiter=",")
    return tmp_path


def run(capsys, candidate, *options, files=("--net", "net.npz", "--X", "X.npy", "--Y", "Y.npy", "--kind", "mean")):
    code = cli.main(["explain", candidate, *files, *options])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("suffix", ["npy", "npz", "txt", "csv"])
@pytest.mark.parametrize(("name", "code"), [("H", 0), ("wrong", 1), ("values", 1)])
def test_every_format(folder, capsys, name, code, suffix):
    found, out, err = run(capsys, f"{name}.{suffix}")
    assert (found, err) == (code, "")
    assert out.startswith("Explained: " if code else "Match: ")
    assert ("divide by 2" in out) == bool(code)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_tensor(folder, capsys, dtype):
    torch = pytest.importorskip("torch")
    torch.save(torch.tensor(np.load("wrong.npy")).to(getattr(torch, dtype)), "wrong.pt")
    code, out, _ = run(capsys, "wrong.pt", "--json")
    causes = [finding["cause"] for finding in json.loads(out)["findings"]]
    assert code == 1 and causes == ["scale[2]", *([] if dtype == "float64" else [f"{dtype}-stored"])]


def test_json_is_one_object(folder, capsys):
    code, out, _ = run(capsys, "wrong.npy", "--json")
    found = json.loads(out)
    assert (code, found["status"], found["findings"][0]["cause"]) == (1, "explained", "scale[2]")
    assert found["before"] == pytest.approx(0.5) and found["after"] < 1e-14 and found["unexplained"] is None


def test_unexplained_and_not_comparable(folder, capsys):
    np.save("noise.npy", np.random.default_rng(0).standard_normal((43, 43)))
    np.save("small.npy", np.eye(7))
    code, out, _ = run(capsys, "noise.npy", "--json")
    assert code == 2 and json.loads(out)["unexplained"]["error"] > 0.5
    code, out, _ = run(capsys, "small.npy")
    assert code == 3 and "sizes that would fit: 43 for W1, b1, W2 and b2" in " ".join(out.split())


def test_numbers_and_the_case(capsys):
    code, out, err = run(capsys, "5345.81", "--case", files=())
    assert (code, err) == (1, "") and "the data are transposed" in out and "174.0739" in out
    assert run(capsys, "174.07", "--case", files=())[0] == 0
    assert run(capsys, "-3.25e2", "--case", files=("--quantity", "condition"))[0] in (2, 3)


def test_options_reach_the_search(folder, capsys):
    loss = hk.SquaredLoss(np.load("X.npy"), np.load("Y.npy"), "mean")
    np.save("other.npy", loss.hessian(hk.LinearNetwork.load("other.npz")).toarray())
    assert run(capsys, "other.npy")[0] == 2
    code, out, _ = run(capsys, "other.npy", "--other-net", "other.npz", "--json")
    assert code == 1 and json.loads(out)["findings"][0]["cause"] == "trajectory[0]"
    np.save("block.npy", loss.hessian(hk.LinearNetwork.load("net.npz"), params=["1.weight"]).toarray())
    assert run(capsys, "block.npy", "--params", "1.weight")[0] == 0


def test_plot(folder, capsys):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    assert run(capsys, "wrong.npy", "--plot", "why.png")[0] == 1
    before, after = np.array_split(imread("why.png")[60:400, 100:1050, :3], 2, axis=1)
    yellow = [float(np.mean((half[..., 0] > 0.7) & (half[..., 2] < 0.5))) for half in (before, after)]
    assert yellow[0] > 0.3 and yellow[1] < 0.01
    code, out, err = run(capsys, "174", "--plot", "number.png")
    assert code == 3 and "--plot draws a matrix" in err and not out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.npy"], "CANDIDATE: cannot read 'gone.npy': No such file or directory."),
        (["H"], "CANDIDATE is 'H'; expected a number, or a file"),
        (["H.mat"], "CANDIDATE is 'H.mat'; expected a name that ends in"),
        (["net.npz"], "CANDIDATE: 'net.npz' holds"),
        (["H.npy", "--params", "7"], "params holds layer 7"),
        (["H.npy", "--batch-size", "0"], "batch_size is 0"),
        (["H.npy", "--quantity", "rank"], "quantity is 'rank'"),
        (["H.npy", "--other-net", "X.npy"], "--other-net: 'X.npy' is not a network"),
        (["H.npy", "--case"], "--case has its own network and data; leave out --net."),
        (["H.npy", "--plot", "picture.xyz"], "--plot:"),
        (["H.npy", "--bogus", "1"], "unrecognized arguments: --bogus 1"),
    ],
)
def test_bad_input_is_one_sentence_and_code_3(folder, capsys, arguments, said):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (3, "") and said in err and err.count("\n") == 1


def test_missing_files_and_usage(folder, capsys):
    code, _, err = run(capsys, "H.npy", files=("--net", "net.npz"))
    assert code == 3 and "--X is missing" in err
    for arguments in (["explain"], ["explain", "174", "--kind", "other"]):
        assert cli.main(arguments) == 3
        err = capsys.readouterr().err
        assert "hesskern explain --help lists" in err and err.count("\n") == 1


SAID = {"junk.npy": "not written by numpy.save", "empty.csv": "holds no numbers", "H.foo": ".txt, .pt"}


def test_files_that_hold_no_numbers(folder, capsys):
    (folder / "junk.npy").write_bytes(b"hello world")
    (folder / "empty.csv").write_text("")
    for name, said in (
        ("junk.npy", "not written by numpy.save"),
        ("empty.csv", "holds no numbers"),
        ("H.foo", ".txt, .pt"),
    ):
        code, _, err = run(capsys, name)
        assert code == 3 and name in err and said in err and err.count("\n") == 1


def test_a_tensor_without_torch(folder, capsys, monkeypatch):
    (folder / "H.pt").write_bytes(b"not a tensor")
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run(capsys, "H.pt")
    assert code == 3 and "only PyTorch can read" in err


def test_a_file_that_is_no_tensor(folder, capsys):
    torch = pytest.importorskip("torch")
    (folder / "H.pt").write_bytes(b"not a tensor")
    assert run(capsys, "H.pt")[0] == 3
    torch.save({"H": torch.eye(3)}, "H.pt")
    code, _, err = run(capsys, "H.pt")
    assert code == 3 and "expected one tensor" in err
