"""A run stopped after any number of its steps and gone on with is the run that was not stopped, however that ends."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from looped import each, few_quick
from trainings import same

import hesskern as hk

METHODS = {
    "plain": {},
    "heavy ball": {"momentum": 0.9},
    "Nesterov, minibatches": {"momentum": 0.6, "nesterov": True, "batch_size": 7, "seed": 3},
    "not reduced": {"reduce": "none", "record": ("loss", "gradient_norm", "weights"), "record_every": 2},
    "sharpness": {"record": ("loss", "sharpness"), "momentum": 0.5},
}
#: How a run ends: arguments, and its status.
ENDINGS = {
    "max_steps": ({"lr": 1.5e-4, "max_steps": 9}, "max_steps"),
    "converged": ({"lr": 5e-4, "max_steps": 40, "rtol": 0.8}, "converged"),
    "slowly to infinity": ({"lr": 0.5, "max_steps": 40}, "diverged"),
    "quickly to infinity": ({"lr": 1e9, "max_steps": 40}, "diverged"),
    "to NaN": ({"lr": 1e200, "max_steps": 40}, "diverged"),
    "the first update overflows": ({"lr": 1e308, "max_steps": 40}, "diverged"),
    "the last update overflows": ({"lr": lambda step: 1e308 if step == 5 else 1.5e-4, "max_steps": 6}, "diverged"),
    "overflows where it converges": ({"lr": 1e308, "max_steps": 40, "rtol": 1.0}, "diverged"),
}


@functools.cache
def problem(dtype="float64"):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((20, 4)).astype(dtype), rng.standard_normal((20, 3)).astype(dtype)
    nets = [hk.LinearNetwork.random([4, 9, 3], seed=seed, bias=True, dtype=dtype) for seed in range(5)]
    return nets, X, Y


def stops(taken, most):
    """After which steps the run is stopped: all of a short one."""
    return sorted({1, 2, 3, 5, taken - 1, taken, taken + 1, taken + 2} & set(range(1, most)))


@each(("method", "dtype"), [(method, ("float64", "float32", "float64")[k % 3]) for k, method in enumerate(METHODS)])
@pytest.mark.parametrize("ending", few_quick(ENDINGS, 4))
@pytest.mark.quick_in_cpp
def test_every_step_of_a_run(backend, tmp_path, ending, method, dtype):
    options, status = ENDINGS[ending]
    (net, *_), X, Y = problem(dtype)
    loss = hk.SquaredLoss(X, Y, "sum", 1e-3, backend=backend.name)
    options = options | METHODS[method]
    most = options.pop("max_steps")
    with np.errstate(all="ignore"):
        whole = hk.fit(net, loss, max_steps=most, **options)
        assert whole.status == status
        assert np.isfinite(whole.network.flatten()).all()
        path = tmp_path / "state.npz"
        for stop in stops(whole.steps, most):
            hk.fit(net, loss, max_steps=stop, checkpoint=path, **options)
            same(hk.fit(net, loss, max_steps=most, resume=path, checkpoint=path, **options), whole)
        same(hk.fit(net, loss, max_steps=most, resume=path, **options), whole)  # of a run that has ended


@each("method", METHODS)
@pytest.mark.quick_in_cpp
def test_every_step_of_an_ensemble(backend, tmp_path, method):
    """One network converges, three diverge at different steps, one goes on to the end."""
    nets, X, Y = problem()
    loss = hk.SquaredLoss(X, Y, "sum", 1e-3, backend=backend.name)
    options = {"lr": [5e-4, 0.5, 1e-6, 1e9, 1e308], "rtol": 0.8} | METHODS[method]
    with np.errstate(all="ignore"):
        whole = hk.fit_ensemble(nets, loss, max_steps=25, **options)
        assert set(whole.status) == {"converged", "diverged", "max_steps"}
        path = tmp_path / "state.npz"
        for stop in (1, 2, 3, 4, 11, 24, 25):
            hk.fit_ensemble(nets, loss, max_steps=stop, checkpoint=path, **options)
            same(hk.fit_ensemble(nets, loss, max_steps=25, resume=path, **options), whole)


@each("step", range(7))
def test_interrupted_at_any_step(backend, tmp_path, step):
    """The user's own function is where a Ctrl-C can be had at a step that is known."""
    (net, *_), X, Y = problem()
    loss = hk.SquaredLoss(X, Y, "sum", 1e-3, backend=backend.name)
    options = {"max_steps": 8, "momentum": 0.9, "record": ("loss", "distance")}

    def interrupted(at):
        if at == step:
            raise KeyboardInterrupt
        return 1.5e-4

    path = tmp_path / "state.npz"
    first = hk.fit(net, loss, lr=interrupted, checkpoint=path, **options)
    assert first.status == "interrupted" and first.steps <= step
    same(
        hk.fit(net, loss, lr=lambda _: 1.5e-4, resume=path, **options),
        hk.fit(net, loss, lr=lambda _: 1.5e-4, **options),
    )


