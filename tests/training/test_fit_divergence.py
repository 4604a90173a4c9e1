"""Divergence: a run ends at the last network whose loss is finite."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

import hesskern as hk


def losses_of(problem, lr, steps, **method):
    """Return the losses of the plain loop, beyond the overflow."""
    with np.errstate(all="ignore"):
        return oracle.train(problem, lr, steps, **method).losses


def check_diverged(run, losses, problem, tolerance=1e-9):
    """The run ends at the last finite loss and holds the history up to it."""
    finite = int(np.argmin(np.isfinite(losses)))
    assert not np.isfinite(losses[finite])
    assert run.status == "diverged"
    assert run.steps == finite - 1
    assert np.isfinite(run.network.flatten()).all()
    assert np.isfinite(run.history["loss"]).all()
    np.testing.assert_array_equal(run.history["step"], np.arange(finite))
    np.testing.assert_allclose(run.history["loss"], losses[:finite], rtol=tolerance)
    with np.errstate(over="ignore"):
        assert problem.loss()(run.network) == pytest.approx(losses[finite - 1], rel=tolerance)


@pytest.mark.parametrize(("lr", "bias"), [(0.05, False), (0.05, True), (0.3, False)])
def test_divergence_of_a_deep_net(backend, lr, bias):
    problem = problems.normal([4, 30, 3], 8, 1, bias=bias)
    losses = losses_of(problem, lr, 120)
    assert not np.isfinite(losses[-1])
    # Each step of a catapult cubes the relative error of the one before: keep to a few before the overflow.
    check_diverged(hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=1000), losses, problem)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 15, 31, 63, 64, 65, 127, 128, 129, 192, 193, 448])
def test_divergence_at_any_step(backend, step):
    """One layer diverges geometrically: the overflow can be put on any step, also where a piece of the run ends."""
    growth = 10.0 ** (308.25 / (2 * (step - 0.5)))
    problem = problems.Problem([np.ones((1, 1))], [None], np.ones((1, 1)), np.zeros((1, 1)))
    losses = losses_of(problem, 1.0 + growth, step + 2)
    assert np.isfinite(losses[step - 1])
    assert not np.isfinite(losses[step])
    check_diverged(hk.fit(problem.network(), problem.loss(), lr=1.0 + growth, max_steps=1000), losses, problem)


def test_a_loss_that_is_infinite_from_the_start(backend):
    net = hk.LinearNetwork([np.full((1, 1), 1e200)])
    run = hk.fit(net, hk.SquaredLoss(np.ones((1, 1)), np.zeros((1, 1))), lr=0.1, max_steps=5)
    assert (run.status, run.steps) == ("diverged", 0)
    assert len(run.history["loss"]) == len(run.history["step"]) == 0
    np.testing.assert_array_equal(run.network.flatten(), net.flatten())


def test_divergence_in_float32(backend):
    problem = problems.normal([4, 30, 3], 8, 1)
    run = hk.fit(problem.network("float32"), problem.loss("float32"), lr=0.3, max_steps=1000)
    assert run.status == "diverged"
    assert 0 < run.steps < 20
    assert np.isfinite(run.network.flatten()).all()
    assert np.isfinite(run.history["loss"]).all()
    assert len(run.history["loss"]) == run.steps + 1


def test_a_last_update_that_overflows_is_a_divergence(backend):
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    run = hk.fit(case.network, loss, lr=1e308, max_steps=1, backend=backend.name)
    assert (run.status, run.steps) == ("diverged", 0)
    np.testing.assert_array_equal(run.network.flatten(), case.network.flatten())


@pytest.mark.parametrize("reduce", ["auto", "none"])
@pytest.mark.parametrize(
    "method",
    [
        {"momentum": 0.9},
        {"momentum": 0.5, "nesterov": True},
        {"batch_size": 3, "seed": 2},
        {"batch_size": 3, "momentum": 0.9, "nesterov": True},
    ],
)
def test_other_methods(backend, method, reduce):
    """With minibatches the loss that has to be finite is that of the batch or of all samples, whichever overflows."""
    problem = problems.normal([4, 30, 3], 8, 1)
    expected = losses_of(problem, 0.3, 60, **method)
    finite = int(np.argmin(np.isfinite(expected)))
    assert 0 < finite < 60
    run = hk.fit(problem.network(), problem.loss(), lr=0.3, max_steps=1000, reduce=reduce, **method)
    assert run.status == "diverged"
    assert abs(run.steps - (finite - 1)) <= 1
    assert np.isfinite(run.network.flatten()).all()
    assert np.isfinite(run.history["loss"]).all()
    assert len(run.history["loss"]) == len(run.history["step"]) == run.steps + 1
    few = min(4, finite - 1)  # each step of a catapult cubes the relative error of the one before
    np.testing.assert_allclose(run.history["loss"][:few], expected[:few], rtol=1e-9)


def test_what_was_recorded_of_a_divergence_is_finite(backend):
    problem = problems.normal([4, 30, 3], 8, 1)
    record = ("loss", "gradient_norm", "weights", "distance", "sharpness", "balance", "condition[1]", "rank")
    run = hk.fit(problem.network(), problem.loss(), lr=0.3, max_steps=1000, record=record)
    assert run.status == "diverged"
    lengths = {name: len(values) for name, values in run.history.items()}
    assert set(lengths.values()) == {run.steps + 1}
    assert np.isfinite(run.history["weights"]).all()
    np.testing.assert_array_equal(run.history["weights"][-1], run.network.flatten())
    sane = run.history["loss"] < 1e100
    assert sane.sum() > 3
    for name in ("gradient_norm", "distance", "sharpness", "balance"):
        assert np.isfinite(run.history[name][sane]).all(), name


def test_the_next_run_is_not_disturbed(backend):
    problem = problems.normal([4, 30, 3], 8, 1)
    before = hk.fit(problem.network(), problem.loss(), lr=1e-3, max_steps=20).network.flatten()
    assert hk.fit(problem.network(), problem.loss(), lr=0.3, max_steps=1000).status == "diverged"
    after = hk.fit(problem.network(), problem.loss(), lr=1e-3, max_steps=20).network.flatten()
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("every", [1, 2])
def test_divergence_of_one_of_an_ensemble_where_a_piece_begins(backend, every):
    """What is recorded between steps ends a piece, and with it what the lanes of vectors remember."""
    problem = problems.normal([4, 12, 3], 10, 5, bias=True)
    nets = [hk.LinearNetwork.random([4, 12, 3], seed=seed, bias=True) for seed in range(3)]
    options = {"max_steps": 6, "record": ("loss", "balance"), "record_every": every}
    runs = hk.fit_ensemble(nets, problem.loss(), lr=[0.001, 30.0, 0.001], **options)
    alone = hk.fit(nets[1], problem.loss(), lr=30.0, **options)
    assert (runs.status[1], runs.steps[1]) == (alone.status, alone.steps) == ("diverged", 3)
    np.testing.assert_allclose(runs.network(1).flatten(), alone.network.flatten(), rtol=1e-9)
