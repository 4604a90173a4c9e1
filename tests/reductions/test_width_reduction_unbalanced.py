"""Hidden units of very different sizes: reductions of the width must not mix them, or must say so."""

from __future__ import annotations

import numpy as np
import pytest
from attack import unbalanced
from attack.unbalanced import EPS, dense, draw, residuals
from witness import relative

import hesskern as hk
from hesskern.backends import get
from hesskern.backends.protocol import PlainLayers
from hesskern.reductions.width_reduction import WidthReduction

#: LAPACK calls a normalised residual below this right.
BOUND = 30


@pytest.mark.parametrize("mode", ["full", "gauss_newton", "functional"])
@pytest.mark.quick_in_cpp
def test_residuals(backend, mode):
    for seed in range(40):
        found = residuals(draw(seed), mode)
        assert all(value < BOUND for value in found.values()), (seed, found)


def layers(e, seed=0, widths=(3, 20, 3, 3, 3), bias=False):
    """A network whose first hidden layer has units over 10^±e."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((m, n)) for n, m in zip(widths[:-1], widths[1:], strict=True)]
    biases = [rng.standard_normal(len(w)) if bias else None for w in weights]
    d = 10.0 ** rng.uniform(-e, e, widths[1])
    d[:2] = 10.0**e, 10.0**-e
    weights[0] *= d[:, None]
    weights[1] /= d
    if bias:
        biases[0] *= d
    X, Y = rng.standard_normal((30, widths[0])), rng.standard_normal((30, widths[-1]))
    return hk.LinearNetwork(weights, biases), hk.SquaredLoss(X, Y)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("e", [4, 12, 100, 150])
def test_a_layer_that_no_parameter_touches_is_left_alone(backend, e, bias):
    """The Hessian of the upper two layers is that of a network of three layers with the product of the lower two."""
    net, loss = layers(e, bias=bias)
    first, second = net.weights[:2]
    merged = [None, *net.biases[2:]]
    if bias:
        merged[0] = second @ net.biases[0] + net.biases[1]
    small = hk.LinearNetwork([second @ first, *net.weights[2:]], merged)
    H, expected = loss.hessian(net, [2, 3]), loss.hessian(small, [1, 2]).toarray()
    values, vectors = H.eigh()
    reference = np.linalg.eigvalsh(expected)
    relative(values, reference, 1e-13)
    relative(vectors * values @ vectors.T, expected, 1e-13)
    relative(H.gauss_newton().eigvalsh(), loss.hessian(small, [1, 2]).gauss_newton().eigvalsh(), 1e-13)


@pytest.mark.parametrize("e", [0, 170])
def test_weights_whose_squares_overflow(backend, e):
    """The triangular factor of such weights is that of the same weights in other units."""
    rng = np.random.default_rng(0)
    lower, upper, b = rng.standard_normal((12, 3)), rng.standard_normal((2, 12)), rng.standard_normal(12)
    units = 10.0**e
    reduction = WidthReduction(PlainLayers((lower * units, upper / units), (b * units, None)), 0, {})
    for lift in (False, True):
        small, product = reduction.reduced(get(), lift=lift)
        relative(product.value, upper @ np.column_stack([lower, b]), 1e-14)
        below, above = np.column_stack([small.weights[0], small.biases[0]]) / units, small.weights[1] * units
        relative(below.T @ below, np.column_stack([lower, b]).T @ np.column_stack([lower, b]), 1e-13)
        relative(above @ above.T, upper @ upper.T, 1e-13)
        relative(above @ below, product.value, 1e-13)


# Training -------------------------------------------------------------------------------------------------------------


def both(net, loss, **options):
    options = {"max_steps": 8, "record": ("loss", "gradient_norm")} | options
    return hk.fit(net, loss, **options), hk.fit(net, loss, reduce="none", **options)


@pytest.mark.parametrize("method", [{}, {"momentum": 0.5, "batch_size": 3}])
def test_runs_agree(backend, method):
    kept = []
    for seed in range(24):
        problem = draw(seed, most=30)
        problem.selected = list(range(len(problem.weights)))
        exact = np.abs(dense(problem)).astype(float)
        auto, none = both(problem.network(), problem.loss(), lr=0.3 / (len(exact) * exact.max()), **method)
        kept.append(auto.reduction.unbalanced)
        leak = max(auto.reduction.leak, EPS)
        for name in ("loss", "gradient_norm"):
            assert len(auto.history[name]) == len(none.history[name])
            relative(auto.history[name], none.history[name], 1e4 * leak)
    assert 0 < sum(kept) < len(kept)


WHY = (
    "widths not reduced, because the weights of the hidden units differ by orders of magnitude from unit to unit, "
    "and a reduction would lose digits"
)


@pytest.mark.parametrize("widths", [(3, 20, 3), (3, 20, 3, 3, 3)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("e", [0, 3, 8, 30])
def test_unbalanced_networks_are_trained_as_they_are(backend, e, bias, widths):
    net, loss = layers(e, widths=widths, bias=bias)
    auto, none = both(net, loss, lr=1e-4 / 10.0 ** (2 * e))
    relative(auto.history["loss"], none.history["loss"], 1e-13)
    relative(auto.history["loss"][0], loss(net), 1e-13)
    reduction = auto.reduction
    if e == 0:
        assert reduction.widths is not None
        assert reduction.unbalanced == 0
        return
    assert (reduction.widths, reduction.leak, reduction.unbalanced) == (None, 0.0, 1)
    assert str(reduction).endswith(WHY)
    assert none.reduction.unbalanced == 0


def test_graded_neighbours_are_no_reason():
    """Sizes of features and of outputs pass through: only what differs from unit to unit is mixed."""
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork(
        [rng.standard_normal((20, 3)) * 10.0 ** np.array([-8, 0, 8]), rng.standard_normal((2, 20)) * [[1e6], [1e-6]]]
    )
    loss = hk.SquaredLoss(rng.standard_normal((9, 3)), rng.standard_normal((9, 2)))
    assert hk.fit(net, loss, lr=1e-30, max_steps=1).reduction.widths == ((3, 20, 2), (3, 5, 2))


@pytest.mark.parametrize("zero", [0, 1])
def test_a_layer_of_zeros_is_balanced(backend, zero):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((20, 3)), rng.standard_normal((2, 20))]
    weights[zero][:] = 0
    auto, none = both(hk.LinearNetwork(weights), hk.SquaredLoss(np.eye(3), rng.standard_normal((3, 2))), lr=0.01)
    assert auto.reduction.widths is not None
    relative(auto.history["loss"], none.history["loss"], 1e-13)


def test_paths_that_do_not_meet(backend):
    """Input and output are joined by no unit: their product is exactly zero, and reduced it would not be."""
    rng = np.random.default_rng(0)
    lower, upper = rng.standard_normal((20, 2)), rng.standard_normal((2, 20))
    lower[:10] *= 1e9
    upper[:, 10:] *= 1e9
    lower[10:, 0], upper[0, :10], lower[:10, 1], upper[1, 10:] = 0, 0, 0, 0
    net = hk.LinearNetwork([lower, upper])
    loss = hk.SquaredLoss(rng.standard_normal((6, 2)), rng.standard_normal((6, 2)))
    auto, none = both(net, loss, lr=1e-25)
    assert auto.reduction.unbalanced == 1
    relative(auto.history["loss"], none.history["loss"], 1e-14)


def test_one_unbalanced_network_in_an_ensemble(backend):
    """All keep their widths, for all have the same ones; each is what `fit` makes of it."""
    nets = [layers(0, seed)[0] for seed in range(5)]
    loss = layers(0)[1]
    nets[2] = layers(9)[0]
    rates = [1e-5, 1e-5, 1e-24, 1e-5, 1e-5]
    options = {"max_steps": 6, "record": ("loss", "weights")}
    runs = hk.fit_ensemble(nets, loss, lr=rates, **options)
    assert (runs.reduction.widths, runs.reduction.unbalanced) == (None, 1)
    assert str(runs.reduction).endswith("; " + WHY)
    for k, net in enumerate(nets):
        alone = hk.fit(net, loss, lr=rates[k], **options)
        relative(runs.history["loss"][k], alone.history["loss"], 1e-13)
        relative(runs.history["weights"][k], alone.history["weights"], 1e-13)


def test_the_generator_repeats_itself():
    one, other = draw(7), draw(7)
    np.testing.assert_array_equal(dense(one), dense(other))
    assert unbalanced.draw(8).seed == 8
