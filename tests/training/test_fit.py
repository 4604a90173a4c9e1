"""fit: full-batch gradient descent, when it stops and what it hands back."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from looped import each, few_quick

import hesskern as hk

CONFIGURATIONS = [
    # widths, samples, bias, kind, weight decay, lr
    ([4, 7, 3], 9, False, "half_sum", 0.0, 0.01),
    ([4, 7, 3], 9, True, "mean", 0.1, 0.1),
    ([5, 4, 6, 3], 3, False, "sum", 0.05, 0.005),
    ([3, 8, 2, 5, 2], 40, True, "mean", 0.0, 0.1),
    ([6, 2], 20, True, "half_sum", 0.01, 0.01),
    ([1, 1, 1], 1, False, "half_sum", 0.0, 0.1),
    ([2, 30, 1], 5, True, "mean", 0.2, 0.005),
    ([280, 260, 270], 270, False, "mean", 0.0, 1.0),  # products above the BLAS threshold
]


@pytest.mark.parametrize(
    ("widths", "samples", "bias", "kind", "decay", "lr"), few_quick([pytest.param(*one) for one in CONFIGURATIONS], 3)
)
@each("reduce", ["auto", "none"])
@pytest.mark.quick_in_cpp
def test_every_step_is_the_definition(backend, close, dtype, reduce, widths, samples, bias, kind, decay, lr):
    problem = problems.normal(widths, samples, 4, bias=bias, kind=kind, weight_decay=decay)
    expected = oracle.train(problem, lr, 40)
    run = hk.fit(problem.network(dtype), problem.loss(dtype), lr=lr, max_steps=40, reduce=reduce)
    assert run.network.dtype == dtype
    close(run.network.flatten(), expected.thetas[-1], dtype)
    close(run.history["loss"], expected.losses[:-1], dtype)
    rows = widths[0] + bias
    assert run.reduction.samples == ((samples, rows) if reduce == "auto" and samples > rows else None)


def test_reduction_changes_nothing_but_rounding(backend):
    problem = problems.normal([4, 20, 3], 500, bias=True, kind="mean")
    runs = [hk.fit(problem.network(), problem.loss(), lr=0.1, max_steps=200, reduce=how) for how in ("auto", "none")]
    assert str(runs[0].reduction) == "500 samples to 5 rows; widths 4-20-3 to 4-8-3"
    assert str(runs[1].reduction) == ""
    np.testing.assert_allclose(runs[0].history["loss"], runs[1].history["loss"], rtol=1e-12)
    np.testing.assert_allclose(runs[0].network.flatten(), runs[1].network.flatten(), rtol=0, atol=1e-12)


def test_the_network_given_is_not_changed(backend):
    problem = problems.normal([3, 4, 2], 6, bias=True)
    net = problem.network()
    before = net.flatten()
    run = hk.fit(net, problem.loss(), lr=0.01, max_steps=5)
    np.testing.assert_array_equal(net.flatten(), before)
    assert not np.array_equal(run.network.flatten(), before)


def test_rtol_stops_after_the_step_whose_loss_is_small_enough(backend):
    problem = problems.normal([3, 6, 2], 3)
    expected = oracle.train(problem, 0.05, 400)
    losses = expected.losses
    rtol = 1.0001 * losses[250] / losses[0]
    first = int(np.argmax(losses <= rtol * losses[0]))
    assert 200 < first <= 250
    run = hk.fit(problem.network(), problem.loss(), lr=0.05, max_steps=400, rtol=rtol)
    assert (run.status, run.steps) == ("converged", first + 1)
    assert len(run.history["loss"]) == first + 1
    assert run.history["loss"][-1] <= rtol * run.history["loss"][0] < run.history["loss"][-2]
    # The update of that step is made, as in a loop that tests the loss after optimizer.step().
    np.testing.assert_allclose(run.network.flatten(), expected.thetas[first + 1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("max_steps", [1, 63, 64, 65, 200])
def test_max_steps_is_exact(backend, max_steps):
    problem = problems.normal([3, 6, 2], 3)
    run = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=max_steps)
    assert (run.status, run.steps, len(run.history["loss"])) == ("max_steps", max_steps, max_steps)
    np.testing.assert_allclose(run.history["loss"], oracle.train(problem, 0.01, max_steps).losses[:-1], rtol=1e-11)


def test_rtol_one_and_a_perfect_start_converge_at_once(backend):
    problem = problems.normal([3, 6, 2], 3)
    run = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=10, rtol=1.0)
    assert (run.status, run.steps) == ("converged", 1)
    perfect = hk.SquaredLoss(np.eye(2), np.eye(2))
    run = hk.fit(hk.LinearNetwork([np.eye(2), np.eye(2)]), perfect, lr=0.1, max_steps=10, rtol=0.0)
    assert (run.status, run.steps) == ("converged", 1)
    np.testing.assert_array_equal(run.history["loss"], [0.0])


@pytest.mark.parametrize("every", [1, 2, 7, 64, 100, 1000])
def test_record_every(backend, every):
    problem = problems.normal([3, 6, 2], 3)
    whole = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300).history
    thin = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=300, record_every=every).history
    np.testing.assert_array_equal(thin["step"], whole["step"][::every])
    np.testing.assert_array_equal(thin["loss"], whole["loss"][::every])


def test_record_nothing(backend):
    problem = problems.normal([3, 6, 2], 3)
    run = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=3, record=())
    assert "loss" not in run.history
    assert run.steps == 3


def test_repr_says_how_it_ended():
    problem = problems.normal([3, 6, 2], 3)
    run = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=3)
    first, last = run.history["loss"][[0, -1]]
    assert repr(run) == f"Run(max_steps after 3 steps, loss {first:.6g} -> {last:.6g})"


def test_a_run_without_losses_has_a_repr():
    case = hk.datasets.two_layer_case()
    run = hk.fit(case.network, hk.SquaredLoss(case.X, case.Y), lr=1e-6, max_steps=3, record=())
    assert repr(run) == "Run(max_steps after 3 steps)"
    assert list(run.history) == ["step"]
