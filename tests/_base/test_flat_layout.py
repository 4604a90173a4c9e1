"""The order of the parameters in one vector: layer after layer, the weight row by row, then the bias."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern._base.flat_layout import FlatLayout, join

WIDTHS, BIASES = (3, 4, 2, 5), (True, False, True)
LAYOUT = FlatLayout.of_widths(WIDTHS, BIASES)


def entries():
    """(layer, is bias, place in its array) of every number, written down as the order is described."""
    found = []
    for layer, (inputs, outputs) in enumerate(zip(WIDTHS[:-1], WIDTHS[1:], strict=True)):
        found += [(layer, False, (r, s)) for r in range(outputs) for s in range(inputs)]
        found += [(layer, True, (r,)) for r in range(outputs)] * BIASES[layer]
    return found


def test_every_number_stands_where_it_is_said_to():
    order = entries()
    assert LAYOUT.size == len(order) == 3 * 4 + 4 + 4 * 2 + 2 * 5 + 5
    assert LAYOUT.widths == WIDTHS
    weights, biases = LAYOUT.split(np.arange(len(order)))
    for position, (layer, is_bias, place) in enumerate(order):
        assert (biases if is_bias else weights)[layer][place] == position
    assert biases[1] is None
    assert FlatLayout.of(weights, biases) == LAYOUT
    for layer, is_bias, shape, start, stop in LAYOUT.places():
        assert order[start][:2] == order[stop - 1][:2] == (layer, is_bias) and stop - start == np.prod(shape)


@pytest.mark.parametrize("axis", [-1, 0])
def test_joining_undoes_splitting(axis):
    shape = (2, 3, LAYOUT.size) if axis else (LAYOUT.size, 2, 3)
    vectors = np.random.default_rng(0).standard_normal(shape)
    weights, biases = LAYOUT.split(vectors, axis)
    assert weights[0].shape == ((2, 3, 4, 3) if axis else (4, 3, 2, 3))
    assert np.shares_memory(weights[0], vectors)
    np.testing.assert_array_equal(join(weights, biases, axis), vectors)


PARTS = [(0, False, True), (2, True, False)]


def test_some_of_the_parameters():
    some = LAYOUT.select(PARTS)
    chosen = [k for k, (layer, bias, _) in enumerate(entries()) if (layer, bias) in ((0, True), (2, False))]
    assert some.size == len(chosen)
    np.testing.assert_array_equal(LAYOUT.positions(PARTS), chosen)
    weights, biases = some.split(np.arange(some.size))
    assert [part is None for part in (*weights, *biases)] == [True, True, False, False, True, True]
    np.testing.assert_array_equal(join(weights, biases), np.arange(some.size))
    assert LAYOUT.positions([(0, True, True), (1, True, False), (2, True, True)]) is None
