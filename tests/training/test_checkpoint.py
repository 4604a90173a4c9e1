"""Checkpoints: what is written, and going on from it to the same bits."""

from __future__ import annotations

import os

import numpy as np
import problems
import pytest
from looped import each, few_quick
from trainings import METHODS, SHAPES, rate, same, starts, training

import hesskern as hk

RECORD = ("loss", "gradient_norm", "balance", "distance", "weights", "sharpness", "condition[0]", "rank")


PAIRS = [
    pytest.param(shape, method, (s + m) % 6, id=f"{shape}, {method}")
    for s, shape in enumerate(SHAPES)
    for m, method in enumerate(METHODS)
    if (s + m) % 2 == 1
]


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize(("shape", "method", "number"), few_quick(PAIRS, 2))
@pytest.mark.quick_in_cpp
def test_going_on_ends_at_the_same_bits(backend, tmp_path, shape, method, number, reduce):
    problem = training(shape, number)
    options = {"lr": rate(shape, number), "record": RECORD, "record_every": 3, "reduce": reduce} | METHODS[method]
    expected = hk.fit(problem.network(), problem.loss(), max_steps=40, **options)
    path = tmp_path / "state.npz"
    first = hk.fit(problem.network(), problem.loss(), max_steps=17, checkpoint=path, checkpoint_every=5, **options)
    plain = hk.fit(problem.network(), problem.loss(), max_steps=17, **options)
    same(first, plain)  # writing changes nothing
    same(hk.fit(problem.network(), problem.loss(), max_steps=40, resume=path, **options), expected)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.long)])
@pytest.mark.parametrize("method", few_quick(["heavy ball", "everything"], 1))
@pytest.mark.quick_in_cpp
def test_ensembles_go_on_too(backend, tmp_path, method, dtype):
    problem = training("wide with biases", 3)
    nets = starts(problem, dtype=dtype)
    loss = problem.loss(dtype)
    lr = 0.5 * rate("wide with biases", 3) * np.linspace(0.5, 1.0, len(nets))
    lr[2] = 1e6  # diverges before the first checkpoint
    options = {"lr": lr, "record": RECORD, "record_every": 3} | METHODS[method]
    expected = hk.fit_ensemble(nets, loss, max_steps=40, **options)
    path = tmp_path / "state.npz"
    hk.fit_ensemble(nets, loss, max_steps=17, checkpoint=path, checkpoint_every=5, threads=1, **options)
    same(hk.fit_ensemble(nets, loss, max_steps=40, resume=path, threads=2, **options), expected)


@pytest.mark.quick_in_cpp
def test_networks_that_stopped_stay_where_they_are(backend, tmp_path):
    problem = problems.normal([3, 9, 2], 3, 2)
    nets = starts(problem, spread=0.1)
    lr = 0.02 * np.array([1.0, 0.5, 0.25, 0.75, 1e-5])
    options = {"lr": lr, "rtol": 1e-3, "record": ("loss", "weights"), "record_every": 4}
    expected = hk.fit_ensemble(nets, problem.loss(), max_steps=1500, **options)
    stops = sorted(expected.steps[expected.status == "converged"])
    assert len(set(stops)) >= 3
    path = tmp_path / "state.npz"
    for middle in (int(stops[0]) + 2, int(stops[1]) + 1, int(stops[-1]) + 5):
        hk.fit_ensemble(nets, problem.loss(), max_steps=middle, checkpoint=path, checkpoint_every=100, **options)
        same(hk.fit_ensemble(nets, problem.loss(), max_steps=1500, resume=path, **options), expected)


@pytest.mark.parametrize("every", few_quick([1, 4, 16, 17, 18, 1000], 3))
@pytest.mark.quick_in_cpp
def test_any_rhythm(backend, tmp_path, every):
    """Whether there is a last checkpoint at the end or not: the run goes on from what there is."""
    problem = training("deep", 2)
    options = {"lr": rate("deep", 2), "record": ("loss", "weights", "sharpness"), "batch_size": 4, "momentum": 0.5}
    expected = hk.fit(problem.network(), problem.loss(), max_steps=40, **options)
    path = tmp_path / "state.npz"
    hk.fit(problem.network(), problem.loss(), max_steps=17, checkpoint=path, checkpoint_every=every, **options)
    if every <= 17:
        assert path.exists()
    if path.exists():
        same(hk.fit(problem.network(), problem.loss(), max_steps=40, resume=path, **options), expected)


