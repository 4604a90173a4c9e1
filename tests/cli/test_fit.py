"""The command ``hesskern fit``: what `hesskern.fit` does, from files to files, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from children import child, child_environment

import hesskern as hk
from hesskern.cli import main as cli

WIDTHS, SAMPLES, LR = [4, 12, 3], 10, 5e-3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with data in every format and a network; the command runs in it."""
    monkeypatch.chdir(tmp_path)
    X, Y = data()
    np.save("X.npy", X)
    np.save("Y.npy", Y)
    np.savez("both.npz", X=X, Y=Y)
    np.savez("inputs.npz", any_name=X)
    for suffix, separator in ((".txt", " "), (".csv", ",")):
        for name, array in (("X", X), ("Y", Y)):
            np.savetxt(name + suffix, array, delimiter=separator, fmt="%.17g")
    heading = ",".join(f"feature {k}" for k in range(WIDTHS[0]))
    np.savetxt("heading.csv", X, delimiter=",", fmt="%.17g", header=heading, comments="")
    network().save("net.npz")
    return tmp_path


def data():
    rng = np.random.default_rng(5)
    return rng.standard_normal((SAMPLES, WIDTHS[0])), rng.standard_normal((SAMPLES, WIDTHS[-1]))


def network(**options):
    return hk.LinearNetwork.random(WIDTHS, **({"seed": 3, "bias": True} | options))


def command(*, net="net.npz", X="X.npy", Y="Y.npy", lr=LR, **options):
    """Return the command's arguments; True stands for a flag, None for an option left out."""
    arguments = ["fit"]
    for name, value in ({"net": net, "X": X, "Y": Y, "lr": lr} | options).items():
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return arguments


def run(capsys, **options):
    code = cli.main(command(**options))
    return code, *capsys.readouterr()


def fitted(**options):
    """Return what the library makes of the same."""
    return hk.fit(network(), hk.SquaredLoss(*data()), **({"lr": LR} | options))


def equal(found, expected):
    assert found.parameter_names == expected.parameter_names
    np.testing.assert_array_equal(found.flatten(), expected.flatten())


@pytest.mark.parametrize(
    "files", ["X.npy Y.npy", "both.npz both.npz", "inputs.npz Y.npy", "X.txt Y.csv", "heading.csv Y.txt"]
)
def test_data_of_every_format(folder, capsys, files):
    X, Y = files.split()
    code, out, err = run(capsys, X=X, Y=Y, max_steps=20, out="out.npz")
    expected = fitted(max_steps=20)
    assert (code, err) == (0, "")
    assert "10 samples" in out
    equal(hk.LinearNetwork.load("out.npz"), expected.network)


EVERYTHING = {
    "kind": "mean", "weight_decay": 0.02, "max_steps": 35, "batch_size": 4, "seed": 7, "momentum": 0.6,
    "nesterov": True, "record_every": 3, "reduce": "none", "backend": "numpy",
}  # fmt: skip
RECORD = ["loss", "batch_loss", "condition[0.weight,0.bias]", "balance", "weights", "sharpness"]


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_option_is_that_of_fit(folder, capsys, shuffle):
    given = EVERYTHING | {"record": ",".join(RECORD), "no_shuffle": None if shuffle else True}
    code, _, err = run(capsys, **given, out="out.npz", history="history.npz")
    options = dict(EVERYTHING)
    loss = hk.SquaredLoss(*data(), options.pop("kind"), options.pop("weight_decay"))
    expected = hk.fit(network(), loss, lr=LR, shuffle=shuffle, record=RECORD, **options)
    assert (code, err) == (0, "")
    equal(hk.LinearNetwork.load("out.npz"), expected.network)
    with np.load("history.npz") as history:
        assert sorted(history) == sorted(expected.history)
        for name in history:
            np.testing.assert_array_equal(history[name], expected.history[name])
            assert history[name].dtype == expected.history[name].dtype


