"""Jitted training: steps, epochs and runs are those of the plain loop, however they end."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

numba = pytest.importorskip("numba")
from jitted_arguments import arguments, listed  # noqa: E402

import hesskern as hk  # noqa: E402
import hesskern.numba as nb  # noqa: E402

# With the arguments left out each function is compiled anew.
METHODS = [
    pytest.param({}, marks=pytest.mark.long),
    *({"momentum": momentum, "nesterov": nesterov} for momentum, nesterov in [(0.0, False), (0.8, False), (0.8, True)]),
]


def starting(seed=6):
    problem = problems.normal([3, 7, 2], 10, seed, bias=True, kind="mean", weight_decay=0.05)
    weights, X, Y, options = arguments(problem, "float64", "list")
    return problem, weights, X, Y, options


@pytest.mark.parametrize("method", METHODS)
def test_steps_and_epochs_and_runs_are_those_of_the_plain_loop(method):
    steps, lr = 12, 0.05
    problem, weights, X, Y, options = starting()
    expected = oracle.train(problem, lr, steps, **method)
    velocity = np.zeros(len(nb.flatten(weights, options["biases"])))
    moving = {"velocity": velocity} if method else {}  # without momentum it is not needed
    losses = [nb.gd_step(weights, X, Y, lr, **options, **method, **moving) for _ in range(steps)]
    np.testing.assert_allclose(nb.flatten(weights, options["biases"]), expected.thetas[-1], rtol=1e-12)
    np.testing.assert_allclose(losses, expected.losses[:-1], rtol=1e-12)

    _, weights, X, Y, options = starting()
    status, losses = nb.fit(weights, X, Y, lr, steps, **options, **method)
    assert status == nb.MAX_STEPS
    np.testing.assert_allclose(nb.flatten(weights, options["biases"]), expected.thetas[-1], rtol=1e-12)
    np.testing.assert_allclose(losses, expected.losses[:-1], rtol=1e-12)

    expected = oracle.train(problem, lr, 8, batch_size=3, shuffle=False, **method)
    _, weights, X, Y, options = starting()
    velocity[:] = 0
    order = np.arange(len(X))
    losses = np.concatenate(
        [nb.sgd_epoch(weights, X, Y, lr, order, 3, **options, **method, **moving) for _ in range(2)]
    )
    np.testing.assert_allclose(nb.flatten(weights, options["biases"]), expected.thetas[-1], rtol=1e-12)
    np.testing.assert_allclose(losses, expected.batch_losses, rtol=1e-12)


@pytest.mark.long
def test_rates_by_array_and_by_function():
    rates = np.linspace(0.01, 0.05, 9)
    problem, weights, X, Y, options = starting()
    expected = oracle.train(problem, lambda step: rates[step], 9)
    nb.fit(weights, X, Y, rates, 9, **options)
    np.testing.assert_allclose(nb.flatten(weights, options["biases"]), expected.thetas[-1], rtol=1e-12)

    @numba.njit
    def rule(step, loss, norm):
        return 0.1 * loss / (norm * norm + step)

    _, weights, X, Y, options = starting()
    theta = nb.flatten(weights, options["biases"])
    own, biases = listed([w.astype(float) for w in problem.weights], X), listed(problem.biases, X)
    for step in range(9):
        value, g = nb.value_and_gradient(own, X, Y, biases, options["kind"], options["weight_decay"])
        theta = theta - 0.1 * value / (g @ g + step) * g
        nb.assign(own, theta, biases)
    nb.fit(weights, X, Y, rule, 9, **options)
    np.testing.assert_allclose(nb.flatten(weights, options["biases"]), theta, rtol=1e-12)


def test_how_runs_end():
    case = hk.datasets.two_layer_case()
    fresh = lambda: tuple(weight.copy() for weight in case.network.weights)  # noqa: E731
    weights = fresh()
    status, losses = nb.fit(weights, case.X, case.Y, case.lr, 10_000, case.rtol)
    assert (status, len(losses)) == (nb.CONVERGED, 608)
    assert losses[-1] <= case.rtol * losses[0] < losses[-2]

    weights = fresh()
    status, losses = nb.fit(weights, case.X, case.Y, 1.0, 10_000)
    reference = hk.fit(case.network, hk.SquaredLoss(case.X, case.Y), lr=1.0, max_steps=10_000, reduce="none")
    assert status == nb.DIVERGED
    assert reference.status == "diverged"
    np.testing.assert_allclose(weights[0], reference.network.weights[0], rtol=1e-9)
    assert np.isfinite(losses).all()

    @numba.njit
    def until(step, loss, theta):
        return loss < 1.0 and theta[0] < np.inf and step > 0

    weights = fresh()
    status, losses = nb.fit(weights, case.X, case.Y, case.lr, 10_000, callback=until)
    assert status == nb.STOPPED
    assert losses[-1] < 1.0 <= losses[:-1].min()
    assert nb.loss(weights, case.X, case.Y) == pytest.approx(losses[-1], rel=1e-12)


@numba.njit(parallel=True)
def sweep(start, scales, X, Y, steps):
    """Final losses from scaled starts, one in each thread."""
    found = np.empty(len(scales))
    for k in numba.prange(len(scales)):
        weights = (start[0] * scales[k], start[1] * scales[k])
        nb.fit(weights, X, Y, 0.001, steps)
        found[k] = nb.loss(weights, X, Y)
    return found


@pytest.mark.long
def test_in_parallel_loops():
    problem = problems.normal([3, 6, 2], 9)
    start = tuple(np.array(weight) for weight in problem.weights)
    scales = np.linspace(0.5, 1.5, 24)
    found = sweep(start, scales, problem.X, problem.Y, 30)
    for scale, value in zip(scales, found, strict=True):
        weights = tuple(scale * weight for weight in start)
        nb.fit(weights, problem.X, problem.Y, 0.001, 30)
        assert value == nb.loss(weights, problem.X, problem.Y)


def step(momentum, nesterov, velocity):
    return nb.gd_step((W, V), X, Y, 0.1, momentum=momentum, nesterov=nesterov, velocity=velocity)


W, V, X, Y = np.ones((4, 3)), np.ones((2, 4)), np.ones((5, 3)), np.ones((5, 2))
