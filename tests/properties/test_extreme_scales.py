"""Hessians of order one of weights and data whose squares leave the dtype, and those that truly overflow."""

from __future__ import annotations

import warnings

import numpy as np
import problems
import pytest
from looped import few_quick

import hesskern as hk

#: Powers of two that X is divided and a weight multiplied by: 1e∓20 and 1e∓23, 1e∓155 and 1e∓160.
SCALES = [("float32", 66), ("float32", 76), ("float64", 515), ("float64", 531)]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pair(dtype, power, seed, widths=(4, 5, 3, 2), samples=9, layer=1):
    """A problem of order one in float64, and the same with X divided and one weight multiplied by ``2**power``.

    The Hessian of the parameters up to that layer is the same; those of the layer itself are measured in another unit.
    """
    given = problems.normal(list(widths), samples, seed=seed)
    weights = [weight.astype(dtype) for weight in given.weights]
    X, Y = given.X.astype(dtype), given.Y.astype(dtype)
    plain = [weight.astype(np.float64) for weight in weights]
    scaled = list(weights)
    scaled[layer] = np.ldexp(weights[layer], power)
    return (X.astype(np.float64), Y.astype(np.float64), plain), (np.ldexp(X, -power), Y, scaled)


def explicit(X, Y, weights):
    """The Hessian from its definition: central differences of a polynomial are exact but for rounding."""
    sizes = [weight.size for weight in weights]
    ends = np.cumsum([0, *sizes])

    def gradient(theta):
        parts = [theta[a:b].reshape(w.shape) for a, b, w in zip(ends, ends[1:], weights, strict=False)]
        activations = [X]
        for part in parts:
            activations.append(activations[-1] @ part.T)
        delta, found = activations[-1] - Y, []
        for at in range(len(parts) - 1, -1, -1):
            found.insert(0, (delta.T @ activations[at]).ravel())
            delta = delta @ parts[at]
        return np.concatenate(found)

    theta = np.concatenate([weight.ravel() for weight in weights])
    rows = []
    for k in range(len(theta)):
        step = np.zeros_like(theta)
        step[k] = 1e-2
        # Of degree 2L - 1 in one parameter: five points for three layers.
        a, b = gradient(theta + step) - gradient(theta - step), gradient(theta + 2 * step) - gradient(theta - 2 * step)
        rows.append((8 * a - b) / (12 * 1e-2))
    return np.array(rows)


@pytest.mark.parametrize(("dtype", "power"), SCALES)
@pytest.mark.parametrize("samples", [3, 9])
def test_every_method_gives_the_numbers_of_the_problem_of_order_one(backend, dtype, power, samples):
    plain, (X, Y, weights) = pair(dtype, power, 3, samples=samples)
    truth = explicit(*plain)
    tolerance = (2e-5 if dtype == "float32" else 1e-9) * np.abs(truth).max()
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)
    sizes = [weight.size for weight in weights]
    units = np.repeat([1.0, 2.0**-power, 1.0], sizes)
    expected = truth * units * units[:, None]
    H = loss.hessian(net)
    scale = np.abs(expected).max()

    def close(found, true):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(np.asarray(found, dtype=np.float64), true, rtol=0, atol=tolerance)

    close(H.toarray(), expected)
    close(H @ np.eye(len(truth), dtype=dtype), expected)
    close(H.diagonal(), np.diag(expected))
    close(H.trace(), np.trace(expected))
    close(H.eigvalsh(), np.linalg.eigvalsh(expected))
    first = slice(0, sizes[0])
    block, true = H.block(0, 0), expected[first, first]
    close(block.toarray(), true)
    close(block.diagonal(), np.diag(true))
    close(block.spectrum().max, np.linalg.eigvalsh(true)[-1])
    close(H.gauss_newton().spectrum().max, np.linalg.eigvalsh(H.gauss_newton().toarray().astype(float))[-1])
    cross = H.block(2, 0)
    close(cross.toarray(), expected[sizes[0] + sizes[1] :, first])
    shifted = true + scale * np.eye(len(true))
    b = np.ones(len(true), dtype)
    np.testing.assert_allclose(block.solve(b, damping=scale), np.linalg.solve(shifted, b), rtol=1e-4)
    assert block.logdet(scale) == pytest.approx(np.linalg.slogdet(shifted)[1], rel=1e-4)
    assert H.condition().largest == pytest.approx(np.abs(np.linalg.eigvalsh(expected)).max(), rel=1e-4)


@pytest.mark.parametrize(("dtype", "power"), [("float32", 70), ("float64", 600)])
def test_what_truly_overflows_is_refused_in_a_sentence(backend, dtype, power):
    given = problems.normal([4, 5, 3], 9)
    net = hk.LinearNetwork([given.weights[0].astype(dtype), np.ldexp(given.weights[1].astype(dtype), power)])
    H = hk.SquaredLoss(given.X.astype(dtype), given.Y.astype(dtype)).hessian(net)
    for call in (H.toarray, H.diagonal, H.block(0, 0).toarray):
        with pytest.raises(OverflowError, match=f"larger than {dtype} can hold .*; scale the samples or the weights"):
            call()
    if dtype == "float64":
        for call in (H.eigvalsh, H.eigh, H.condition, H.trace, lambda: H.solve(np.ones(H.shape[0]))):
            with pytest.raises((OverflowError, np.linalg.LinAlgError), match=r"overflow|larger than float64 can hold"):
                call()


