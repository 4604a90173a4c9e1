"""Orthogonal bases of nested spaces: dimensions, spans, and what is dropped."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.reductions.nested_directions import Directions


def matrix(rank, rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))


def spanned(directions, count):
    """The first directions as columns."""
    return directions.rotate(np.eye(directions.size), back=True)[:, :count]


def residual(directions, count, rows):
    basis = spanned(directions, count)
    return np.linalg.norm(rows - (rows @ basis) @ basis.T) / np.linalg.norm(rows)


@pytest.mark.parametrize(("rank", "rows", "columns"), [(2, 5, 9), (5, 5, 9), (3, 9, 3), (0, 4, 6)])
def test_the_kept_space(rank, rows, columns):
    M = matrix(rank, rows, columns)
    directions = Directions(M, 1e-12)
    assert (directions.size, directions.kept) == (columns, rank)
    if rank:
        assert residual(directions, rank, M) <= 1e-14
    whole = spanned(directions, columns)
    np.testing.assert_allclose(whole.T @ whole, np.eye(columns), atol=1e-14)


def test_inner_and_outer_spaces():
    """Spaces of dimension 1, 2 inside one of 4, inside others of 6 and all 9."""
    M = matrix(4, 7, 9)
    directions = Directions(M, 1e-12)
    coordinates = directions.basis.T.copy()
    inner = [matrix(1, 3, 4, 1), None]
    inner[1] = np.vstack([inner[0], matrix(1, 2, 4, 2)])
    outer = np.vstack([M, matrix(2, 2, 9, 3)])
    directions.nest({5: (inner[0], 1e-12), 4: (inner[1], 1e-12)}, 4)
    directions.extend({2: outer, 1: None})
    assert directions.inner == {5: 1, 4: 2}
    assert directions.outer == {2: 6, 1: 9}
    for count, rows in ((1, inner[0] @ coordinates), (2, inner[1] @ coordinates), (4, M), (6, outer)):
        assert residual(directions, count, rows) <= 1e-13


def test_a_singular_value_below_the_limit_is_left_out():
    directions = Directions(np.diag([1.0, 1e-3, 1e-17]), 1e-15)
    assert directions.kept == 2
    directions.nest({0: (np.array([[1.0, 1e-9]]), 1e-6), 1: (np.array([[0.0, 1e-9]]), 1e-6)}, 2)
    assert directions.inner == {0: 1, 1: 1}


def test_no_more_directions_than_there_can_be():
    directions = Directions(np.eye(3), 0.0)
    directions.nest({0: (np.eye(3), 0.0)}, 2)
    assert directions.inner == {0: 2}
