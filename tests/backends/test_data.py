"""The data that backends see: dtypes, and the column that biases multiply."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.backends.data import Data

X, Y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.1], [0.2]])


def test_the_column_is_ones_unless_there_is_another():
    np.testing.assert_array_equal(Data(X, None, Y, 0.0).column, [1.0, 1.0])
    np.testing.assert_array_equal(Data(X, np.array([2.0, 0.0]), Y, 0.0).column, [2.0, 0.0])


@pytest.mark.parametrize("ones", [None, np.array([2.0, 0.1])])
def test_another_dtype(ones):
    data = Data(X, ones, Y, 0.5)
    assert data.astype(np.dtype(np.float64)) is data
    rounded = data.astype(np.dtype(np.float32))
    assert (rounded.X.dtype, rounded.Y.dtype, rounded.column.dtype, rounded.constant) == (*3 * [np.float32], 0.5)
    np.testing.assert_array_equal(rounded.Y, Y.astype(np.float32))
    np.testing.assert_array_equal(rounded.column, data.column.astype(np.float32))
