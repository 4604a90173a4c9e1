"""Training on reduced widths and samples: the same trajectory, and where it is not that of the full width."""

from __future__ import annotations

import dataclasses

import mpmath
import numpy as np
import oracle
import problems
import pytest
import trainings
from looped import few_quick
from trainings import with_biases
from witness import relative

import hesskern as hk


def fit(problem, **options):
    return hk.fit(problem.network(), problem.loss(), **options)


#: widths, samples, layers with a bias, weight decay, lr * largest eigenvalue at the start, method
LONG = {
    "plain": ([4, 30, 3], 5, [], 0.0, 0.5, {}),
    "heavy ball": ([4, 30, 3], 50, [], 0.0, 0.3, {"momentum": 0.9}),
    "Nesterov": ([4, 30, 3], 5, [0, 1], 0.0, 0.3, {"momentum": 0.9, "nesterov": True}),
    "decay": ([4, 30, 3], 50, [0], 0.05, 0.5, {"momentum": 0.5}),
    "minibatches": ([6, 30, 3], 5, [], 0.0, 0.3, {"batch_size": 2, "seed": 3}),
    "minibatches, decay, Nesterov": (
        [4, 30, 3], 5, [0, 1], 0.05, 0.3, {"batch_size": 2, "seed": 3, "momentum": 0.8, "nesterov": True},
    ),
    "beyond 2/lambda": ([4, 60, 3], 5, [], 0.0, 3.6, {}),
    "beyond 2/lambda, decay": ([4, 60, 3], 5, [0], 0.01, 3.2, {}),
    "deep": ([3, 12, 4, 20, 2], 5, [], 0.0, 0.5, {"momentum": 0.5}),
    "deep, some biases": ([3, 12, 4, 20, 2], 30, [0, 2, 3], 0.02, 0.5, {"batch_size": 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", few_quick(LONG, 3))
@pytest.mark.quick_in_cpp
def test_reduced_and_unreduced_runs_stay_together(backend, name):
    widths, samples, biased, decay, fraction, method = LONG[name]
    problem = with_biases(problems.normal(widths, samples, 9, bias=True, weight_decay=decay), biased)
    lr = fraction / trainings.sharpness(problem)
    steps = 10_000 if backend.name != "numpy" else 1000  # the definition takes 0.1 ms a step
    options = {"lr": lr, "max_steps": steps, "record": ("loss", "weights"), "record_every": 100} | method
    auto, none = (fit(problem, reduce=how, **options) for how in ("auto", "none"))
    assert auto.status == none.status == "max_steps"
    assert auto.reduction.widths is not None
    assert none.reduction.widths is none.reduction.samples is None
    relative(auto.history["weights"], none.history["weights"], 1e-12)
    relative(auto.network.flatten(), none.network.flatten(), 1e-12)
    assert auto.network.widths == tuple(widths)
    if fraction > 2:
        assert (
            auto.history["loss"][0]
            < fit(problem, **(options | {"max_steps": 30, "record_every": 1})).history["loss"].max() / 5
        )  # the catapult is there
    # And neither went astray: the plain loop of these tests is there too.
    expected = oracle.train(problem, lr, 1000, **method)
    relative(auto.history["weights"][:10], expected.before(100))


@pytest.mark.parametrize("reduce", ["auto", "none"])
def test_the_case_both_ways(backend, reduce):
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    run = hk.fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=case.rtol, reduce=reduce)
    assert (run.status, run.steps) == ("converged", 608)
    assert loss.hessian(run.network, params=[1]).cond() == pytest.approx(174.0739405, rel=1e-9)
    assert loss.hessian(run.network, params=[1]).rank() == 25
    # By an SVD that is not ours, on the weights as they are.
    values = np.linalg.svd(case.X @ run.network.weights[0].T, compute_uv=False)
    assert (values[0] / values[4]) ** 2 == pytest.approx(174.0739405, rel=1e-9)
    expected = ((5, 100, 5), (5, 10, 5)) if reduce == "auto" else None
    assert run.reduction.widths == expected
    assert run.reduction.samples is None


def after(widths, biased=(), **options):
    problem = with_biases(problems.normal(widths, 9, bias=True), biased)
    return fit(problem, lr=1e-4, max_steps=2, **options).reduction


@pytest.mark.parametrize(
    ("widths", "biased", "expected"),
    [
        ([5, 100, 5], [], [5, 10, 5]),
        ([5, 100, 5], [0], [5, 11, 5]),
        ([5, 100, 5], [1], [5, 10, 5]),  # the bias of the layer above is none of its columns
        ([3, 6, 2], [], [3, 5, 2]),
        ([3, 12, 8, 3], [], [3, 11, 8, 3]),
        ([2, 13, 2, 7, 2], [], [2, 4, 2, 4, 2]),
        ([2, 13, 2, 7, 2], [0, 2], [2, 5, 2, 5, 2]),
        ([2, 3, 40, 5, 2], [2], [2, 3, 8, 5, 2]),
        ([1, 50, 1], [], [1, 2, 1]),
    ],
)
def test_what_widths_become(backend, widths, biased, expected):
    reduction = after(widths, biased)
    assert reduction.widths == (tuple(widths), tuple(expected))
    assert reduction
    words = f"widths {'-'.join(map(str, widths))} to {'-'.join(map(str, expected))}"
    assert str(reduction).endswith(words)
    eps = np.finfo(float).eps
    assert eps <= reduction.leak < 2 * eps
    none = after(widths, biased, reduce="none")
    assert not none
    assert (none.widths, none.samples, none.leak) == (None, None, 0.0)


@pytest.mark.parametrize(
    ("widths", "biased"), [([3, 5, 2], []), ([3, 6, 2], [0]), ([3, 4, 3], []), ([9, 2], []), ([2, 9, 8, 2], [])]
)
def test_widths_that_are_not_wider_than_their_neighbours_together_stay(backend, widths, biased):
    reduction = after(widths, biased)
    assert reduction.widths is None
    assert reduction.leak == 0.0


def test_the_words(backend):
    problem = problems.normal([5, 100, 5], 500)
    reduction = fit(problem, lr=1e-5, max_steps=3).reduction
    assert isinstance(reduction, hk.Reduction)
    assert str(reduction) == "500 samples to 5 rows; widths 5-100-5 to 5-10-5"
    assert reduction.samples == (500, 5)
    assert bool(reduction) is True
    problem = problems.normal([5, 10, 5], 500)
    assert str(fit(problem, lr=1e-5, max_steps=3).reduction) == "500 samples to 5 rows"
    problem = problems.normal([5, 100, 5], 5)
    reduction = fit(problem, lr=1e-5, max_steps=3).reduction
    assert str(reduction) == "widths 5-100-5 to 5-10-5"
    assert reduction.samples is None
    assert bool(fit(problem, lr=1e-5, max_steps=3, reduce="none").reduction) is False


@pytest.mark.quick_in_cpp
def test_a_very_wide_network(backend):
    problem = problems.normal([5, 20_000, 5], 40, kind="mean")
    expected = oracle.train(problem, 1e-4, 20, momentum=0.5)
    run = fit(problem, lr=1e-4, max_steps=20, momentum=0.5)
    assert run.reduction.widths == ((5, 20_000, 5), (5, 10, 5))
    relative(run.network.flatten(), expected.thetas[-1])
    np.testing.assert_allclose(run.history["loss"], expected.losses[:-1], rtol=1e-11)


@pytest.mark.parametrize("method", ["heavy ball", "everything"])
def test_single_precision_keeps_its_digits(backend, close, method):
    """Reducing rounds in the precision of the network, once."""
    problem = problems.normal([4, 200, 3], 60, 3, kind="mean")
    options = {"lr": 0.005, "max_steps": 300} | trainings.METHODS[method]
    expected = oracle.train(problem, 0.005, 300, **trainings.METHODS[method])
    run = hk.fit(problem.network("float32"), problem.loss("float32"), **options)
    assert run.reduction.widths == ((4, 200, 3), (4, 7, 3))
    close(run.network.flatten(), expected.thetas[-1], "float32")


# A stack without full rank: every unit a multiple of one and the same, so that the network can learn one mode only.

UNITS = np.array([1.0, -2, 3, 5, -7, 4, 6, -3, 2, 9, -1, 8])


def one_mode(units=UNITS):
    """Return the wide problem and the one of a single unit whose orbit it follows.

    Weights are small integers over 1024, so that products are exact and the stack has rank one to the last bit.
    """
    rng = np.random.default_rng(0)
    v, w = (np.round(rng.standard_normal(size) * 64) / 1024 for size in (3, 2))
    X, Y = rng.standard_normal((9, 3)), rng.standard_normal((9, 2))
    wide = problems.Problem([np.outer(units, v), np.outer(w, units)], [None, None], X, Y)
    length = np.sqrt(units @ units)
    return wide, problems.Problem([length * v[None], length * w[:, None]], [None, None], X, Y)


def lifted(thetas, units=UNITS):
    """Return the parameters of the wide network on the orbit of the narrow one."""
    unit = units / np.sqrt(units @ units)
    first, second = thetas[:, :3], thetas[:, 3:]
    wide = [np.einsum("h,ti->thi", unit, first), np.einsum("to,h->toh", second, unit)]
    return np.hstack([part.reshape(len(thetas), -1) for part in wide])


def off_the_orbit(rows):
    """Return how far the stack ``[W_1, W_2.T]`` of each row is from the line that it started on."""
    unit = UNITS / np.sqrt(UNITS @ UNITS)
    h = len(UNITS)
    stacks = np.concatenate([rows[:, : 3 * h].reshape(-1, h, 3), rows[:, 3 * h :].reshape(-1, 2, h).swapaxes(1, 2)], 2)
    return np.linalg.norm(stacks - unit[:, None] * np.einsum("h,thk->tk", unit, stacks)[:, None, :], axis=(1, 2))


def coupling_norms(problem, thetas):
    """Return the largest singular value of ``E.T X`` at each of these parameters."""
    norms = []
    for theta in thetas:
        (first, second), _ = oracle.split(theta, problem)
        norms.append(np.linalg.norm((problem.X @ first.T @ second.T - problem.Y).T @ problem.X, 2))
    return np.array(norms)


def test_the_reduced_run_stays_on_the_orbit_and_the_full_width_leaves_it(backend):
    wide, narrow = one_mode()
    orbit = oracle.train(narrow, 0.05, 400)
    options = {"lr": 0.05, "max_steps": 400, "record": ("weights", "loss")}
    reduced, full = fit(wide, **options), fit(wide, reduce="none", **options)
    # Reduced: with the narrow network all the way to its saddle.
    relative(reduced.history["weights"], lifted(orbit.thetas[:-1]), 1e-12)
    np.testing.assert_allclose(reduced.history["loss"], orbit.losses[:-1], rtol=1e-12)
    # Full width: away from it when rounding errors have grown to order one, as predicted.
    growth = np.cumprod(1 + 0.05 * coupling_norms(narrow, orbit.thetas[:-1]))
    predicted = np.finfo(float).eps * growth
    found = off_the_orbit(full.history["weights"])
    window = (predicted[:-1] > 1e-13) & (predicted[:-1] < 1e-2)
    assert window.sum() > 100
    ratio = found[1:][window] / predicted[:-1][window]
    assert 1e-3 < ratio.min() <= ratio.max() < 10
    assert found[300:].min() > 1.0
    assert full.history["loss"][-1] < 0.8 * reduced.history["loss"][-1]  # it learned a second mode
    # It says so; the norm is looked at every now and then only.
    assert np.log(reduced.reduction.leak) == pytest.approx(np.log(predicted[-1]), rel=0.01)
    assert reduced.reduction.leak > 1.0


@pytest.mark.quick_in_cpp
def test_the_orbit_in_high_precision(backend):
    """The same, where the witness is the full-width network itself, with 40 digits."""
    wide, _ = one_mode(UNITS[:6])
    with mpmath.workdps(40):
        exact = dataclasses.replace(
            wide, X=wide.X * mpmath.mpf(1), Y=wide.Y * mpmath.mpf(1), weights=[w * mpmath.mpf(1) for w in wide.weights]
        )
        orbit = oracle.train(exact, mpmath.mpf(0.05), 150)
        expected = orbit.thetas[-1].astype(float)
    run = fit(wide, lr=0.05, max_steps=150)
    relative(run.network.flatten(), expected, 1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.quick_in_cpp
def test_methods_stay_on_the_orbit_too(backend, momentum, batch_size):
    wide, narrow = one_mode()
    options = {"momentum": momentum, "batch_size": batch_size, "nesterov": momentum > 0}
    expected = oracle.train(narrow, 0.01, 1000, **options)
    run = fit(wide, lr=0.01, max_steps=1000, **options)
    relative(run.network.flatten(), lifted(expected.thetas[-1:])[0], 1e-11)


@pytest.mark.parametrize("kind", problems.KINDS)
def test_leak_is_the_product(backend, kind):
    problem = problems.normal([4, 30, 3], 9, 2, kind=kind)
    lr = 0.3 / trainings.sharpness(problem)
    thetas = oracle.train(problem, lr, 200).thetas[:-1]
    scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[kind]
    expected = np.finfo(float).eps * np.prod(1 + lr * scale * coupling_norms(problem, thetas))
    for given in (lr, np.full(200, lr)):
        assert fit(problem, lr=given, max_steps=200).reduction.leak == pytest.approx(expected, rel=1e-6)


def test_second_weights_of_zero(backend):
    """A common start: W_2 = 0. The stack has rank i, and the exact run stays in that span."""
    problem = problems.normal([3, 16, 2], 8, 6)
    problem.weights[1][:] = 0.0
    run = fit(problem, lr=0.02, max_steps=3000)
    expected = oracle.train(problem, 0.02, 200)
    relative(fit(problem, lr=0.02, max_steps=200).network.flatten(), expected.thetas[-1])
    basis = np.linalg.qr(problem.weights[0])[0]
    stack = np.hstack([run.network.weights[0], run.network.weights[1].T])
    assert np.linalg.norm(stack - basis @ (basis.T @ stack)) <= 1e-14 * np.linalg.norm(stack)


@pytest.mark.parametrize("widths", [[3, 16, 2], [3, 16, 4, 16, 2]])
@pytest.mark.parametrize("bias", [False, True])
def test_a_start_at_zero(backend, widths, bias):
    """A saddle that gradient descent does not leave; biases of the last layer learn the mean."""
    problem = problems.normal(widths, 8, 6, bias=bias)
    for array in (*problem.weights, *(b for b in problem.biases if b is not None)):
        array[:] = 0.0
    run = fit(problem, lr=0.05, max_steps=50, record=("loss", "weights"))
    expected = oracle.train(problem, 0.05, 50)
    np.testing.assert_allclose(run.network.flatten(), expected.thetas[-1], rtol=1e-13, atol=1e-16)
    assert run.steps == 50
    assert all(not weight.any() for weight in run.network.weights)


def test_units_that_are_copies_stay_copies(backend):
    problem = problems.normal([3, 4, 2], 8, 1)
    weights = [np.repeat(problem.weights[0], 4, axis=0), np.repeat(problem.weights[1], 4, axis=1)]
    run = hk.fit(hk.LinearNetwork(weights), problem.loss(), lr=0.002, max_steps=500)
    first, second = run.network.weights
    scale = np.abs(run.network.flatten()).max()
    for copy in range(1, 4):
        np.testing.assert_allclose(first[copy::4], first[::4], rtol=0, atol=1e-13 * scale)
        np.testing.assert_allclose(second[:, copy::4], second[:, ::4], rtol=0, atol=1e-13 * scale)