def test_history_as_a_table(folder, capsys):
    code, _, _ = run(capsys, max_steps=9, record="loss,weights,sharpness", record_every=2, history="history.csv")
    expected = fitted(max_steps=9, record=("loss", "weights", "sharpness"), record_every=2).history
    assert code == 0
    with open("history.csv", newline="") as file:
        heading, *rows = csv.reader(file)
    parameters = [f"weights.{k}" for k in range(network().num_parameters)]
    assert sorted(heading) == sorted(["step", "loss", "sharpness", "2/lr", *parameters])
    table = dict(zip(heading, np.array(rows, dtype=float).T, strict=True))
    for name in ("step", "loss", "sharpness", "2/lr"):
        np.testing.assert_array_equal(table[name], expected[name])
    np.testing.assert_array_equal(np.transpose([table[name] for name in parameters]), expected["weights"])


@pytest.mark.parametrize("bias", [True, None])
@pytest.mark.parametrize("dtype", ["float32", "float64", None])
def test_a_random_network(folder, capsys, bias, dtype):
    """--seed is that of the weights, and float64 files are read in the network's precision."""
    code, out, _ = run(
        capsys, net=None, widths="4,12,3", bias=bias, dtype=dtype, seed=9, max_steps=6, batch_size=5, out="out.npz"
    )
    kind = np.dtype(dtype or "float64").type
    start = network(seed=9, bias=bool(bias), dtype=kind)
    loss = hk.SquaredLoss(*(array.astype(kind) for array in data()))
    expected = hk.fit(start, loss, lr=LR, max_steps=6, batch_size=5, seed=9)
    assert code == 0
    assert out.startswith(f"{start!r}, 10 samples\n")
    equal(hk.LinearNetwork.load("out.npz"), expected.network)


def test_what_is_printed(folder, capsys):
    code, out, err = run(capsys, max_steps=30, record="loss,sharpness", record_every=4)
    loss = hk.SquaredLoss(*data())
    expected = fitted(max_steps=30, record=("loss", "sharpness"), record_every=4)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "LinearNetwork(4-12-3, bias, float64, 99 parameters), 10 samples",
        "stopped after 30 steps, the most allowed",
        f"loss {loss(network()):.6g} -> {loss(expected.network):.6g}",
        f"trained as 10 samples to 5 rows; widths 4-12-3 to 4-8-3 (leak {expected.reduction.leak:.1e})",
        f"at step 28: sharpness {expected.history['sharpness'][-1]:.6g}, 2/lr {2 / LR:.6g}",
    ]


def test_json_is_one_object(folder, capsys):
    code, out, err = run(capsys, json=True, rtol=0.9, max_steps=1000, record="loss,distance", history="history.npz")
    loss = hk.SquaredLoss(*data())
    expected = fitted(rtol=0.9, max_steps=1000, record=("loss", "distance"))
    assert (code, err) == (0, "")
    assert expected.status == "converged"
    found = json.loads(out, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert (found["status"], found["steps"], found["records"]) == ("converged", expected.steps, expected.steps)
    assert (found["first_loss"], found["loss"]) == (loss(network()), loss(expected.network))
    assert found["last_record"] == {name: column[-1].item() for name, column in expected.history.items()}
    assert found["reduction"] == {
        "samples": [10, 5],
        "widths": [[4, 12, 3], [4, 8, 3]],
        "leak": expected.reduction.leak,
        "unbalanced": 0,
        "text": str(expected.reduction),
    }


def test_divergence_is_exit_code_1(folder, capsys):
    """What was reached is written, the last network whose loss was finite, and numbers beyond JSON are null."""
    code, out, err = run(capsys, lr=50, json=True, out="out.npz", history="history.npz")
    expected = fitted(lr=50, max_steps=10_000)
    assert expected.status == "diverged"
    assert (code, err) == (1, f"hesskern fit: diverged after {expected.steps} steps; try a smaller --lr.\n")
    assert json.loads(out)["status"] == "diverged"
    equal(hk.LinearNetwork.load("out.npz"), expected.network)
    with np.load("history.npz") as history:
        np.testing.assert_array_equal(history["loss"], expected.history["loss"])


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"batch_size": 3, "seed": 2}])
def test_checkpoint_and_resume(folder, capsys, options):
    given = options | {"record": "loss,distance"}
    assert run(capsys, max_steps=12, checkpoint="state.npz", checkpoint_every=5, **given)[0] == 0
    # A checkpoint may go on in its own file.
    files = {"resume": "state.npz", "checkpoint": "state.npz", "out": "out.npz", "history": "history.npz"}
    code, _, err = run(capsys, max_steps=30, **files, **given)
    expected = fitted(max_steps=30, record=("loss", "distance"), **options)
    assert (code, err) == (0, "")
    equal(hk.LinearNetwork.load("out.npz"), expected.network)
    with np.load("history.npz") as history:
        np.testing.assert_array_equal(history["step"], np.arange(30))
        np.testing.assert_array_equal(history["distance"], expected.history["distance"])


