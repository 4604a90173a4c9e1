"""`fit` and `fit_ensemble` on a GPU against the same calls in main memory; without one the kernels' host twins run."""

from __future__ import annotations

import numpy as np
import problems
import pytest
import trainings

import hesskern as hk

pytest.importorskip("torch")

import torch
from device_runs import both, close, ensemble, host, rate, there

pytestmark = pytest.mark.usefixtures("place")

RECORDS = ("loss", "gradient_norm", "distance", "balance", "weights")


# The same runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", trainings.METHODS, ids=str)
@pytest.mark.parametrize("number", [0, 2, 4])
def test_every_method(method, number, execution):
    shape = list(trainings.SHAPES)[(number + list(trainings.METHODS).index(method)) % len(trainings.SHAPES)]
    problem = trainings.training(shape, number)
    net, loss = problem.network(), problem.loss()
    options = dict(
        lr=rate(net, loss), max_steps=23, record=RECORDS, record_every=1 + number, **trainings.METHODS[method]
    )
    if "batch_size" in options:
        options["record"] = (*RECORDS, "batch_loss")
    run = both(net, loss, **options)
    assert run.execution.startswith("several launches" if execution == "stepwise" else "many steps in one launch")


@pytest.mark.parametrize("shape", trainings.SHAPES)
def test_every_shape(shape, execution):
    problem = trainings.training(shape, 1)
    net, loss = problem.network(), problem.loss()
    both(net, loss, lr=rate(net, loss), max_steps=12, reduce="none")
    both(net, loss, lr=rate(net, loss), max_steps=12, momentum=0.5)


def test_float32(execution):
    problem = trainings.training("deep", 3)
    net, loss = problem.network("float32"), problem.loss("float32")
    run = both(net, loss, lr=rate(net, loss), max_steps=12, momentum=0.5, record=("loss", "sharpness"))
    assert run.network.weights[0].dtype == torch.float32


def test_the_case(execution):
    case = hk.datasets.two_layer_case()
    record = ("loss", "sharpness", "condition[1.weight]")
    run = both(case.network, hk.SquaredLoss(case.X, case.Y), lr=case.lr, max_steps=700, rtol=case.rtol, record=record,
               record_every=100)  # fmt: skip
    assert (run.status, run.steps) == ("converged", 608)
    assert "widths 5-100-5 to 5-10-5" in str(run.reduction)
    assert np.isnan(run.reduction.leak)  # not followed there


@pytest.mark.parametrize("options", [{}, {"batch_size": 4}], ids=["all samples", "minibatches"])
def test_convergence_and_divergence(options, execution):
    problem = problems.normal([3, 4, 2], 9, 3)
    net, loss = problem.network(), problem.loss()
    safe = rate(net, loss)
    run = both(net, loss, lr=safe, max_steps=400, rtol=0.5, **options)
    assert run.status == "converged"
    run = both(net, loss, lr=200 * safe, max_steps=400, record=("loss",), **options)
    assert run.status == "diverged"
    assert run.network.flatten().isfinite().all()
    # The loss overflows in the step after the last one taken: nobody has looked at it.
    both(net, loss, lr=200 * safe, max_steps=run.steps + 1, record=("loss",), **options)
    run = both(net, loss, lr=1e300, max_steps=1)
    assert run.steps in (0, 1)


def test_rates_of_each_step(execution):
    problem = problems.normal([3, 4, 2], 6, 3)
    net, loss = problem.network(), problem.loss()
    safe = rate(net, loss)
    both(net, loss, lr=safe * np.linspace(0.5, 1, 10), max_steps=10)
    both(net, loss, lr=lambda step: safe / (1 + step), max_steps=10, record=("sharpness",))


# Ensembles ------------------------------------------------------------------------------------------------------------


# The same numbers, whatever the launch --------------------------------------------------------------------------------


def test_what_does_not_fit_says_so():
    net, loss = problems.normal([40, 90, 80], 60, 1).network(), problems.normal([40, 90, 80], 60, 1).loss()
    run = both(net, loss, lr=1e-6, max_steps=2)
    assert "several launches a step: the training of one network takes" in run.execution
    assert "a block has 232448" in run.execution or torch.cuda.is_available()


def test_whatever_the_default_device_is():
    nets, loss = ensemble(2, widths=(6, 9, 5))
    moved_nets, lost = there(nets, loss)
    with torch.device("meta"):
        found = hk.fit_ensemble(moved_nets, lost, lr=0.002, max_steps=3, record=("sharpness", "condition[0]"))
    close(
        found.history["sharpness"],
        hk.fit_ensemble(nets, loss, lr=0.002, max_steps=3, record=("sharpness",)).history["sharpness"],
    )