@pytest.mark.quick_in_cpp
def test_again_and_again(backend, tmp_path):
    """Ten resumptions on one file: each goes on from the last and writes to it."""
    problem = training("wide", 1)
    options = {"lr": rate("wide", 1), "record": RECORD, "record_every": 7, "momentum": 0.9, "batch_size": 3}
    expected = hk.fit(problem.network(), problem.loss(), max_steps=110, **options)
    path, resume = tmp_path / "state.npz", None
    for steps in range(10, 120, 10):
        run = hk.fit(
            problem.network(), problem.loss(), max_steps=steps, checkpoint=path, checkpoint_every=3, resume=resume,
            **options,
        )  # fmt: skip
        assert run.steps == steps
        resume = path
    same(run, expected)


def test_a_function_as_learning_rate_goes_on_at_its_step(backend, tmp_path):
    problem = training("two layers", 0)
    most, asked = rate("two layers", 0), []

    def lr(step):
        asked.append(step)
        return most * 0.95**step

    options = {"lr": lr, "momentum": 0.5}
    expected = hk.fit(problem.network(), problem.loss(), max_steps=40, **options)
    path = tmp_path / "state.npz"
    hk.fit(problem.network(), problem.loss(), max_steps=20, checkpoint=path, checkpoint_every=20, **options)
    asked.clear()
    same(hk.fit(problem.network(), problem.loss(), max_steps=40, resume=path, **options), expected)
    assert max(asked) == 39
    array = most * 0.95 ** np.arange(40)
    hk.fit(problem.network(), problem.loss(), lr=array, max_steps=20, momentum=0.5, checkpoint=path, checkpoint_every=7)
    found = hk.fit(problem.network(), problem.loss(), lr=array, max_steps=40, momentum=0.5, resume=path)
    np.testing.assert_allclose(found.network.flatten(), expected.network.flatten(), rtol=1e-13)


@pytest.mark.quick_in_cpp
def test_a_run_that_has_ended_is_at_its_end(backend, tmp_path):
    problem = problems.normal([3, 9, 2], 3)
    path = tmp_path / "state.npz"
    for options in ({"lr": 0.05, "rtol": 1e-3}, {"lr": 5.0}):  # converges, diverges
        ended = hk.fit(
            problem.network(), problem.loss(), max_steps=5000, checkpoint=path, checkpoint_every=1, **options
        )
        assert ended.status in ("converged", "diverged")
        same(hk.fit(problem.network(), problem.loss(), max_steps=5000, resume=path, **options), ended)


@pytest.mark.quick_in_cpp
def test_nothing_else_is_left_in_the_folder(backend, tmp_path):
    """The file has the name that was asked for, whatever its ending, and nothing lies beside it."""
    problem = problems.normal([3, 4, 2], 6)
    for name in ("state.npz", "state", "state.ckpt"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        for path in (folder / name, str(folder / name)):
            hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=30, checkpoint=path, checkpoint_every=4)
            assert os.listdir(folder) == [name]
            run = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=40, resume=path)
            assert run.steps == 40
            assert os.listdir(folder) == [name]


def test_the_content_is_plain_arrays(tmp_path):
    problem = problems.normal([3, 4, 2], 6)
    path = tmp_path / "state.npz"
    hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=30, checkpoint=path, checkpoint_every=4)
    with np.load(path, allow_pickle=False) as file:
        assert all(isinstance(file[name], np.ndarray) for name in file.files)
        assert file.files


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_it_can_be_read_by_whom_the_umask_allows(tmp_path):
    problem = problems.normal([3, 4, 2], 6)
    path = tmp_path / "state.npz"
    before = os.umask(0o022)
    try:
        hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=5, checkpoint=path, checkpoint_every=4)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
