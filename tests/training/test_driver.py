"""The updates of `fit` are those of torch.optim.SGD, step for step."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
import trainings
from looped import each, few_quick
from trainings import METHODS, PAIRS, SHAPES, of_oracle, of_torch, rate, training
from witness import relative

import hesskern as hk

STEPS = 100
RECORD = ("loss", "weights")


def run(shape, method, number, steps=STEPS, dtype="float64", **options):
    problem = training(shape, number)
    keywords = {"lr": rate(shape, number), "max_steps": steps, "record": RECORD} | METHODS[method] | options
    return hk.fit(problem.network(dtype), problem.loss(dtype), **keywords)


@each("reduce", ["auto", "none"])
@each(("shape", "method", "number"), PAIRS, quick=14)
@pytest.mark.quick_in_cpp
def test_every_step_is_that_of_torch(backend, shape, method, number, reduce):
    expected = of_torch(shape, method, number, STEPS)
    assert np.isfinite(expected.thetas).all()
    found = run(shape, method, number, reduce=reduce)
    assert (found.status, found.steps) == ("max_steps", STEPS)
    relative(found.network.flatten(), expected.thetas[-1], 1e-12)
    relative(found.history["weights"], expected.thetas[:-1], 1e-12)
    np.testing.assert_allclose(found.history["loss"], expected.losses[:-1], rtol=1e-11)
    np.testing.assert_array_equal(found.history["step"], np.arange(STEPS))


@each(("shape", "method", "number"), PAIRS, quick=14)
def test_the_plain_loop_of_these_tests_is_that_of_torch(shape, method, number):
    """Other tests compare with `oracle.train`, which knows more kinds of numbers and more rates."""
    ours, theirs = of_oracle(shape, method, number, STEPS), of_torch(shape, method, number, STEPS)
    relative(ours.thetas, theirs.thetas, 1e-14)
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-12)
    np.testing.assert_allclose(ours.batch_losses, theirs.batch_losses, rtol=1e-12)


@each("reduce", ["auto", "none"])
@each(("shape", "method", "number"), PAIRS, quick=14)
@pytest.mark.quick_in_cpp
def test_single_precision(backend, close, shape, method, number, reduce):
    expected = of_oracle(shape, method, number, STEPS)
    found = run(shape, method, number, dtype="float32", reduce=reduce)
    assert found.network.dtype == np.float32
    close(found.network.flatten(), expected.thetas[-1], "float32")
    close(found.history["loss"], expected.losses[:-1], "float32")
    assert found.history["weights"].dtype == np.float32


@pytest.mark.parametrize("method", few_quick(METHODS, 2))
@pytest.mark.parametrize("shape", ["wide with biases", "deep"])
@pytest.mark.parametrize("compiled", ["cpp", "numba"])
@pytest.mark.quick_in_cpp
def test_backends_walk_the_same_path(shape, method, compiled):
    ours, reference = (run(shape, method, 4, steps=1000, backend=name) for name in (compiled, "numpy"))
    relative(ours.history["weights"], reference.history["weights"], 1e-12)
    np.testing.assert_allclose(ours.history["loss"], reference.history["loss"], rtol=1e-11)


LARGE = [
    ([280, 260, 270], 270, []),  # products above the BLAS threshold
    ([90, 300, 80], 500, [0]),  # width and data reduce
    ([60, 50, 70, 40], 64, [1, 2]),
]


@pytest.mark.parametrize(("widths", "samples", "biased"), LARGE)
@pytest.mark.parametrize("method", ["heavy ball", "everything"])
def test_large_networks(widths, samples, biased, method):
    options = METHODS[method] | ({"batch_size": 100} if "batch_size" in METHODS[method] else {})
    problem = trainings.with_biases(problems.normal(widths, samples, 8, bias=True, kind="mean"), biased)
    expected = oracle.train(problem, 0.05, 20, **options)
    assert expected.losses[-1] < expected.losses[0]
    for reduce in ("auto", "none"):
        found = hk.fit(problem.network(), problem.loss(), lr=0.05, max_steps=20, reduce=reduce, **options)
        relative(found.network.flatten(), expected.thetas[-1], 1e-12)
        np.testing.assert_allclose(found.history["loss"], expected.losses[:-1], rtol=1e-11)


@pytest.mark.parametrize("kind", problems.KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_kinds_differ_by_the_learning_rate_only(backend, kind, method):
    """Without decay, ``sum`` at lr is ``half_sum`` at 2 lr; ``mean`` divides by the size of each batch."""
    problem = trainings.with_biases(problems.normal([3, 5, 2], 8, 1, bias=True, kind=kind), [1])
    factor = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / 16}[kind]
    options = METHODS[method]
    size = options.get("batch_size")
    rates = np.full(30, 0.01)
    if kind == "mean" and size is not None:
        batch = [len(rows) for rows, _ in zip(oracle.batches(8, size), range(30), strict=False)]
        rates, factor = 0.02 / (2.0 * np.array(batch)), 1.0
    half = problems.normal([3, 5, 2], 8, 1, bias=True)
    half = trainings.with_biases(half, [1])
    found = hk.fit(problem.network(), problem.loss(), lr=0.01, max_steps=30, **options)
    plain = hk.fit(half.network(), half.loss(), lr=factor * rates, max_steps=30, **options)
    if options.get("momentum") and kind == "mean" and size is not None:
        pytest.skip("the velocity mixes batches of different sizes")
    relative(found.network.flatten(), plain.network.flatten(), 1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99, 1.0, 1.2])
@pytest.mark.parametrize("nesterov", [False, True])
def test_any_momentum(backend, momentum, nesterov):
    """PyTorch takes every momentum >= 0, and Nesterov's formula for those > 0."""
    if nesterov and momentum == 0.0:
        pytest.skip("refused, as PyTorch does; see test_options.py")
    problem = training("two layers", 3)
    options = {"momentum": momentum, "nesterov": nesterov}
    expected = oracle.train(problem, 0.2 * rate("two layers", 3), 12, **options)
    found = hk.fit(problem.network(), problem.loss(), lr=0.2 * rate("two layers", 3), max_steps=12, **options)
    relative(found.network.flatten(), expected.thetas[-1], 1e-11)


