"""`hesskern.numba` from Python and from jitted code, against the oracle, on every kind of argument."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import problems
import pytest
from looped import each

numba = pytest.importorskip("numba")

import hesskern as hk  # noqa: E402
import hesskern.numba as nb  # noqa: E402

KINDS = {"half_sum": nb.HALF_SUM, "sum": nb.SUM, "mean": nb.MEAN}


def listed(arrays, like):
    """A typed list; no bias is an empty array."""
    found = numba.typed.List()
    for array in arrays:
        found.append(np.empty(0, like.dtype) if array is None else array.copy())
    return found


def arguments(problem, dtype, form):
    """Weights, biases and the rest, as a tuple or as a typed list."""
    net = problem.network(dtype)
    weights, biases = [w.copy() for w in net.weights], [None if b is None else b.copy() for b in net.biases]
    options = {"kind": KINDS[problem.kind], "weight_decay": problem.weight_decay}
    X, Y = problem.X.astype(dtype), problem.Y.astype(dtype)
    if form == "list":
        return listed(weights, X), X, Y, {"biases": listed(biases, X), **options}
    return tuple(weights), X, Y, {"biases": tuple(biases) if any(b is not None for b in biases) else None, **options}


def against_exact_differences(seed, form):
    problem = problems.deep_integers(seed)
    exact = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    weights, X, Y, options = arguments(problem, "float64", form)
    size = 1e-13 * max(1.0, np.abs(exact.hessian).sum(axis=0).max(), np.abs(exact.gradient).max())
    assert nb.loss(weights, X, Y, **options) == pytest.approx(exact.loss, rel=1e-13)
    value, gradient = nb.value_and_gradient(weights, X, Y, **options)
    assert value == pytest.approx(exact.loss, rel=1e-13)
    np.testing.assert_allclose(gradient, exact.gradient, rtol=0, atol=size)
    np.testing.assert_array_equal(nb.gradient(weights, X, Y, **options), gradient)
    H = nb.full_hessian(weights, X, Y, **options)
    np.testing.assert_allclose(H, exact.hessian, rtol=0, atol=size)
    np.testing.assert_array_equal(H, H.T)
    V = np.random.default_rng(seed).standard_normal((len(H), 2))
    np.testing.assert_allclose(nb.hvp(weights, X, Y, V, **options), exact.hessian @ V, rtol=0, atol=20 * size)
    np.testing.assert_allclose(
        nb.hvp(weights, X, Y, V[:, 0], **options), exact.hessian @ V[:, 0], rtol=0, atol=20 * size
    )
    depth = len(problem.weights)
    for row, column in [(0, 0), (depth - 1, 0), (0, depth - 1), (depth - 1, depth - 1)]:
        block = nb.block_hessian(weights, X, Y, row, column, **options)
        np.testing.assert_allclose(block, exact.hessian[exact.layers[row], exact.layers[column]], rtol=0, atol=size)
    predicted = oracle.forward(problem.weights, problem.biases, problem.X)
    np.testing.assert_allclose(nb.forward(weights, X, options["biases"]), predicted, rtol=1e-13, atol=1e-12)


@each("seed", range(25))
def test_lists_against_exact_differences(seed):
    against_exact_differences(seed, "list")


# One depth, with biases and without: each is compiled anew. A typed list is compiled once for all depths.
@pytest.mark.long
@each("seed", [6, 16])
def test_tuples_against_exact_differences(seed):
    against_exact_differences(seed, "tuple")


@each("seed", range(0, 60, 4))
def test_gradients_and_products_in_single_precision(seed):
    problem = problems.general(seed)
    weights, X, Y, options = arguments(problem, "float32", "list")
    H = hk.SquaredLoss(X, Y, problem.kind, problem.weight_decay, backend="numpy").hessian(problem.network("float32"))
    expected, slope = oracle.loss_and_gradient(problem.network().flatten(), problem)
    value, gradient = nb.value_and_gradient(weights, X, Y, **options)
    assert value == pytest.approx(expected, rel=1e-5)
    product = nb.hvp(weights, X, Y, np.ones(len(gradient), np.float32), gauss_newton=True, functional=True, **options)
    assert gradient.dtype == product.dtype == np.float32
    size = float(np.abs(H.toarray()).sum(axis=0).max())
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-5 * max(np.abs(slope).max(), size))
    np.testing.assert_allclose(product, H.toarray().sum(axis=1), rtol=0, atol=1e-4 * size)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.long)])
@each("seed", range(0, 60, 4))
def test_parts_and_single_precision(seed, dtype):
    """The Gauss-Newton and the functional part add up, and agree with those of the operators, on normal problems."""
    problem = problems.general(seed)
    weights, X, Y, options = arguments(problem, dtype, "list")
    H = hk.SquaredLoss(X, Y, problem.kind, problem.weight_decay, backend="numpy").hessian(problem.network(dtype))
    size = float(np.abs(H.toarray()).sum(axis=0).max())
    tolerance = {"float64": 1e-13, "float32": 1e-5}[dtype] * size
    options["weight_decay"] = 0.0
    parts = {"gauss_newton": True, "functional": False}, {"gauss_newton": False, "functional": True}
    one, other = (nb.full_hessian(weights, X, Y, **part, **options) for part in parts)
    assert one.dtype == other.dtype == np.dtype(dtype)
    np.testing.assert_allclose(one, H.gauss_newton().toarray(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(other, H.functional().toarray(), rtol=0, atol=tolerance)
    v = np.ones(len(one), dtype)
    for part, dense in zip(parts, (one, other), strict=True):
        np.testing.assert_allclose(nb.hvp(weights, X, Y, v, **part, **options), dense @ v, rtol=0, atol=10 * tolerance)


def test_flatten_and_assign_are_inverse():
    weights, X, _, options = arguments(problems.general(3), "float64", "list")
    net = problems.general(3).network()
    flat = nb.flatten(weights, options["biases"])
    np.testing.assert_array_equal(flat, net.flatten())
    nb.assign(weights, np.arange(len(flat), dtype=X.dtype), options["biases"])
    np.testing.assert_array_equal(nb.flatten(weights, options["biases"]), np.arange(len(flat)))
    with pytest.raises(ValueError, match="flat has the wrong length"):
        nb.assign(weights, flat[1:], options["biases"])


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


def test_a_tuple_of_three():
    problem = problems.normal([3, 6, 4, 2], 9)
    weights = tuple(np.array(weight) for weight in problem.weights)
    expected, gradient = oracle.loss_and_gradient(problem.network().flatten(), problem)
    value, found = nb.value_and_gradient(weights, problem.X, problem.Y)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(found, gradient, rtol=1e-11)


@numba.njit
def with_a_missing_bias(W, V, b, X):
    return nb.forward((W, V), X, (b, None))


def test_biases_of_some_layers_in_a_tuple():
    problem = problems.normal([3, 6, 2], 9, bias=True)
    W, V = problem.weights
    expected = oracle.forward([W, V], [problem.biases[0], None], problem.X)
    np.testing.assert_allclose(with_a_missing_bias(W, V, problem.biases[0], problem.X), expected, rtol=1e-12)


def test_arrays_in_any_layout():
    problem = problems.normal([3, 6, 2], 9)
    weights = tuple(np.asfortranarray(weight) for weight in problem.weights)
    X, Y = np.asfortranarray(problem.X), np.repeat(problem.Y, 2, axis=1)[:, ::2]
    v = np.arange(60.0)[::2]
    expected = hk.SquaredLoss(problem.X, problem.Y).hessian(problem.network()) @ v
    np.testing.assert_allclose(nb.hvp(weights, X, Y, v), expected, rtol=1e-12)
    frozen = tuple(problem.network().weights)  # read-only
    np.testing.assert_allclose(nb.hvp(frozen, X, Y, v), expected, rtol=1e-12)


def run(lr, max_steps, weight_decay=0.0, momentum=0.0):
    """With all arguments each time: a call without some of them is compiled anew."""
    return nb.fit((W, V), X, Y, lr, max_steps, weight_decay=weight_decay, momentum=momentum)


def step(momentum, nesterov, velocity):
    return nb.gd_step((W, V), X, Y, 0.1, momentum=momentum, nesterov=nesterov, velocity=velocity)


W, V, X, Y = np.ones((4, 3)), np.ones((2, 4)), np.ones((5, 3)), np.ones((5, 2))
REFUSED = [
    (lambda: nb.loss((W, V.T.copy()), X, Y), ValueError, "weights do not fit each other"),
    (lambda: nb.loss((W, V), X[:, :2].copy(), Y), ValueError, "X does not fit the first weight"),
    (lambda: nb.loss((W, V), X[:0], Y[:0]), ValueError, "X does not fit the first weight"),
    (lambda: nb.loss((W, V), X, Y[1:]), ValueError, "Y does not fit X"),
    (lambda: nb.loss((W, V), X, X), ValueError, "Y does not fit X"),
    (lambda: nb.loss((W, V), X, Y, (np.ones(4), np.ones(3))), ValueError, "biases do not fit"),
    (lambda: nb.loss((W, V), X, Y, None, 3), ValueError, "kind is not one of"),
    (lambda: nb.hvp((W, V), X, Y, np.ones(19)), ValueError, "v has the wrong length"),
    (lambda: nb.hvp((W, V), X, Y, np.ones(20, np.float32)), ValueError, "v has another dtype"),
    (lambda: nb.block_hessian((W, V), X, Y, 0, 2), ValueError, "is not a layer"),
    (lambda: step(0.5, False, None), ValueError, "velocity is missing"),
    (lambda: step(0.5, False, np.zeros(3)), ValueError, "velocity has the wrong"),
    (lambda: step(0.0, True, None), ValueError, "nesterov is True"),
    (lambda: nb.sgd_epoch((W, V), X, Y, 0.1, np.arange(6), 2), ValueError, "order holds a number"),
    (lambda: nb.sgd_epoch((W, V), X, Y, 0.1, np.arange(5), 0), ValueError, "batch_size is less than 1"),
    (lambda: run(np.full(3, 0.1), 4), ValueError, "lr has fewer rates than max_steps"),
    (lambda: run(np.array([0.1, -0.1]), 2), ValueError, "lr holds a number that is negative"),
    (lambda: run(-0.1, 4), ValueError, "lr is negative or not finite: expected a number >= 0"),
    (lambda: run(np.nan, 4), ValueError, "lr is negative or not finite"),
    (lambda: run(0.1, -1), ValueError, r"max_steps is negative, or beyond 2\*\*40"),
    (lambda: run(0.1, 2**62), ValueError, r"max_steps is negative, or beyond 2\*\*40"),
    (
        lambda: run(0.1, 4, momentum=-0.5),
        ValueError,
        "momentum is negative or not finite",
    ),
    (
        lambda: run(0.1, 4, weight_decay=-1.0),
        ValueError,
        "weight_decay is negative or not finite",
    ),
    (lambda: nb.loss((W, V), X, Y[:, 0]), numba.TypingError, "expected two-dimensional arrays"),
    (lambda: nb.loss((W, V), X[0], Y), numba.TypingError, "expected two-dimensional arrays"),
    (lambda: nb.loss((), X, Y), numba.TypingError, "weights is an empty tuple"),
    (lambda: nb.loss((W, V.astype(np.float32)), X, Y), numba.TypingError, "expected one dtype"),
    (lambda: nb.loss((W, V), X.astype(np.float32), Y), numba.TypingError, "expected one dtype"),
    (lambda: nb.loss(W, X, Y), numba.TypingError, "expected a tuple or a numba.typed.List"),
    (lambda: nb.loss((W, V[0]), X, Y), numba.TypingError, r"expected arrays \(out, in\)"),
    (lambda: nb.loss((W, V.astype(int)), X, Y), numba.TypingError, "of float32 or float64"),
    (lambda: nb.loss((W, V), X, Y, (np.ones(4),)), numba.TypingError, "biases has 1 entries for 2 weights"),
]


@each("number", range(len(REFUSED)), quick=3)
def test_what_does_not_fit_is_refused(number):
    call, error, words = REFUSED[number]
    with pytest.raises(error, match=words):
        call()
    np.testing.assert_array_equal(W, np.ones((4, 3)))


@pytest.mark.long
def test_the_example_of_the_docs(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "numba.md").read_text(encoding="utf-8")
    script = tmp_path / "example.py"
    script.write_text(text.split("```python\n")[1].split("```")[0], encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "10", "True", "True"]