def test_a_network_may_be_replaced_by_the_trained_one(folder, capsys):
    assert run(capsys, max_steps=5, out="net.npz")[0] == 0
    assert run(capsys, max_steps=5, out="net.npz")[0] == 0
    twice = hk.fit(fitted(max_steps=5).network, hk.SquaredLoss(*data()), lr=LR, max_steps=5).network
    equal(hk.LinearNetwork.load("net.npz"), twice)


ENDLESS = """
import json
from hesskern import _core
from hesskern.cli import main as cli
from hesskern.training.cpu_group import CpuGroup
advance = CpuGroup.advance
def told(self, *args):
    advance(self, *args)
    print("training", file=sys.stderr, flush=True)
    CpuGroup.advance = advance
CpuGroup.advance = told
sys.exit(cli.main(json.loads(sys.argv[1])))
"""


def test_ctrl_c_is_130_and_what_was_reached_is_written(folder):
    outputs = {"out": "out.npz", "history": "history.npz", "checkpoint": "state.npz"}
    arguments = command(max_steps=10**9, lr=1e-5, record_every=100, json=True, no_progress=True, **outputs)
    with child(ENDLESS, arguments) as process:
        assert process.stderr.readline() == "training\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "hesskern: interrupted\n")
    found = json.loads(out)
    assert found["status"] == "interrupted"
    steps = found["steps"]
    assert 0 < steps < 10**9
    expected = fitted(lr=1e-5, max_steps=steps, record_every=100)
    equal(hk.LinearNetwork.load("out.npz"), expected.network)
    with np.load("history.npz") as history:
        np.testing.assert_array_equal(history["loss"], expected.history["loss"])
    further = fitted(lr=1e-5, max_steps=1, record_every=100, resume="state.npz")
    assert further.steps == steps
    assert not list(folder.glob("*.partial"))


def process(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "hesskern", *arguments],
        env=child_environment(OPENBLAS_NUM_THREADS="1", **variables),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_python_m(folder, capsys):
    done = process(*command(max_steps=20, json=True, out="process.npz"))
    code, out, _ = run(capsys, max_steps=20, json=True, out="here.npz")
    assert (done.returncode, done.stdout, done.stderr) == (code, out, "")
    equal(hk.LinearNetwork.load("process.npz"), hk.LinearNetwork.load("here.npz"))


