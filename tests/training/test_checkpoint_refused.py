"""Checkpoints that are refused: of other problems, damaged, foreign, missing."""

from __future__ import annotations

import os
import pickle
import re

import numpy as np
import problems
import pytest
from trainings import starts

import hesskern as hk


def given():
    return problems.normal([3, 9, 2], 8, bias=True)


BASE = {
    "lr": 0.01, "max_steps": 20, "momentum": 0.5, "nesterov": False, "batch_size": 3, "shuffle": True, "seed": 1,
    "record": ("loss", "weights"), "record_every": 2, "reduce": "auto", "rtol": 1e-9,
}  # fmt: skip
CHANGES = {
    "lr": {"lr": 0.02},
    "lr as an array": {"lr": np.linspace(0.01, 0.02, 20)},
    "momentum": {"momentum": 0.25},
    "nesterov": {"nesterov": True},
    "batch_size": {"batch_size": 4},
    "batch_size, none": {"batch_size": None},
    "shuffle": {"shuffle": False},
    "seed": {"seed": 2},
    "record": {"record": ("loss", "sharpness")},
    "record_every": {"record_every": 1},
    "reduce": {"reduce": "none"},
    "rtol": {"rtol": 1e-8},
    "rtol, none": {"rtol": None},
}


def written(tmp_path, **options):
    problem, path = given(), tmp_path / "state.npz"
    hk.fit(problem.network(), problem.loss(), checkpoint=path, checkpoint_every=5, **(BASE | options))
    return path


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.quick_in_cpp
def test_another_argument_is_named(backend, tmp_path, change):
    path = written(tmp_path)
    problem = given()
    name = change.split()[0].rstrip(",")
    with pytest.raises(ValueError, match=rf"\b{name}\b") as caught:
        hk.fit(problem.network(), problem.loss(), resume=path, **(BASE | CHANGES[change]))
    named = [
        other
        for other in BASE
        if other != "max_steps" and re.search(rf"\b{other}\b", str(caught.value).replace(str(path), ""))
    ]
    assert named == [name], str(caught.value)


def other_losses():
    problem = given()
    X, Y = problem.X.copy(), problem.Y.copy()
    X[2, 1] = np.nextafter(X[2, 1], 9.0)
    Y[2, 1] = np.nextafter(Y[2, 1], 9.0)
    return {
        "X": hk.SquaredLoss(X, problem.Y),
        "Y": hk.SquaredLoss(problem.X, Y),
        "X or Y or samples or rows": hk.SquaredLoss(problem.X[:6], problem.Y[:6]),
        "kind": hk.SquaredLoss(problem.X, problem.Y, "mean"),
        "weight_decay": hk.SquaredLoss(problem.X, problem.Y, weight_decay=0.1),
    }


@pytest.mark.parametrize("name", ["X", "Y", "X or Y or samples or rows", "kind", "weight_decay"])
def test_another_loss_is_named(tmp_path, name):
    path = written(tmp_path)
    pattern = "|".join(rf"\b{word}\b" for word in [*name.split(" or "), "loss"])
    with pytest.raises(ValueError, match=pattern):
        hk.fit(given().network(), other_losses()[name], resume=path, **BASE)


def test_another_network_is_named(tmp_path):
    path = written(tmp_path)
    problem = given()
    theta = problem.network().flatten()
    theta[3] = np.nextafter(theta[3], 9.0)
    wider = problems.normal([3, 10, 2], 8, bias=True)
    plain = problems.normal([3, 9, 2], 8)
    for net in (problem.network().unflatten(theta), wider.network(), plain.network()):
        with pytest.raises(ValueError, match=r"\bnet\b"):
            hk.fit(net, problem.loss(), resume=path, **BASE)
    with pytest.raises(ValueError, match=r"\bnet\b"):
        hk.fit(problem.network("float32"), problem.loss("float32"), resume=path, **BASE)


def test_another_backend_is_named(tmp_path):
    path = written(tmp_path, backend="cpp")
    problem = given()
    with pytest.raises(ValueError, match=r"\bbackend\b.*'cpp'"):
        hk.fit(problem.network(), problem.loss(), resume=path, backend="numpy", **BASE)


def test_ensembles_name_what_differs(tmp_path):
    problem, path = given(), tmp_path / "state.npz"
    nets = starts(problem)
    options = {"lr": np.full(5, 0.001), "max_steps": 20, "batch_size": 3, "seed": 0}
    hk.fit_ensemble(nets, problem.loss(), checkpoint=path, checkpoint_every=5, **options)
    hk.fit_ensemble(nets, problem.loss(), resume=path, **options)
    for name, change in {
        "lr": {"lr": np.linspace(0.001, 0.002, 5)},
        "seed": {"seed": np.arange(5)},
        "momentum": {"momentum": 0.5},
        "batch_size": {"batch_size": 4},
    }.items():
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            hk.fit_ensemble(nets, problem.loss(), resume=path, **(options | change))
    for others in (nets[::-1], nets[:4]):
        with pytest.raises(ValueError, match=r"\bnets\b"):
            own = options | {"lr": options["lr"][: len(others)]}
            hk.fit_ensemble(others, problem.loss(), resume=path, **own)


