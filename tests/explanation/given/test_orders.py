"""Orders of the parameters: each is the permutation that its words describe."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk
from hesskern.explanation.given.orders import column_order, orders, tensors
from hesskern.network.parameters import select

NET = hk.LinearNetwork([np.zeros((2, 3)), np.zeros((4, 2))], [np.zeros(2), np.zeros(4)])
#: Each parameter's positions in the usual order.
W1, b1, W2, b2 = np.arange(6).reshape(2, 3), np.arange(6, 8), np.arange(8, 16).reshape(4, 2), np.arange(16, 20)

EXPECTED = {
    "vec-column": [W1.T, b1, W2.T, b2],
    "vec-column[0]": [W1.T, b1, W2, b2],
    "vec-column[1]": [W1, b1, W2.T, b2],
    "layers-reversed": [W2, b2, W1, b1],
    "all-reversed": [b2, W2, b1, W1],
    "biases-first": [b1, b2, W1, W2],
    "biases-last": [W1, W2, b1, b2],
    "bias-before-weight": [b1, W1, b2, W2],
    "bias-column": [np.column_stack([W1, b1]), np.column_stack([W2, b2])],
}


def test_where_tensors_stand():
    found = tensors(NET, select(NET, [1]))
    assert [(tensor.full_name, tensor.start, tensor.stop) for tensor in found] == [
        ("1.weight", 0, 8),
        ("1.bias", 8, 12),
    ]
    np.testing.assert_array_equal(column_order(found[0]), np.arange(8).reshape(4, 2).T.ravel())


def test_every_order_is_what_it_is_called():
    found = orders(tensors(NET, select(NET, None)))
    assert found[0].causes == () and found[0].source is None
    single = {order.causes[0].key: order.source for order in found if len(order.causes) == 1}
    assert set(single) == set(EXPECTED)
    for name, source in single.items():
        np.testing.assert_array_equal(source, np.concatenate([piece.ravel() for piece in EXPECTED[name]]), err_msg=name)


def test_no_permutation_is_tried_twice():
    found = orders(tensors(NET, select(NET, None)))[1:]
    keys = {order.source.tobytes() for order in found}
    assert len(keys) == len(found)
    assert all(sorted(order.source) == list(range(20)) for order in found)


@pytest.mark.parametrize("params", [["0.bias"], ["0.bias", "1.bias"]])
def test_vectors_have_no_columns(params):
    found = orders(tensors(NET, select(NET, params)))
    assert not any("vec-column" in cause.key for order in found for cause in order.causes)
