"""fit_ensemble: each network as if it were alone."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
import trainings
from ensembles import same_as_alone
from looped import each, few_quick
from trainings import COUNT, METHODS, SHAPES, rate, starts, training
from witness import relative

import hesskern as hk

RECORD = ("loss", "gradient_norm", "balance", "distance", "weights", "sharpness", "condition[0]", "rank")


PAIRS = [
    pytest.param(shape, method, (s + 2 * m) % 6, id=f"{shape}, {method}")
    for s, shape in enumerate(SHAPES)
    for m, method in enumerate(METHODS)
    if (s + m) % 2 == 0
]


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize(("shape", "method", "number"), few_quick(PAIRS, 2))
@pytest.mark.quick_in_cpp
def test_every_network_is_trained_as_if_alone(backend, shape, method, number, reduce):
    problem = training(shape, number)
    nets = starts(problem)
    options = {"lr": 0.5 * rate(shape, number), "max_steps": 13, "record": RECORD, "record_every": 3, "reduce": reduce}
    options |= METHODS[method]
    same_as_alone(hk.fit_ensemble(nets, problem.loss(), **options), nets, problem.loss(), **options)


@pytest.mark.parametrize(("shape", "method"), [("wide with biases", "everything"), ("deep", "plain")])
def test_against_the_plain_loop(backend, shape, method):
    problem = training(shape, 3)
    nets = starts(problem)
    lr = 0.5 * rate(shape, 3) * np.linspace(0.5, 1.5, COUNT)
    runs = hk.fit_ensemble(nets, problem.loss(), lr=lr, max_steps=100, **METHODS[method])
    for b, net in enumerate(nets):
        own = problems.Problem(
            list(net.weights), list(net.biases), problem.X, problem.Y, problem.kind, problem.weight_decay
        )
        expected = oracle.train(own, lr[b], 100, **METHODS[method])
        relative(runs.network(b).flatten(), expected.thetas[-1])
        np.testing.assert_allclose(runs.history["loss"][b], expected.losses[:-1], rtol=1e-11)


def test_shapes_of_the_results(backend):
    problem = problems.normal([3, 6, 2], 8)
    runs = hk.fit_ensemble(starts(problem, 4), problem.loss(), lr=0.001, max_steps=10, record=("loss", "weights"))
    assert [weight.shape for weight in runs.weights] == [(4, 6, 3), (4, 2, 6)]
    assert list(runs.biases) == [None, None]
    assert runs.history["step"].tolist() == list(range(10))
    assert runs.history["loss"].shape == (4, 10)
    assert runs.history["weights"].shape == (4, 10, 30)
    assert runs.status.tolist() == ["max_steps"] * 4
    assert runs.steps.tolist() == [10] * 4
    assert runs.reduction.widths == ((3, 6, 2), (3, 5, 2))
    assert runs.reduction.samples == (8, 3)
    assert str(runs.reduction) == "8 samples to 3 rows; widths 3-6-2 to 3-5-2"
    assert isinstance(runs.network(3), hk.LinearNetwork)
    np.testing.assert_array_equal(runs.network(np.int64(3)).flatten(), runs.network(3).flatten())
    assert len(runs) == 4


@pytest.mark.quick_in_cpp
def test_own_learning_rates(backend):
    problem = problems.normal([3, 9, 2], 8, bias=True)
    nets = starts(problem)
    lr = 0.001 * np.arange(1, COUNT + 1)
    record = ("loss", "sharpness")
    runs = hk.fit_ensemble(nets, problem.loss(), lr=lr, max_steps=20, record=record, momentum=0.5)
    same_as_alone(runs, nets, problem.loss(), lr=lr.tolist(), max_steps=20, record=record, momentum=0.5)
    np.testing.assert_allclose(runs.history["2/lr"], np.tile(2 / lr[:, None], 20), rtol=1e-15)


def test_own_schedules(backend):
    problem = problems.normal([3, 9, 2], 8, bias=True)
    nets = starts(problem)
    table = 0.002 * np.random.default_rng(1).random((COUNT, 15))
    runs = hk.fit_ensemble(nets, problem.loss(), lr=table, max_steps=15)
    same_as_alone(runs, nets, problem.loss(), lr=list(table), max_steps=15)
    by_function = hk.fit_ensemble(nets, problem.loss(), lr=lambda step: table[:, step], max_steps=15)
    np.testing.assert_array_equal(by_function.weights[0], runs.weights[0])
    shared = hk.fit_ensemble(nets, problem.loss(), lr=lambda step: float(table[2, step]), max_steps=15)
    same_as_alone(shared, nets, problem.loss(), lr=table[2], max_steps=15)


def test_as_many_networks_as_steps(backend):
    """An array of B numbers is one for each network, whatever max_steps is."""
    problem = problems.normal([3, 4, 2], 8)
    nets = starts(problem)
    lr = 0.001 * np.arange(1, COUNT + 1)
    runs = hk.fit_ensemble(nets, problem.loss(), lr=lr, max_steps=COUNT)
    same_as_alone(runs, nets, problem.loss(), lr=lr.tolist(), max_steps=COUNT)


@pytest.mark.long
@pytest.mark.parametrize("method", ["plain", "everything"])
@each("reduce", ["auto", "none"])
def test_own_data(backend, method, reduce):
    nets = starts(problems.normal([3, 9, 2], 8, bias=True))
    losses = [problems.normal([3, 9, 2], 8, seed, kind="mean", weight_decay=0.1).loss() for seed in range(COUNT)]
    options = {"lr": 0.02, "max_steps": 20, "record": RECORD, "reduce": reduce} | METHODS[method]
    same_as_alone(hk.fit_ensemble(nets, losses, **options), nets, losses, **options)


def test_own_seeds(backend):
    problem = problems.normal([3, 9, 2], 8, bias=True)
    nets = starts(problem)
    seeds = [5, 0, 5, 2**40, 7]
    options = {"lr": 0.002, "max_steps": 30, "batch_size": 3, "record": ("loss", "batch_loss")}
    runs = hk.fit_ensemble(nets, problem.loss(), seed=np.array(seeds), **options)
    same_as_alone(runs, nets, problem.loss(), seed=seeds, **options)
    runs = hk.fit_ensemble(nets, problem.loss(), seed=5, **options)  # the same batches for all
    same_as_alone(runs, nets, problem.loss(), seed=5, **options)


@pytest.mark.quick_in_cpp
def test_own_ends(backend):
    """One converges at once, others later, one diverges, one takes all steps; none disturbs another."""
    problem = problems.normal([3, 9, 2], 3, 2)
    nets = starts(problem, spread=0.1)
    top = trainings.sharpness(problem)
    lr = np.array([0.9, 0.4, 60.0, 1e-6, 0.8]) / top
    options = {"max_steps": 2000, "rtol": 1e-6, "record": ("loss", "sharpness", "weights"), "record_every": 7}
    for reduce in ("auto", "none"):
        runs = hk.fit_ensemble(nets, problem.loss(), lr=lr, reduce=reduce, **options)
        same_as_alone(runs, nets, problem.loss(), lr=lr.tolist(), reduce=reduce, **options)
        assert runs.status.tolist() == ["converged", "converged", "diverged", "max_steps", "converged"]
        assert len(set(runs.steps.tolist())) == 5
        assert all(np.isfinite(weight).all() for weight in runs.weights)


def test_all_diverge(backend):
    problem = problems.normal([3, 9, 2], 3, 2)
    nets = starts(problem)
    runs = hk.fit_ensemble(nets, problem.loss(), lr=3.0, max_steps=100)
    same_as_alone(runs, nets, problem.loss(), lr=3.0, max_steps=100)
    assert set(runs.status) == {"diverged"}
    assert runs.history["loss"].shape[1] < 50


def test_a_start_whose_loss_is_infinite(backend):
    one = np.ones((1, 1))
    nets = [hk.LinearNetwork([value * one]) for value in (1.0, 1e200, 2.0)]
    loss = hk.SquaredLoss(one, 0 * one)
    runs = hk.fit_ensemble(nets, loss, lr=0.1, max_steps=5)
    assert runs.status.tolist() == ["max_steps", "diverged", "max_steps"]
    assert runs.steps.tolist() == [5, 0, 5]
    np.testing.assert_allclose(runs.weights[0].ravel(), [0.9**5, 1e200, 2 * 0.9**5], rtol=1e-14)
    assert np.isnan(runs.history["loss"][1]).all()


@pytest.mark.parametrize("shape", ["wide with biases", "deep"])
def test_single_precision(backend, shape):
    problem = training(shape, 3)
    nets = starts(problem, dtype="float32")
    options = {"lr": 0.5 * rate(shape, 3), "max_steps": 20, "record": ("loss", "weights"), "momentum": 0.5}
    runs = hk.fit_ensemble(nets, problem.loss("float32"), **options)
    same_as_alone(runs, nets, problem.loss("float32"), **options)
    assert runs.weights[0].dtype == np.float32


def test_leak_is_the_largest(backend):
    problem = problems.normal([3, 20, 2], 8)
    nets = starts(problem)
    lr = 1e-4 * np.arange(1, COUNT + 1)
    runs = hk.fit_ensemble(nets, problem.loss(), lr=lr, max_steps=50)
    alone = [hk.fit(net, problem.loss(), lr=rate, max_steps=50) for net, rate in zip(nets, lr, strict=True)]
    assert runs.reduction.leak == max(run.reduction.leak for run in alone)
    assert runs.reduction.widths == alone[0].reduction.widths


def test_starts_of_different_rank(backend):
    """What one network allows to be reduced further must not be taken from another."""
    problem = problems.normal([3, 12, 2], 8)
    nets = starts(problem, 3)
    zero = hk.LinearNetwork([np.zeros((12, 3)), np.zeros((2, 12))])
    line = hk.LinearNetwork([np.outer(np.arange(12.0), np.ones(3)), np.outer(np.ones(2), np.arange(12.0))])
    half = hk.LinearNetwork([nets[0].weights[0], np.zeros((2, 12))])
    nets = [zero, nets[0], line, half, nets[1]]
    options = {"lr": 1e-4, "max_steps": 30}
    runs = hk.fit_ensemble(nets, problem.loss(), **options)
    for b, net in enumerate(nets):
        alone = hk.fit(net, problem.loss(), reduce="none", **options)
        relative(runs.network(b).flatten(), alone.network.flatten(), 1e-12)


def test_any_sequence_of_networks(backend):
    problem = problems.normal([3, 4, 2], 8)
    nets = starts(problem)
    expected = hk.fit_ensemble(nets, problem.loss(), lr=0.01, max_steps=3).weights[0]
    found = hk.fit_ensemble(tuple(nets), problem.loss(), lr=0.01, max_steps=3).weights[0]
    np.testing.assert_array_equal(found, expected)
    before = [net.flatten() for net in nets]
    for net, theta in zip(nets, before, strict=True):
        np.testing.assert_array_equal(net.flatten(), theta)


def test_repr_counts_the_ends(backend):
    problem = problems.normal([3, 9, 2], 3, 2)
    text = repr(hk.fit_ensemble(starts(problem), problem.loss(), lr=[1e-3, 1e-3, 3.0, 1e-3, 1e-3], max_steps=50))
    assert "5" in text
    assert "diverged" in text
    assert "max_steps" in text
