"""Starts from orthogonal inner layers: which are taken, and the small network against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from reducible import orthogonal

from hesskern import backends
from hesskern.backends.protocol import PlainLayers
from hesskern.reductions.orthogonal_start import (
    GENERAL_POSITION,
    may_reduce,
    orthogonal_factors,
    orthogonal_start,
    span_columns,
)

RNG = np.random.default_rng(6)


def network(inner, *, inputs=3, outputs=2, biased=()):
    """Return a network with these inner layers."""
    width = len(inner[0])
    weights = (RNG.standard_normal((width, inputs)), *inner, RNG.standard_normal((outputs, width)))
    biases = [RNG.standard_normal(len(w)) if k in biased else None for k, w in enumerate(weights)]
    return PlainLayers(weights, tuple(biases))


@pytest.mark.parametrize("scale", [1.0, -3.0, 1e-160, 1e160])
@pytest.mark.parametrize("width", [8, 30, 200])
def test_multiples_of_orthogonal_matrices(width, scale):
    reflected = np.linalg.svd(RNG.standard_normal((width, width)))[0]
    factors = orthogonal_factors(network([scale * orthogonal(width, 1), np.eye(width), 0.5 * reflected]))
    np.testing.assert_allclose(factors, [abs(scale), 1.0, 0.5], rtol=1e-14)


@pytest.mark.parametrize("width", [8, 50, 400, 1000])
@pytest.mark.parametrize("defect", [1e-12, 1e-10, 1e-6])
def test_layers_that_are_orthogonal_only_to_a_defect(width, defect):
    """The defect of one changed row is twice the change; it is said with two digits."""
    changed = np.eye(width)
    changed[1] *= 1 + 0.6 * defect
    found = orthogonal_factors(network([np.eye(width), changed]))
    assert found.startswith("inner layers are orthogonal only to ")
    assert float(found.split()[-1]) == pytest.approx(1.2 * defect, rel=0.1)


def test_single_precision_has_its_own_rounding():
    turn = orthogonal(40, 3)
    rounded = PlainLayers(tuple(w.astype(np.float32) for w in network([turn, turn]).weights), (None,) * 4)
    assert orthogonal_factors(rounded) == pytest.approx([1.0, 1.0], abs=1e-6)
    double = PlainLayers(tuple(w.astype(np.float64) for w in rounded.weights), (None,) * 4)
    assert orthogonal_factors(double).startswith("inner layers are orthogonal only to")


def test_others():
    assert orthogonal_factors(network([orthogonal(20, 1), RNG.standard_normal((20, 20))])) == GENERAL_POSITION
    late = np.eye(20)
    late[15, 15] = 0.99  # not in the first columns
    assert orthogonal_factors(network([late])) == GENERAL_POSITION
    assert orthogonal_factors(network([np.zeros((20, 20))])) == "an inner layer is zero"


@pytest.mark.parametrize(
    ("width", "inner", "biased", "expected"),
    [(7, 1, (), True), (6, 1, (), False), (7, 0, (), False), (7, 2, (0,), False), (8, 2, (0,), True)],
)
def test_where_it_helps(width, inner, biased, expected):
    """Three inputs and two outputs, and a spare unit that may be needed."""
    layers = network([np.eye(width)] * max(inner, 1), biased=biased)
    if inner == 0:
        layers = PlainLayers((layers.weights[0], layers.weights[-1]), (None, None))
    counted = [k in biased for k in range(len(layers.weights) - 1)]
    assert span_columns(layers, counted) == 5 + len(biased)
    assert may_reduce(layers, counted) is expected


def test_layers_that_are_not_square_stay():
    layers = PlainLayers(tuple(RNG.standard_normal(shape) for shape in [(30, 3), (20, 30), (2, 20)]), (None,) * 3)
    assert not may_reduce(layers, [False, False])


@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("biased", [(), (0, 1, 2, 3), (1,)])
def test_the_small_network_is_that_of_the_definition(spare, biased):
    layers = network([1.5 * orthogonal(12, 1), 0.7 * orthogonal(12, 2)], biased=biased)
    counted = [k in biased for k in range(3)]
    start = orthogonal_start(layers, orthogonal_factors(layers), counted, spare=spare)
    bases = [np.eye(3), *start.bases, np.eye(2)]
    kept = 5 + sum(counted)
    for layer, (weight, small) in enumerate(zip(layers.weights, start.reduced.weights, strict=True)):
        above, below = bases[layer + 1], bases[layer]
        np.testing.assert_allclose(above.T @ above, np.eye(above.shape[1]), rtol=0, atol=1e-14)
        inside = small[: above.shape[1], : below.shape[1]]
        np.testing.assert_allclose(inside, above.T @ weight @ below, rtol=0, atol=1e-13)
        # Nothing leads out of the spaces.
        np.testing.assert_allclose(above @ inside, weight @ below, rtol=0, atol=1e-13)
        np.testing.assert_allclose(inside @ below.T, above.T @ weight, rtol=0, atol=1e-13)
        bias = layers.biases[layer]
        if bias is not None:
            np.testing.assert_allclose(above @ start.reduced.biases[layer][: above.shape[1]], bias, atol=1e-13)
    assert start.outside == 12 - kept
    assert start.decaying**2 == pytest.approx((12 - kept - spare) * (1.5**2 + 0.7**2), rel=1e-13)
    if spare:
        for small, factor in zip(start.reduced.weights[1:-1], (1.5, 0.7), strict=True):
            assert small[-1, -1] == pytest.approx(factor, rel=1e-14)
            assert not small[-1, :-1].any()
            assert not small[:-1, -1].any()


@pytest.mark.parametrize("spare", [False, True])
def test_there_and_back(spare):
    layers = network([1.5 * orthogonal(12, 1), 0.7 * orthogonal(12, 2)], biased=(0, 1))
    start = orthogonal_start(layers, orthogonal_factors(layers), [True, True, False], spare=spare)
    same = start.lift(start.reduced, 1.0)
    assert all((a == b).all() for a, b in zip(same.weights, layers.weights, strict=True))
    kept = 7
    changes = [RNG.standard_normal(w.shape) for w in start.reduced.weights]
    moved = PlainLayers(
        tuple(w + c for w, c in zip(start.reduced.weights, changes, strict=True)),
        tuple(None if b is None else 2.0 * b for b in start.reduced.biases),
    )
    lifted = start.lift(moved, 0.25)
    bases = [np.eye(3), *start.bases, np.eye(2)]
    for layer, change in enumerate(changes):
        above, below, weight = bases[layer + 1], bases[layer], layers.weights[layer]
        outside = weight - above @ above.T @ weight @ below @ below.T
        rows, columns = min(len(change), kept) if layer < 3 else 2, min(change.shape[1], kept) if layer else 3
        expected = weight - 0.75 * outside + above @ change[:rows, :columns] @ below.T
        np.testing.assert_allclose(lifted.weights[layer], expected, rtol=0, atol=1e-13)
    for layer in (0, 1):
        np.testing.assert_allclose(lifted.biases[layer], 2.0 * layers.biases[layer], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", backends.host_names())
def test_units_that_differ_by_orders_of_magnitude_are_not_mixed(name):
    if name == "numba":
        pytest.importorskip("numba")
    backend = backends.get(name)
    layers = network([np.eye(20)])
    sizes = 10.0 ** np.linspace(4, -4, 20)

    def mixes(weights):
        some = PlainLayers(weights, (None,) * 3)
        return orthogonal_start(some, [1.0], [False, False], spare=False).mixes_units(backend)

    first, inner, last = layers.weights
    assert not mixes((first, inner, last))
    assert mixes((first * sizes[:, None], inner, last / sizes))
    rectangular = np.eye(20)
    assert not mixes((rectangular[:, :3], inner, rectangular[:2]))  # zeros are no small numbers
