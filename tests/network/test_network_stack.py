"""Many networks as one value: a sequence of networks, checked once."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.standard_normal((4, 3, 2)), RNG.standard_normal((4, 1, 3))]
BIASES = [None, RNG.standard_normal((4, 1))]


def test_it_is_a_sequence_of_networks():
    stack = hk.NetworkStack(WEIGHTS, BIASES)
    assert len(stack) == 4 and stack.dtype == np.float64 and stack.device == "cpu"
    for k, net in enumerate(stack):
        assert isinstance(net, hk.LinearNetwork) and net.biases[0] is None
        np.testing.assert_array_equal(net.weights[0], WEIGHTS[0][k])
        np.testing.assert_array_equal(net.weights[1], WEIGHTS[1][k])
        np.testing.assert_array_equal(net.biases[1], BIASES[1][k])
    np.testing.assert_array_equal(stack[-1].flatten(), stack[3].flatten())


def test_slices_are_stacks():
    some = hk.NetworkStack(WEIGHTS, BIASES)[1::2]
    assert isinstance(some, hk.NetworkStack) and len(some) == 2
    np.testing.assert_array_equal(some.weights[0], WEIGHTS[0][1::2])
    np.testing.assert_array_equal(some.biases[1], BIASES[1][1::2])


@pytest.mark.parametrize("index", [4, -5])
def test_networks_that_are_not_there(index):
    with pytest.raises(IndexError, match=rf"^index is {index}; there are 4 networks, counted from 0\.$"):
        hk.NetworkStack(WEIGHTS)[index]


def test_it_says_what_it_is():
    assert repr(hk.NetworkStack(WEIGHTS, BIASES)) == "NetworkStack(4 networks, 2-3-1, bias in 1 of 2 layers, float64)"
    assert repr(hk.NetworkStack(WEIGHTS[:1])) == "NetworkStack(4 networks, 2-3, no bias, float64)"


REFUSED = {
    "no list": ((WEIGHTS[0],), TypeError, r"^weights is a ndarray; expected a list of \(B, out, in\) arrays\.$"),
    "nothing": (([],), ValueError, r"^weights is empty; expected a list"),
    "widths": ((WEIGHTS[::-1],), ValueError, r"^weights\[1\] has shape \(4, 3, 2\)"),
    "counts": (([WEIGHTS[0], WEIGHTS[1][:3]],), ValueError, r"^weights\[1\] has shape \(3, 1, 3\)"),
    "dtypes": (([WEIGHTS[0], WEIGHTS[1].astype("f4")],), TypeError, r"^weights\[1\] has dtype float32"),
    "one bias": ((WEIGHTS, [None]), ValueError, r"^biases has 1 entries; expected 2 entries"),
    "bias": ((WEIGHTS, [None, np.zeros((4, 2))]), ValueError, r"^biases\[1\] has shape \(4, 2\); expected \(4, 1\)\.$"),
    "NaN": (([np.full((1, 2, 2), np.nan)],), ValueError, r"^weights\[0\] "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_named(case):
    arguments, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        hk.NetworkStack(*arguments)
