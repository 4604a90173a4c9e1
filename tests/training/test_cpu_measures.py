"""Sharpness along a run: the largest eigenvalue of the full Hessian at every record, to 1e-10."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracle
import problems
import pytest
import trainings
from looped import each, few_quick
from trainings import METHODS, PAIRS, rate, training, with_biases

import hesskern as hk


def watched(problem, lr, steps, **options):
    record = ("loss", "sharpness", "weights")
    return hk.fit(problem.network(), problem.loss(), lr=lr, max_steps=steps, record=record, **options)


def largest(problem, rows):
    """Return the largest eigenvalues by LAPACK, on dense Hessians at these parameters."""
    return np.array([np.linalg.eigvalsh(oracle.hessian(theta, problem))[-1] for theta in rows])


def check(run, problem, tolerance=1e-10):
    expected = largest(problem, run.history["weights"])
    assert len(expected) == len(run.history["step"]) > 0
    np.testing.assert_allclose(run.history["sharpness"], expected, rtol=tolerance)
    return expected


@each("reduce", ["auto", "none"])
@each(("shape", "method", "number"), PAIRS[::2], quick=7)
@pytest.mark.quick_in_cpp
def test_every_step(backend, shape, method, number, reduce):
    problem = training(shape, number)
    check(watched(problem, 3 * rate(shape, number), 12, reduce=reduce, **METHODS[method]), problem)


@pytest.mark.parametrize("every", [3, 25])
@pytest.mark.parametrize("shape", ["wide with biases", "deep"])
@pytest.mark.quick_in_cpp
def test_now_and_then(backend, shape, every):
    """The eigenvector of the last record is old by then."""
    problem = training(shape, 1)
    run = watched(problem, 10 * rate(shape, 1), 76, record_every=every, momentum=0.5)
    check(run, problem)
    assert run.history["step"].tolist() == list(range(0, 76, every))


def modes(targets, starts, hidden=0):
    """Return a diagonal problem: each mode learns for itself, in subspaces that are invariant to the last bit.

    Mode k of target t is a saddle of curvature t at zero, and has curvature 2t when it is learned.
    """
    count = len(targets)
    first = np.vstack([np.diag(np.sqrt(starts)), np.zeros((hidden, count))])
    return problems.Problem([first, first.T.copy()], [None, None], np.eye(count), np.diag(targets))


CROSSINGS = {
    # the first is learned from the start (curvature 2t), the others take over one after the other
    "two modes": modes([3.0, 5.0], [3.0, 1e-6]),
    "three modes": modes([2.0, 2.6, 3.4], [2.0, 1e-2, 1e-10]),
    "wide": modes([3.0, 5.0], [3.0, 1e-6], hidden=7),
    "more samples": None,
}


def crossing(name):
    if name != "more samples":
        return CROSSINGS[name]
    problem = modes([3.0, 5.0], [3.0, 1e-6])
    return dataclasses.replace(problem, X=np.vstack([problem.X] * 3), Y=np.vstack([problem.Y] * 3))


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize("name", CROSSINGS)
@pytest.mark.quick_in_cpp
def test_eigenvalues_that_cross(backend, name, reduce):
    """Aligned modes never mix: an eigenvector followed from step to step stays with a mode that others overtake."""
    problem = crossing(name)
    run = watched(problem, 0.1 if name != "more samples" else 0.03, 90, reduce=reduce)
    expected = check(run, problem)
    first, last = (
        np.linalg.eigh(oracle.hessian(run.history["weights"][k], problem))[1][:, -1] for k in (0, len(expected) - 1)
    )
    assert abs(first @ last) < 1e-12  # it did cross
    assert expected[-1] > 1.2 * expected[0]


def test_a_crossing_between_records(backend):
    problem = CROSSINGS["two modes"]
    run = watched(problem, 0.1, 90, record_every=30)
    check(run, problem)


def test_equal_eigenvalues_on_top(backend):
    """The largest eigenvalue is not simple, and the gap to the next closes and opens."""
    problem = modes([4.0, 4.0, 4.0 * (1 - 1e-13)], [1e-3, 1e-3, 1e-3])
    check(watched(problem, 0.1, 50), problem)


@pytest.mark.parametrize("widths", few_quick([[2, 4, 4, 2], [2, 3, 3, 3, 2]], 1))
@pytest.mark.parametrize("overshoot", few_quick([1.05, 1.15], 1))
@pytest.mark.quick_in_cpp
def test_edge_of_stability(backend, widths, overshoot):
    """Nets whose minimum is sharper than 2/lr: the sharpness rises above 2/lr, and the run ends below it."""
    problem = problems.normal(widths, 6, len(widths) - 2 if len(widths) == 4 else 5)
    problem = dataclasses.replace(problem, weights=[0.5 * w for w in problem.weights])
    flow = oracle.train(problem, 0.03, 6000)
    sharpest = largest(problem, flow.thetas[-1:])[0]
    lr = 2 * overshoot / sharpest
    run = watched(problem, lr, 400)
    expected = check(run, problem)
    assert (run.history["2/lr"] == 2 / lr).all()
    above = expected > 2 / lr
    assert above.any()
    assert not above[0]
    assert not above[-20:].all()
    assert run.history["loss"][-1] <= flow.losses[-1] * (1 + 1e-5)


STARTS = {
    "zero": ([3, 4, 2], []),
    "zero and wide": ([3, 16, 2], []),
    "zero, wide and deep": ([3, 16, 4, 16, 2], []),
    "zero with biases": ([3, 16, 2], [0, 1]),
    "zero, deep, one bias": ([3, 4, 4, 2], [2]),
    "zero, deep, first bias": ([3, 9, 2, 2], [0]),
}


@each("reduce", ["auto", "none"])
@pytest.mark.parametrize("decay", [0.0, 0.25])
@pytest.mark.parametrize("name", STARTS)
@pytest.mark.quick_in_cpp
def test_weights_of_zero(backend, name, decay, reduce):
    """Two layers: eigenvalues +-sigma(G), as many negative as positive. Deep: the Hessian is zero, but for decay."""
    widths, biased = STARTS[name]
    problem = with_biases(problems.normal(widths, 9, 4, bias=True, weight_decay=decay), biased)
    for array in (*problem.weights, *(b for b in problem.biases if b is not None)):
        array[:] = 0.0
    run = watched(problem, 0.01, 5, reduce=reduce)
    expected = largest(problem, run.history["weights"])
    scale = max(np.abs(np.linalg.eigvalsh(oracle.hessian(theta, problem))).max() for theta in run.history["weights"])
    np.testing.assert_allclose(run.history["sharpness"], expected, rtol=1e-10, atol=1e-15 * max(scale, 1e-300))
    if len(widths) > 3 and not biased:
        np.testing.assert_allclose(run.history["sharpness"], decay, rtol=1e-14, atol=0)


@each("reduce", ["auto", "none"])
def test_negative_curvature_is_larger_in_absolute_value(backend, reduce):
    """One unit overshoots: the residual makes -sigma(G) the eigenvalue of largest absolute value, not of largest."""
    problem = problems.Problem(
        [np.zeros((3, 2)), np.zeros((2, 3)), np.array([[1.0, 0.5], [0.0, 1.0]])],
        [None] * 3, np.eye(2), np.array([[3.0, 1.0], [0.5, -2.0]]),
    )  # fmt: skip
    check(watched(problem, 0.02, 60, reduce=reduce), problem)
    rng = np.random.default_rng(3)
    narrow = problems.Problem(
        [rng.standard_normal((1, 1)), rng.standard_normal((1, 1)), rng.standard_normal((1, 1))],
        [None] * 3, np.full((1, 1), 0.1), np.full((1, 1), -40.0),
    )  # fmt: skip
    rows = watched(narrow, 0.001, 60, reduce=reduce)
    values = np.array([np.linalg.eigvalsh(oracle.hessian(theta, narrow)) for theta in rows.history["weights"]])
    assert (np.abs(values[:, 0]) > values[:, -1]).any()
    check(rows, narrow)


def test_the_copies_that_a_wide_layer_adds(backend):
    """Units beyond the reduced width add +-sigma(G) to the spectrum, and here they are on top.

    All units are multiples of one: the narrow network of rank one knows one mode only, and the residual of the others
    curves in directions that only the remaining units have.
    """
    units = np.arange(1.0, 13.0)
    v, w = np.array([0.5, 0.0, 0.0]), np.array([0.25, 0.0])
    X, Y = np.eye(3), np.array([[1.0, 0.0], [0.0, 9.0], [0.5, 2.0]])
    problem = problems.Problem([np.outer(units, v) / 64, np.outer(w, units) / 64], [None, None], X, Y)
    for reduce in ("auto", "none"):
        check(watched(problem, 0.02, 60, reduce=reduce), problem)
    # At a minimum of rank one of a wide linear layer, without anything else to see.
    problem = problems.Problem([np.zeros((30, 2)), np.zeros((2, 30))], [None, None], np.eye(2), np.diag([2.0, 1.0]))
    run = watched(problem, 0.1, 3)
    np.testing.assert_allclose(run.history["sharpness"], 2.0, rtol=1e-12)


@pytest.mark.parametrize("widths", [[5, 100, 5], [40, 3, 40], [12, 30, 10, 8]])
@pytest.mark.quick_in_cpp
def test_larger_networks(backend, widths):
    problem = problems.normal(widths, 50, 6, kind="mean", weight_decay=0.01)
    lr = 1.5 / np.linalg.eigvalsh(oracle.hessian(problem.network().flatten(), problem))[-1]
    check(watched(problem, lr, 7, record_every=3), problem)


def test_one_parameter(backend):
    problem = problems.Problem([np.array([[2.0]])], [None], np.array([[3.0]]), np.array([[1.0]]))
    run = watched(problem, 0.01, 4)
    np.testing.assert_allclose(run.history["sharpness"], [9.0] * 4, rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-70, 1e-30, 1e30, 1e70])
def test_any_size(backend, scale):
    """The Hessian scales with the data squared: nothing in between may overflow or count as zero."""
    problem = problems.normal([3, 5, 2], 7, 2)
    small = dataclasses.replace(problem, X=problem.X * scale, Y=problem.Y * scale)
    ordinary = watched(problem, 1e-3, 4)
    run = watched(small, 1e-3 / scale**2, 4)
    np.testing.assert_allclose(run.history["sharpness"] / scale**2, ordinary.history["sharpness"], rtol=1e-10)


def test_ill_conditioned_data(backend):
    """Eigenvalues over 16 decades: Lanczos has nothing but the top to find, and finds it."""
    problem = problems.normal([6, 20, 3], 9, 2)
    problem.X[:] *= 10.0 ** -np.arange(0, 12, 2)
    lr = 0.5 / trainings.sharpness(problem)
    check(watched(problem, lr, 20), problem)


@pytest.mark.parametrize("shape", ["wide with biases", "deep"])
def test_single_precision(backend, shape):
    problem = training(shape, 3)
    run = hk.fit(
        problem.network("float32"), problem.loss("float32"), lr=rate(shape, 3), max_steps=20,
        record=("sharpness", "weights"),
    )  # fmt: skip
    expected = largest(problem, run.history["weights"].astype(float))
    np.testing.assert_allclose(run.history["sharpness"], expected, rtol=2e-5)


def test_until_the_end_of_a_divergence(backend):
    problem = problems.normal([4, 30, 3], 8, 1)
    run = watched(problem, 0.3, 1000)
    assert run.status == "diverged"
    assert len(run.history["sharpness"]) == len(run.history["loss"]) == run.steps + 1
    sane = run.history["loss"] < 1e60
    assert sane.sum() > 3
    expected = largest(problem, run.history["weights"][sane])
    np.testing.assert_allclose(run.history["sharpness"][sane], expected, rtol=1e-10)


def test_the_case(backend):
    """The catapult of the case, step by step: sharper than 2/lr at first, flatter at the end."""
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    record = ("sharpness", "weights")
    every = 1 if backend.name != "numpy" else 50
    run = hk.fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=case.rtol, record=record, record_every=every)
    assert run.steps == 608
    problem = problems.Problem(list(case.network.weights), [None, None], case.X, case.Y)
    for k in range(0, len(run.history["step"]), 150 // every):
        W1, W2 = case.network.unflatten(run.history["weights"][k]).weights
        # The width reduction once more, by NumPy: the network of ten units, and what the other ninety add.
        Q, R = np.linalg.qr(np.hstack([W1, W2.T]))
        narrow = problems.Problem([R[:, :5], R[:, 5:].T], [None, None], case.X, case.Y)
        dense = oracle.hessian(oracle.flatten(narrow.weights, narrow.biases), narrow)
        sigma = np.linalg.norm((case.X @ W1.T @ W2.T - case.Y).T @ case.X, 2)
        expected = max(np.linalg.eigvalsh(dense)[-1], sigma)
        np.testing.assert_allclose(run.history["sharpness"][k], expected, rtol=1e-10)
    assert Q.shape == (100, 10)
    assert run.history["sharpness"][0] > run.history["2/lr"][0] > run.history["sharpness"][-1]
    first = oracle.hessian(run.history["weights"][0], problem)
    np.testing.assert_allclose(run.history["sharpness"][0], np.linalg.eigvalsh(first)[-1], rtol=1e-10)


@each("seed", range(0, 100, 2), quick=14)
def test_any_shape(backend, seed):
    """Widths around the length of a vector register, minibatches with short last batches, biases anywhere."""
    rng = np.random.default_rng([77, seed])
    depth = int(rng.integers(1, 5))
    widths = [int(width) for width in rng.integers(1, 11, depth + 1)]
    samples = int(rng.integers(1, 12))
    biased = [layer for layer in range(depth) if rng.random() < 0.4]
    decay = float(rng.choice([0.0, 0.1]))
    problem = with_biases(problems.normal(widths, samples, seed, bias=True, weight_decay=decay), biased)
    value, gradient = oracle.loss_and_gradient(problem.network().flatten(), problem)
    batch_size = int(rng.integers(1, samples + 1)) if rng.random() < 0.5 else None
    run = watched(
        problem, 0.1 * value / float(gradient @ gradient), 7, record_every=3, batch_size=batch_size,
        reduce=str(rng.choice(["auto", "none"])),
    )  # fmt: skip
    check(run, problem)


def test_what_its_squares_do_not_hold_is_not_recorded(backend):
    """Products with a Hessian of 1e187 have squares beyond float64: no number is better than a wrong one."""
    net = hk.LinearNetwork([np.full((2, 2), 1e54), np.full((1, 2), 1e54)])
    loss = hk.SquaredLoss(np.array([[1e39, 2e39]]), np.array([[0.0]]))
    found = hk.fit(net, loss, lr=1e-300, max_steps=1, record=("loss", "sharpness")).history["sharpness"]
    right = loss.hessian(net).spectrum().max
    assert right > 1e180
    assert np.isnan(found).all() or found[0] == pytest.approx(right, rel=1e-10)


def scaled_run(widths, inputs, weights, count=1):
    """Train with X over 2**-inputs and weights over 2**-weights: the Hessian, and the rate, scale by powers of two."""
    rng = np.random.default_rng(len(widths))
    depth = len(widths) - 1
    layers = [
        [rng.standard_normal((o, i)) * 0.3 * 2.0**weights for i, o in zip(widths[:-1], widths[1:], strict=True)]
        for _ in range(count)
    ]
    X = rng.standard_normal((widths[0] + 3, widths[0])) * 2.0**inputs
    Y = rng.standard_normal((len(X), widths[-1])) * 2.0 ** (inputs + depth * weights)
    power = 2 * inputs + (2 * depth - 2) * weights
    nets, loss = [hk.LinearNetwork(each) for each in layers], hk.SquaredLoss(X, Y)
    options = {"lr": 1e-3 * 2.0**-power, "max_steps": 5, "record": ("sharpness",)}
    run = hk.fit(nets[0], loss, **options) if count == 1 else hk.fit_ensemble(nets, loss, **options)
    return run.history["sharpness"], power


@pytest.mark.parametrize("widths", [(3, 5, 2), (2, 3, 2, 2), (9, 12, 7)], ids=str)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.quick_in_cpp
def test_scaling_by_powers_of_two_rounds_nothing(backend, widths, count):
    """Squares of the Hessian's entries overflow, or underflow; the sharpness must be the same number, scaled."""
    found, _ = scaled_run(widths, 0, 0, count)
    assert np.isfinite(found).all()
    for inputs, weights in ((500, 0), (-400, 0), (-332, 0), (0, 120), (0, -110), (270, -3), (-260, 2)):
        scaled, power = scaled_run(widths, inputs, weights, count)
        np.testing.assert_array_equal(np.ldexp(scaled, -power), found)