def test_a_wrong_backend_in_the_environment(folder):
    done = process(*command(out="out.npz"), HESSKERN_BACKEND="nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hesskern: HESSKERN_BACKEND is 'nonsense'; expected one of 'cpp', 'numba', 'numpy', 'cuda'.\n"
    assert not (folder / "out.npz").exists()


def test_a_wrong_instruction_set_in_the_environment(folder):
    """The package itself cannot be imported then, so this is Python's way to say it."""
    done = process(*command(out="out.npz"), HESSKERN_ISA="nonsense")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("ImportError: HESSKERN_ISA is 'nonsense', but this build")
    assert not (folder / "out.npz").exists()


def spoil(folder):
    """Write files that cannot be used."""
    X, Y = data()
    np.save("transposed.npy", X.T)
    np.save("Yt.npy", Y.T)
    np.save("short.npy", Y[:-1])
    np.save("wide.npy", np.hstack([Y, Y]))
    np.save("flat.npy", X[:, 0])
    np.save("complex.npy", X * 1j)
    np.save("objects.npy", np.array([[1, "a"]], dtype=object))
    np.savez("two.npz", a=X, b=X)
    X[2, 1] = np.nan
    np.save("nan.npy", X)
    (folder / "letters.txt").write_text("1 2 3 4\n1 2 x 4\n")
    (folder / "empty.txt").write_text("")
    (folder / "cut.npy").write_bytes((folder / "X.npy").read_bytes()[:200])
    (folder / "picture.npz").write_bytes(b"\x89PNG and so on")
    (folder / "a_folder.npz").mkdir()
    os.mkfifo("pipe.npz")


#: Options, and what the sentence begins with.
REFUSED = [
    ({"X": "missing.npy"}, "--X: cannot read 'missing.npy': No such file"),
    ({"Y": "missing.csv"}, "--Y: cannot read 'missing.csv': No such file"),
    ({"net": "missing.npz"}, "--net: cannot read 'missing.npz': No such file"),
    ({"X": "X.mat"}, "--X is 'X.mat'; expected a name that ends in .npy"),
    ({"X": "a_folder.npz"}, "--X: cannot read 'a_folder.npz': Is a directory"),
    ({"net": "X.npy"}, "--net: 'X.npy' is not a network"),
    ({"net": "both.npz"}, "--net: 'both.npz' is not a network"),
    ({"net": "picture.npz"}, "--net: 'picture.npz' is not a network"),
    ({"X": "transposed.npy", "Y": "Yt.npy"}, "--Y has 3 rows, but --X has 4"),
    ({"X": "transposed.npy"}, "--Y has 10 rows, but --X has 4"),
    ({"Y": "short.npy"}, "--Y has 9 rows, but --X has 10"),
    ({"Y": "wide.npy"}, "--Y has shape (10, 6)"),
    ({"X": "Y.npy"}, "--X has shape (10, 3); expected (N, 4)"),
    ({"X": "flat.npy"}, "--X has shape (10,)"),
    ({"X": "complex.npy"}, "--X has dtype complex128"),
    ({"X": "objects.npy"}, "--X: 'objects.npy' does not hold a matrix of numbers"),
    ({"X": "cut.npy"}, "--X: 'cut.npy' does not hold a matrix of numbers"),
    ({"X": "two.npz"}, "--X: 'two.npz' holds ['a', 'b']"),
    ({"X": "letters.txt"}, "--X: 'letters.txt' does not hold a matrix of numbers"),
    ({"X": "empty.txt"}, "--X: 'empty.txt' holds no numbers (shape (0, 1))."),
    ({"X": "nan.npy"}, "--X holds 1 value that is NaN or infinite, the first at index (2, 1)"),
    ({"record": "loss,sharpnes"}, "--record holds 'sharpnes'"),
    ({"record": "condition[7.weight]"}, "--record holds 'condition[7.weight]'"),
    ({"record": "batch_loss"}, '--record holds "batch_loss"'),
    ({"out": "missing/out.npz"}, "--out is 'missing/out.npz', which is in a folder that does not exist"),
    ({"out": "out.pt"}, "--out is 'out.pt'; expected a name that ends in .npz"),
    ({"out": "a_folder.npz"}, "--out is 'a_folder.npz', which is a folder"),
    ({"history": "history.json"}, "--history is 'history.json'; expected a name that ends in .npz or .csv"),
    ({"history": "pipe.npz"}, "--history is 'pipe.npz', which exists and is not an ordinary file"),
    ({"checkpoint": "missing/state.npz"}, "--checkpoint is 'missing/state.npz'"),
    ({"checkpoint": "a_folder.npz"}, "--checkpoint is 'a_folder.npz', which is a folder"),
    ({"checkpoint": "pipe.npz"}, "--checkpoint is 'pipe.npz', which exists and is not an ordinary file"),
    ({"checkpoint": "X.npy"}, "--checkpoint and --X are both 'X.npy'"),
    ({"checkpoint": "net.npz"}, "--checkpoint and --net are both 'net.npz'"),
    ({"out": "same.npz", "history": "same.npz"}, "--history and --out are both 'same.npz'"),
    ({"checkpoint_every": 5}, "--checkpoint-every is given, but"),
    ({"resume": "missing.npz"}, "--resume is 'missing.npz', which does not exist"),
    ({"resume": "both.npz"}, "--resume is 'both.npz', which is not a checkpoint"),
    ({"widths": "4", "net": None}, "--widths is '4'; expected numbers like"),
    ({"widths": "4,0,3", "net": None}, "--widths is '4,0,3': widths[1] is 0"),
    ({"widths": f"4,{10**20},3", "net": None}, "--widths is '4,1000"),
    ({"bias": True}, "--bias needs --widths"),
    ({"dtype": "float32"}, "--dtype needs --widths"),
    ({"lr": "-1"}, "--lr is -1.0"),
    ({"lr": "nan"}, "--lr is nan"),
    ({"max_steps": 0}, "--max-steps is 0"),
    ({"rtol": "-1"}, "--rtol is -1.0"),
    ({"batch_size": 0}, "--batch-size is 0"),
    ({"record_every": 0}, "--record-every is 0"),
    ({"seed": "-1"}, "--seed is -1"),
    ({"momentum": "-1"}, "--momentum is -1.0"),
    ({"weight_decay": "-1"}, "--weight-decay is -1.0"),
    ({"nesterov": True}, "--nesterov is True, but momentum is 0"),
    ({"backend": "fortran"}, "--backend is 'fortran'; expected one of 'cpp', 'numba', 'numpy'"),
]  # fmt: skip


def snapshot(folder):
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_refused_in_one_sentence(folder, capsys, options, said):
    spoil(folder)
    before = snapshot(folder)
    code, out, err = run(capsys, **({"max_steps": 3, "out": "out.npz", "history": "history.npz"} | options))
    assert (code, out) == (2, "")
    assert err.startswith(f"hesskern: {said}")
    assert err.endswith(".\n") and err.count("\n") == 1
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"net": None}, "one of the arguments --net --widths is required"),
        ({"widths": "4,3"}, "argument --widths: not allowed with argument --net"),
        ({"lr": None}, "the following arguments are required: --lr"),
        ({"lr": "fast"}, "argument --lr: invalid float value: 'fast'"),
        ({"max_steps": "1e4"}, "argument --max-steps: invalid int value: '1e4'"),
        ({"kind": "huber"}, "argument --kind: invalid choice: 'huber'"),
    ],
)
def test_usage_errors(folder, capsys, options, said):
    code, out, err = run(capsys, **options)
    assert (code, out) == (2, "")
    assert err.startswith(f"hesskern: {said}") and err.count("\n") == 1
    assert err.endswith("; hesskern fit --help lists the options.\n")