def test_columns_of_data_reach_as_far_as_float64(backend):
    """Where nothing overflows, scaling must not lose the small ones."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((9, 3)) * np.array([2.0**400, 1.0, 2.0**-400]), rng.standard_normal((9, 2))
    net = hk.LinearNetwork([rng.standard_normal((2, 3)), rng.standard_normal((2, 2))])
    diagonal = hk.SquaredLoss(X, Y).hessian(net, [0]).diagonal()
    true = np.outer((net.weights[1] ** 2).sum(axis=0), (X**2).sum(axis=0)).ravel()
    np.testing.assert_allclose(diagonal, true, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "power"), few_quick([pytest.param(*one) for one in SCALES[::-1]], 1))
def test_jitted_functions(dtype, power):
    nb, typed = pytest.importorskip("hesskern.numba"), pytest.importorskip("numba.typed")
    plain, (X, Y, weights) = pair(dtype, power, 5)
    truth, first = explicit(*plain), weights[0].size
    tolerance = (2e-5 if dtype == "float32" else 1e-9) * np.abs(truth).max()
    units = np.repeat([1.0, 2.0**-power, 1.0], [weight.size for weight in weights])
    expected = truth * units * units[:, None] + 0.5 * np.eye(len(truth))
    v = np.random.default_rng(0).standard_normal(len(truth)).astype(dtype)
    layers, biases = typed.List(weights), typed.List([np.empty(0, dtype)] * len(weights))  # compiled for test_jitted
    for found, true in (
        (nb.full_hessian(layers, X, Y, biases, nb.HALF_SUM, 0.5), expected),
        (nb.block_hessian(layers, X, Y, 2, 0, biases, nb.HALF_SUM, 0.5), expected[-weights[2].size :, :first]),
        (nb.hvp(layers, X, Y, v, biases, nb.HALF_SUM, 0.5), expected @ v),
    ):
        np.testing.assert_allclose(found, true, rtol=0, atol=8 * tolerance)


@pytest.mark.parametrize("name", ["cpp", "numba", "numpy"])
@pytest.mark.parametrize("power", [-565, -480, 480, 532])
@pytest.mark.parametrize("samples", [3, 20])
def test_samples_whose_squares_are_out_of_range(power, samples, name):
    """With the first weight divided by what the samples are multiplied by, nothing changes: powers of two are exact."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((samples, 3)), rng.standard_normal((samples, 2))
    first, last = rng.standard_normal((9, 3)), rng.standard_normal((2, 9))
    found = []
    for by in (power, 0):
        net = hk.LinearNetwork([np.ldexp(first, -by), last])
        loss = hk.SquaredLoss(np.ldexp(X, by), Y, backend=name)
        block = loss.hessian(net, params=[1])
        run = hk.fit(net, loss, lr=5e-324, max_steps=2, backend=name)
        numbers = block.condition().value, block.trace(), loss(net), run.history["loss"][0]
        found.append(np.array([*numbers, *(block @ np.ones(18))]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_large_biases_overflow_nothing_that_no_parameter_has(backend):
    """Delta times a bias, a derivative with respect to the constant 1, leaves float64; what is asked for does not."""
    rng = np.random.default_rng(0)
    small = hk.LinearNetwork.random([3, 4, 3, 2], seed=0, bias=True)
    X, Y, unit = rng.standard_normal((5, 3)), np.zeros((5, 2)), 2.0**600
    net = hk.LinearNetwork(small.weights, [*small.biases[:2], np.full(2, unit)])
    loss = hk.SquaredLoss(X, Y)
    # The residual is the last bias to the last bit.
    first, second, third = net.weights
    above = np.ones((5, 2)) @ third
    inputs = X @ first.T + net.biases[0]
    with np.errstate(over="ignore"):  # the loss itself is larger than any float64
        gradient = net.unflatten(loss.gradient(net) / unit)
    np.testing.assert_allclose(gradient.weights[0], (above @ second).T @ X, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gradient.weights[1], above.T @ inputs, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(gradient.biases[0], (above @ second).sum(axis=0), rtol=1e-12, atol=1e-13)


def test_products_of_the_functional_part_beside_large_biases(backend):
    rng = np.random.default_rng(1)
    small = hk.LinearNetwork.random([2, 3, 4, 3, 2], seed=1, bias=True)
    unit = 2.0**600
    net = hk.LinearNetwork(small.weights, [*small.biases[:2], np.full(3, unit), np.full(2, unit)])
    H = hk.SquaredLoss(rng.standard_normal((5, 2)), np.zeros((5, 2))).hessian(net).functional()
    v = rng.standard_normal(H.shape[0])
    np.testing.assert_allclose(H @ v / unit, (H.toarray() / unit) @ v, rtol=1e-12, atol=1e-11)
