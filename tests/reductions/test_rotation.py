"""Data with a diagonal X: the same residual norm for every network, and where it is not worth while."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.backends.data import Data
from hesskern.reductions.rotation import pays, rotated

RNG = np.random.default_rng(9)


@pytest.mark.parametrize("rows", [5, 6, 9])
@pytest.mark.parametrize("ones", [None, RNG.standard_normal(9)])
def test_the_same_residual(rows, ones):
    given = Data(
        RNG.standard_normal((rows, 5)), None if ones is None else ones[:rows], RNG.standard_normal((rows, 2)), 0.5
    )
    data, turn = rotated(given, mixed=True)
    off = data.X.copy()
    np.fill_diagonal(off, 0.0)
    assert not off.any()
    assert data.constant == 0.5
    np.testing.assert_allclose(turn.T @ turn, np.eye(5), rtol=0, atol=1e-14)
    P, p = RNG.standard_normal((2, 5)), RNG.standard_normal(2)
    before = given.X @ P.T + np.outer(given.column, p) - given.Y
    after = data.X @ (P @ turn).T + np.outer(data.column, p) - data.Y
    np.testing.assert_allclose(before.T @ before, after.T @ after, rtol=1e-12)


def test_what_is_not_mixed():
    X, Y = RNG.standard_normal((6, 6)), RNG.standard_normal((6, 2))
    sizes = 10.0 ** np.linspace(2, -2, 6)
    assert rotated(Data(X, None, Y, 0.0), mixed=False) is not None
    assert rotated(Data(X * sizes, None, Y, 0.0), mixed=True) is None
    rows = Data(X * sizes[:, None], None, Y * sizes[:, None], 0.0)
    assert rotated(rows, mixed=False) is None
    assert rotated(rows, mixed=True) is not None
    assert rotated(Data(X[:4], None, Y[:4], 0.0), mixed=True) is None


@pytest.mark.parametrize(
    ("widths", "rows", "expected"),
    [
        ((50, 60, 10), 50, True),
        ((20, 40, 20), 20, True),
        ((5, 10, 5), 5, False),  # few inputs
        ((50, 200, 200, 10), 50, False),  # the layers cost more
        ((50, 60, 10), 2, False),  # few samples go through by themselves
    ],
)
def test_where_it_pays(widths, rows, expected):
    assert pays(widths, rows, bias=False) is expected