def test_the_first_step_is_the_same_with_and_without_momentum(backend):
    problem = training("two layers", 0)
    runs = [
        hk.fit(problem.network(), problem.loss(), lr=0.001, max_steps=1, momentum=momentum) for momentum in (0.0, 0.9)
    ]
    np.testing.assert_array_equal(runs[0].network.flatten(), runs[1].network.flatten())
    gradient = oracle.loss_and_gradient(problem.network().flatten(), problem)[1]
    nesterov = hk.fit(problem.network(), problem.loss(), lr=0.001, max_steps=1, momentum=0.9, nesterov=True)
    relative(nesterov.network.flatten(), problem.network().flatten() - 0.001 * 1.9 * gradient, 1e-14)


def test_decay_pulls_on_what_no_sample_sees(backend):
    """An input that is always zero: its weights shrink by ``1 - lr * decay`` a step, whatever is reduced."""
    problem = problems.normal([3, 8, 2], 20, 5, weight_decay=0.5)
    problem.X[:, 1] = 0.0
    for reduce in ("auto", "none"):
        one = hk.fit(
            hk.LinearNetwork([problem.weights[0][:2]]), problem.loss(), lr=0.01, max_steps=50, reduce=reduce
        ).network.weights[0]
        np.testing.assert_allclose(one[:, 1], problem.weights[0][:2, 1] * (1 - 0.01 * 0.5) ** 50, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.quick_in_cpp
def test_the_same_arguments_give_the_same_bits(backend, shape):
    first, second = (run(shape, "everything", 3) for _ in range(2))
    np.testing.assert_array_equal(first.history["weights"], second.history["weights"])
    np.testing.assert_array_equal(first.history["loss"], second.history["loss"])


@each("seed", range(0, 150, 2), quick=20)
@pytest.mark.quick_in_cpp
def test_any_shape(backend, seed):
    """Widths around the length of a vector register, short last batches, with and without records beside."""
    rng = np.random.default_rng([99, seed])
    depth = int(rng.integers(1, 5))
    widths = [int(width) for width in rng.integers(1, 14, depth + 1)]
    samples = int(rng.integers(2, 14))
    problem = trainings.with_biases(
        problems.normal(widths, samples, seed, bias=True), [layer for layer in range(depth) if rng.random() < 0.4]
    )
    value, gradient = oracle.loss_and_gradient(problem.network().flatten(), problem)
    lr = 0.1 * value / float(gradient @ gradient)
    options = {
        "batch_size": int(rng.integers(1, samples + 1)) if rng.random() < 0.8 else None,
        "momentum": float(rng.choice([0.0, 0.5])),
        "seed": seed,
    }
    record = [("weights",), ("weights", "loss", "gradient_norm"), ("weights", "loss", "sharpness")][seed % 3]
    expected = oracle.train(problem, lr, 12, **options)
    found = hk.fit(
        problem.network(), problem.loss(), lr=lr, max_steps=12, record=record, reduce=str(rng.choice(["auto", "none"])),
        **options,
    )  # fmt: skip
    relative(found.history["weights"], expected.thetas[:-1])
    relative(found.network.flatten(), expected.thetas[-1])
    if "loss" in record:
        np.testing.assert_allclose(found.history["loss"], expected.losses[:-1], rtol=1e-11, atol=1e-25)