def test_a_checkpoint_of_another_run(folder, capsys):
    assert run(capsys, max_steps=5, checkpoint="state.npz")[0] == 0
    code, out, err = run(capsys, max_steps=9, resume="state.npz", momentum=0.5, out="out.npz")
    assert (code, out) == (2, "")
    assert err.startswith("hesskern: --resume is 'state.npz', a checkpoint of another run: its momentum was 0.0")
    assert not (folder / "out.npz").exists()


def test_results_are_shown_although_they_cannot_be_written(folder, capsys, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hk.LinearNetwork, "save", full)
    code, out, err = run(capsys, max_steps=5, out="out.npz")
    assert code == 2
    assert "stopped after 5 steps" in out
    assert err == "hesskern: --out: cannot write 'out.npz': No space left on device.\n"


@pytest.mark.parametrize("last", [True, False])
def test_results_are_there_although_the_checkpoint_is_not(folder, capsys, monkeypatch, last):
    """Exit code 2 if the file does not hold the end of the run, as for any other file that was asked for."""
    from hesskern.training import checkpoint

    write, calls = checkpoint.write, []

    def full(path, problem, arrays):
        calls.append(1)
        if (len(calls) == 3) == last:
            raise OSError(28, "No space left on device")
        write(path, problem, arrays)

    monkeypatch.setattr(checkpoint, "write", full)
    code, out, err = run(capsys, max_steps=8, checkpoint="state.npz", checkpoint_every=4, out="out.npz")
    assert code == (2 if last else 0)
    assert "stopped after 8 steps" in out and (folder / "out.npz").exists()
    assert err.startswith("hesskern: the ") and err.count("\n") == 1 and "No space left on device" in err
