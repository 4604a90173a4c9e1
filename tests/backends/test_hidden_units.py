"""The weights around a hidden layer: which layers can be reduced, and stacks of their weights."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk
from hesskern.backends.hidden_units import reducible, replaced, stacked
from hesskern.backends.protocol import PlainLayers


def layers(widths, bias=False):
    net = hk.LinearNetwork.random(widths, seed=0, bias=bias)
    return PlainLayers(net.weights, net.biases)


@pytest.mark.parametrize(
    ("widths", "bias", "expected"),
    [
        ([3, 5, 2], False, []),  # as wide as its neighbours together
        ([3, 6, 2], False, [0]),
        ([3, 6, 2], True, []),  # the bias is a neighbour
        ([3, 7, 2], True, [0]),
        ([3, 4, 8, 3], False, [1]),
        ([3, 12, 8, 3], False, [0]),
        ([2, 7, 3, 9, 2], False, [0, 2]),
        ([3, 2, 2, 9], False, []),  # outputs are no hidden layer
        ([9, 2], False, []),
    ],
)
def test_what_can_be_reduced(widths, bias, expected):
    assert reducible(layers(widths, bias)) == expected


def test_a_hidden_layer_between_others_is_not_reduced():
    net = layers([2, 7, 3, 9, 2, 2])
    assert [reducible(net, {selected}) for selected in range(5)] == [[0], [0], [2], [2], []]


@pytest.mark.parametrize("bias", [False, True])
def test_a_stack_has_a_row_for_each_unit_and_goes_back(bias):
    rng = np.random.default_rng(0)
    biases = (rng.standard_normal(5), None) if bias else (None, None)
    net = PlainLayers((rng.standard_normal((5, 3)), rng.standard_normal((2, 5))), biases)
    stack = stacked(net, 0)
    assert stack.shape == (5, 5 + bias)
    for unit in range(5):
        own = [biases[0][unit]] if bias else []
        np.testing.assert_array_equal(stack[unit], [*net.weights[0][unit], *own, *net.weights[1][:, unit]])
    Q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    weights, turned = replaced(net, 0, Q.T @ stack)
    np.testing.assert_allclose(weights[1] @ weights[0], net.weights[1] @ net.weights[0], atol=1e-14)
    assert (turned[0] is not None) == bias and turned[1] is None
    np.testing.assert_allclose(weights[0], Q.T @ net.weights[0], atol=1e-14)