def test_a_run_is_no_ensemble_of_several(tmp_path):
    problem, single, many = given(), tmp_path / "single.npz", tmp_path / "many.npz"
    options = {"lr": 0.001, "max_steps": 5}
    nets = starts(problem, 2)
    hk.fit(nets[0], problem.loss(), checkpoint=single, checkpoint_every=5, **options)
    hk.fit_ensemble(nets, problem.loss(), checkpoint=many, checkpoint_every=5, **options)
    with pytest.raises(ValueError, match=r"^resume is .*single\.npz.*\bnet"):
        hk.fit_ensemble(nets, problem.loss(), resume=single, **options)
    with pytest.raises(ValueError, match=r"^resume is .*many\.npz.*\bnet"):
        hk.fit(nets[0], problem.loss(), resume=many, **options)


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def foreign(tmp_path):
    """Return files that are no checkpoints."""
    good = written(tmp_path)
    content = good.read_bytes()
    files = {"empty": b"", "text": b"loss,step\n1,2\n", "half": content[: len(content) // 2], "cut": content[:-1]}
    files["first bytes"] = content[:100]
    middle = bytearray(content)
    at = len(middle) // 2
    middle[at : at + 64] = bytes(255 - byte for byte in middle[at : at + 64])
    files["damaged"] = bytes(middle)
    paths = {}
    for name, data in files.items():
        paths[name] = tmp_path / f"{name}.npz"
        paths[name].write_bytes(data)
    paths["network"] = tmp_path / "network.npz"
    given().network().save(paths["network"])
    paths["array"] = tmp_path / "array.npy"
    np.save(paths["array"], np.arange(3.0))
    paths["pickle"] = tmp_path / "pickle.npz"
    paths["pickle"].write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    paths["pickles inside"] = tmp_path / "inside.npz"
    with np.load(good) as file:
        np.savez(
            paths["pickles inside"],
            **{name: np.array([Bomb(tmp_path / "exploded")], dtype=object) for name in file.files},
        )
    paths["folder"] = tmp_path / "folder"
    paths["folder"].mkdir()
    return paths


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "text",
        "half",
        "cut",
        "first bytes",
        "damaged",
        "network",
        "array",
        "pickle",
        "pickles inside",
        "folder",
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, name):
    path = foreign(tmp_path)[name]
    problem = given()
    for call, net in ((hk.fit, problem.network()), (hk.fit_ensemble, [problem.network()])):
        with pytest.raises((ValueError, OSError), match=rf"\bresume\b.*{re.escape(path.name)}"):
            call(net, problem.loss(), resume=path, **BASE)
    assert not (tmp_path / "exploded").exists()


def test_a_file_that_is_not_there(tmp_path):
    problem = given()
    with pytest.raises(FileNotFoundError, match=r"\bresume\b.*nowhere\.npz"):
        hk.fit(problem.network(), problem.loss(), resume=tmp_path / "nowhere.npz", **BASE)


def test_a_folder_that_is_not_there_is_found_before_training(tmp_path):
    problem = given()
    with pytest.raises((OSError, ValueError), match=r"\bcheckpoint\b.*missing"):
        hk.fit(
            problem.network(), problem.loss(), checkpoint=tmp_path / "missing" / "state.npz", checkpoint_every=10**8,
            lr=1e-3, max_steps=10**9,
        )  # fmt: skip
    (tmp_path / "folder").mkdir()
    with pytest.raises((OSError, ValueError), match=r"\bcheckpoint\b.*folder"):
        hk.fit(
            problem.network(), problem.loss(), checkpoint=tmp_path / "folder", checkpoint_every=10**8, lr=1e-3,
            max_steps=10**9,
        )  # fmt: skip


def test_what_is_not_a_file_is_never_replaced(tmp_path):
    problem = given()
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nowhere")
    for path in (pipe, link):
        with pytest.raises(ValueError, match=rf"\bcheckpoint\b.*{path.name}.*not an ordinary file"):
            hk.fit(problem.network(), problem.loss(), checkpoint=path, **BASE)
    assert pipe.is_fifo() and link.is_symlink()


def test_refused_files_are_left_as_they_are(tmp_path):
    path = written(tmp_path)
    before = path.read_bytes()
    problem = given()
    with pytest.raises(ValueError, match="momentum"):
        hk.fit(
            problem.network(), problem.loss(), checkpoint=path, checkpoint_every=1, resume=path,
            **(BASE | {"momentum": 0.1}),
        )  # fmt: skip
    assert path.read_bytes() == before