def test_a_hessian_that_is_no_number_of_float64_has_no_sharpness(backend):
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork([rng.standard_normal((5, 3)), rng.standard_normal((2, 5))])
    for scale in (511, -530):  # 1e+308 times a few, 1e-319
        X, Y = (np.ldexp(rng.standard_normal(shape), scale) for shape in ((300, 3), (300, 2)))
        run = hk.fit(net, hk.SquaredLoss(X, Y), lr=1e-320, max_steps=1, record=("sharpness",))
        assert np.isnan(run.history["sharpness"]).all()


def test_float32_networks_of_any_scale(backend):
    """Taken by ARPACK where the network is large, which counts what is small beside one as zero."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((o, i)).astype(np.float32) for i, o in ((14, 14), (14, 14))]
    X, Y = rng.standard_normal((20, 14)).astype(np.float32), np.zeros((20, 14), np.float32)
    found = []
    for scale in (0, -40, 30):
        loss = hk.SquaredLoss(np.ldexp(X, scale), Y)
        run = hk.fit(hk.LinearNetwork(weights), loss, lr=1e-30, max_steps=1, record=("sharpness",))
        found.append(np.ldexp(run.history["sharpness"], -2 * scale))
        wanted = float(loss.hessian(hk.LinearNetwork(weights)).spectrum().max)
        np.testing.assert_allclose(run.history["sharpness"], wanted, rtol=1e-9)


@each("seed", range(40), quick=6)
def test_a_dense_top_of_the_spectrum_is_searched_to_the_end(seed):
    """More eigenvalues near the largest than vectors fit into one search: it continues in others."""
    rng = np.random.default_rng(seed)
    net = hk.LinearNetwork.random([24, 100, 8], seed=seed, bias=True)
    loss = hk.SquaredLoss(rng.standard_normal((100, 24)), rng.standard_normal((100, 8)), weight_decay=0.01)
    rate = 0.2 / loss.hessian(net).spectrum().max
    options = {"lr": rate, "momentum": 0.5, "record_every": 300}
    run = hk.fit(net, loss, max_steps=1801, record=("sharpness",), **options)
    assert np.isfinite(run.history["sharpness"]).all()
    last = hk.fit(net, loss, max_steps=1800, **options).network
    assert run.history["sharpness"][-1] == pytest.approx(loss.hessian(last).spectrum().max, rel=1e-9)
