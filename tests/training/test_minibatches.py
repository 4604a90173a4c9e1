"""Minibatches: which samples a step sees, and what is measured on them."""

from __future__ import annotations

import itertools

import numpy as np
import oracle
import problems
import pytest
from looped import each
from trainings import METHODS, rate, training
from witness import relative

import hesskern as hk

SAMPLES = 7


def seen(steps, reduce="auto", **options):
    """Which samples each step saw: sample k is the k-th unit vector, and a step shrinks the columns that it sees."""
    loss = hk.SquaredLoss(np.eye(SAMPLES), np.zeros((SAMPLES, 2)))
    net = hk.LinearNetwork([np.ones((2, SAMPLES))])
    run = hk.fit(net, loss, lr=0.5, max_steps=steps, record=("weights",), reduce=reduce, **options)
    weights = np.vstack([run.history["weights"], run.network.flatten()]).reshape(-1, 2, SAMPLES)
    assert (weights[:, 0] == weights[:, 1]).all()
    ratio = weights[1:, 0] / weights[:-1, 0]
    assert np.isin(ratio, [0.5, 1.0]).all()
    return [set(np.flatnonzero(row == 0.5).tolist()) for row in ratio]


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize("seed", [0, 3, 2**40])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_the_order_is_the_one_documented(backend, size, seed, reduce):
    per_epoch = -(-SAMPLES // size)
    found = seen(4 * per_epoch + 1, reduce, batch_size=size, seed=seed)
    expected = []
    for epoch in range(5):
        order = np.random.default_rng([seed, epoch]).permutation(SAMPLES).tolist()
        expected += [set(order[at : at + size]) for at in range(0, SAMPLES, size)]
    assert found == expected[: 4 * per_epoch + 1]


def test_without_shuffling_the_order_is_that_of_the_rows(backend):
    assert seen(5, batch_size=3, shuffle=False) == [{0, 1, 2}, {3, 4, 5}, {6}, {0, 1, 2}, {3, 4, 5}]
    assert seen(5, batch_size=3, shuffle=False, seed=9) == seen(5, batch_size=3, shuffle=False)


def test_another_seed_is_another_order(backend):
    assert seen(20, batch_size=2, seed=1) == seen(20, batch_size=2, seed=np.int64(1))
    assert seen(20, batch_size=2, seed=1) != seen(20, batch_size=2, seed=2)
    assert seen(20, batch_size=2) == seen(20, batch_size=2, seed=0)


def test_every_epoch_sees_every_sample_once(backend):
    steps = seen(3 * 4, batch_size=2, seed=4)
    for epoch in range(3):
        batches = steps[4 * epoch : 4 * epoch + 4]
        assert sorted(map(len, batches)) == [1, 2, 2, 2]
        assert len(batches[-1]) == 1  # the last one is the short one
        assert set().union(*batches) == set(range(SAMPLES))


@pytest.mark.parametrize("shape", ["two layers", "wide with biases", "deep", "few samples"])
@each(
    ("method", "number"),  # kinds and decay
    [(method, k) for k in range(6) for method in ("minibatches", "minibatches in order", "everything")],
    quick=6,
)
def test_the_two_losses(backend, shape, method, number):
    problem, lr = training(shape, number), rate(shape, number)
    expected = oracle.train(problem, lr, 30, **METHODS[method])
    run = hk.fit(
        problem.network(), problem.loss(), lr=lr, max_steps=30, record=("loss", "batch_loss"), **METHODS[method]
    )
    np.testing.assert_allclose(run.history["loss"], expected.losses[:-1], rtol=1e-11)
    np.testing.assert_allclose(run.history["batch_loss"], expected.batch_losses, rtol=1e-11)
    relative(run.network.flatten(), expected.thetas[-1])


def test_all_samples_in_one_batch(backend):
    problem = problems.normal([3, 12, 2], 9, bias=True)
    whole = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=50)
    record = ("loss", "batch_loss")
    batch = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=50, batch_size=9, record=record)
    relative(batch.network.flatten(), whole.network.flatten(), 1e-13)
    np.testing.assert_allclose(batch.history["batch_loss"], batch.history["loss"], rtol=1e-13)
    np.testing.assert_allclose(batch.history["loss"], whole.history["loss"], rtol=1e-12)


def test_samples_are_not_reduced_where_batches_need_them(backend):
    problem = problems.normal([3, 20, 2], 100)
    run = hk.fit(problem.network(), problem.loss(), lr=1e-3, max_steps=10, batch_size=10)
    assert run.reduction.samples is None
    assert run.reduction.widths == ((3, 20, 2), (3, 5, 2))
    run = hk.fit(problem.network(), problem.loss(), lr=1e-3, max_steps=10, batch_size=10, reduce="none")
    assert run.reduction.samples is run.reduction.widths is None
    assert not run.reduction


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_rtol_is_about_all_samples(backend, reduce, batch_size):
    problem = problems.normal([5, 12, 2], 10, kind="mean")
    expected = oracle.train(problem, 0.1, 400, batch_size=batch_size, seed=2)
    rtol = 1.0001 * expected.losses[250] / expected.losses[0]
    first = int(np.argmax(expected.losses <= rtol * expected.losses[0]))
    assert 50 < first <= 250
    run = hk.fit(
        problem.network(), problem.loss(), lr=0.1, max_steps=400, rtol=rtol, batch_size=batch_size, seed=2,
        reduce=reduce,
    )  # fmt: skip
    assert (run.status, run.steps, len(run.history["loss"])) == ("converged", first + 1, first + 1)
    relative(run.network.flatten(), expected.thetas[first + 1])


@pytest.mark.quick_in_cpp
def test_recording_does_not_change_the_path(backend):
    problem = problems.normal([4, 9, 3], 11, bias=True, weight_decay=0.1)
    keywords = {"lr": 0.005, "max_steps": 60, "batch_size": 4, "momentum": 0.5}
    plain = hk.fit(problem.network(), problem.loss(), record=(), **keywords)
    record = ("loss", "batch_loss", "weights", "sharpness", "condition", "balance", "gradient_norm")
    for every in (1, 7):
        watched = hk.fit(problem.network(), problem.loss(), record=record, record_every=every, **keywords)
        np.testing.assert_array_equal(watched.network.flatten(), plain.network.flatten())
        assert watched.history["step"].tolist() == list(range(0, 60, every))


def test_batches_of_one_sample_each(backend):
    problem = problems.normal([1, 3, 1], 1)
    runs = [
        hk.fit(problem.network(), problem.loss(), lr=0.05, max_steps=20, **options)
        for options in ({}, {"batch_size": 1}, {"batch_size": 1, "shuffle": False})
    ]
    for run in runs[1:]:
        relative(run.network.flatten(), runs[0].network.flatten(), 1e-14)


def test_many_epochs_end_where_the_plain_loop_ends():
    """Long enough for thousands of permutations; a contraction, so that rounding stays where it is."""
    problem = problems.normal([6, 10, 2], 5, 2)
    expected = oracle.train(problem, 0.02, 4000, batch_size=2, seed=11)
    run = hk.fit(problem.network(), problem.loss(), lr=0.02, max_steps=4000, batch_size=2, seed=11)
    relative(run.network.flatten(), expected.thetas[-1])
    assert len(list(itertools.islice(oracle.batches(5, 2, seed=11), 4000))) == 4000