@each("number", (1, 3))
def test_a_checkpoint_of_another_format_is_refused_in_a_sentence(tmp_path, number):
    (net, *_), X, Y = problem()
    loss, path = hk.SquaredLoss(X, Y), tmp_path / "state.npz"
    hk.fit(net, loss, lr=1e-3, max_steps=3, checkpoint=path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["header"] = np.array(str(arrays["header"]).replace("checkpoint 2", f"checkpoint {number}"))
    np.savez(path, **arrays)
    said = f"written as 'hesskern training checkpoint {number}' by another version .*; this version reads .* 2'"
    with pytest.raises(ValueError, match=said):
        hk.fit(net, loss, lr=1e-3, max_steps=5, resume=path)


#: Changes to a checkpoint whose checksums are right all the same.
LIES = {
    "steps": lambda a: a["state.steps"].__iadd__(1),
    "seen": lambda a: a["seen"].__iadd__(1),
    "a negative number of steps": lambda a: a["seen"].__imul__(-1),
    "another status": lambda a: a.update(status=np.array(["finished"])),
    "status as a number": lambda a: a.update(status=np.array([1])),
    "too many parameters": lambda a: a.update({"state.parameters": np.ones((1, 99))}),
    "parameters in float32": lambda a: a.update({"state.parameters": a["state.parameters"].astype(np.float32)}),
    "complex parameters": lambda a: a.update({"state.parameters": a["state.parameters"].astype(complex)}),
    "NaN before the last update": lambda a: a["state.previous"].__imul__(np.nan),
    "no velocity": lambda a: a.update({"state.velocity": np.empty((1, 0))}),
    "a history that is too long": lambda a: a.update({"history.loss": np.ones((1, 50))}),
    "a history of text": lambda a: a.update({"history.loss": a["history.loss"].astype(str)}),
    "weights of another size": lambda a: a.update({"history.weights": np.ones((1, 5, 2))}),
    "two networks": lambda a: a.update({name: np.concatenate([v, v]) for name, v in a.items() if name != "header"}),
    "an array less": lambda a: a.pop("state.target"),
    "an array more": lambda a: a.update(extra=np.ones(3)),
    "a search that is not there": lambda a: a["state.search_count"].__iadd__(5),
    "a header that is no JSON": lambda a: a.update(header=np.array("{")),
    "a header that is a list": lambda a: a.update(header=np.array("[1]")),
    "a header of numbers": lambda a: a.update(header=np.ones(3)),
    "no header": lambda a: a.pop("header"),
}


@each("lie", LIES)
@pytest.mark.quick_in_cpp
def test_a_checkpoint_that_no_run_wrote(backend, tmp_path, lie):
    (net, *_), X, Y = problem()
    loss, path = hk.SquaredLoss(X, Y, backend=backend.name), tmp_path / "state.npz"
    options = {"lr": 1e-3, "momentum": 0.5, "record": ("loss", "weights", "sharpness")}
    hk.fit(net, loss, max_steps=5, checkpoint=path, **options)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    LIES[lie](arrays)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"^resume is .*state\.npz', which is not a checkpoint of") as caught:
        hk.fit(net, loss, max_steps=9, resume=path, **options)
    assert str(caught.value).count("\n") == 0