# The loop around it ---------------------------------------------------------------------------------------------------


def test_resumed_from_a_checkpoint(tmp_path):
    nets, loss = ensemble(3)
    moved_nets, lost = there(nets, loss)
    options = dict(lr=0.003, momentum=0.8, record=("loss", "sharpness", "balance"), record_every=4)
    whole = hk.fit_ensemble(moved_nets, lost, max_steps=30, **options)
    path = tmp_path / "run.npz"
    hk.fit_ensemble(moved_nets, lost, max_steps=13, checkpoint=path, checkpoint_every=5, **options)
    again = hk.fit_ensemble(moved_nets, lost, max_steps=30, resume=path, **options)
    for name, column in whole.history.items():
        np.testing.assert_array_equal(again.history[name], column)
    assert all((a == b).all() for a, b in zip(whole.weights, again.weights, strict=True))
    with pytest.raises(ValueError, match=r"its momentum was 0\.8, here it is 0\.7"):
        hk.fit_ensemble(moved_nets, lost, max_steps=30, resume=path, **options | {"momentum": 0.7})


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.6, "nesterov": True, "batch_size": 3}], ids=["plain", "batches"]
)
def test_stopped_after_any_step_and_gone_on_with(tmp_path, execution, options):
    """One network converges, others diverge at different steps, in the last update among them, one goes on."""
    nets, loss = ensemble(5)
    moved_nets, lost = there(nets, loss)
    given = dict(lr=[0.01, 3.0, 1e-6, 1e9, 1e308], rtol=0.8, record=("loss", "distance"), record_every=2) | options
    whole = hk.fit_ensemble(moved_nets, lost, max_steps=12, **given)
    assert set(whole.status) >= {"diverged", "max_steps"}
    path = tmp_path / "run.npz"
    for stop in (1, 2, 3, 4, 11, 12):
        hk.fit_ensemble(moved_nets, lost, max_steps=stop, checkpoint=path, **given)
        again = hk.fit_ensemble(moved_nets, lost, max_steps=12, resume=path, **given)
        np.testing.assert_array_equal(again.status, whole.status)
        np.testing.assert_array_equal(again.steps, whole.steps)
        for name, column in whole.history.items():
            np.testing.assert_array_equal(again.history[name], column)
        for found, wanted in zip(again.weights, whole.weights, strict=True):
            np.testing.assert_array_equal(host(found), host(wanted))


def test_interrupted():
    nets, loss = ensemble(2)

    def rates(step):
        if step == 300:
            raise KeyboardInterrupt
        return 0.001

    runs = hk.fit_ensemble(*there(nets, loss), lr=rates, max_steps=10_000)
    assert set(runs.status) == {"interrupted"}
    assert runs.history["loss"].shape == (2, runs.steps[0])


def test_refused():
    nets, loss = ensemble(2)
    moved_nets, lost = there(nets, loss)
    with pytest.raises(TypeError, match="X is on cpu, but the network is on cuda:0"):
        hk.fit(moved_nets[0], loss, lr=0.1, max_steps=1)
    with pytest.raises(TypeError, match=r"nets\[1\] is on cpu, but nets\[0\] is on cuda:0"):
        hk.fit_ensemble([moved_nets[0], nets[1]], lost, lr=0.1, max_steps=1)
    with pytest.raises(TypeError, match="X is on cuda:0, but the network is on cpu"):
        hk.fit_ensemble(nets, [loss, lost], lr=0.1, max_steps=1)
    with pytest.raises(TypeError, match="but the backend 'cpp' takes arrays on the CPU"):
        hk.fit(moved_nets[0], lost, lr=0.1, max_steps=1, backend="cpp")
    run = hk.fit(moved_nets[0], lost, lr=0.001, max_steps=1, backend="cuda")
    assert run.network.device == "cuda:0"


def test_out_of_memory(monkeypatch):
    nets, loss = ensemble(2)

    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    moved_nets, lost = there(nets, loss)
    monkeypatch.setattr("hesskern.backends.cuda.batched_width_reduction._qr", full)
    with pytest.raises(
        MemoryError, match=r"training 2 networks \(about .*\) does not fit into the memory that cuda:0 has free; train"
    ):
        hk.fit_ensemble(moved_nets, lost, lr=0.1, max_steps=1)
