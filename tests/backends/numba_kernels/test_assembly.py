"""A block of the dense Hessian, written row by row, against its definition, one entry at a time."""

from __future__ import annotations

import numpy as np
import pytest
from looped import each

pytest.importorskip("numba")
from hesskern.backends.numba_kernels import assembly
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES
from hesskern.backends.protocol import Side


def places(side):
    """Pairs (outer, inner) in the order of the parameters, those of the constant input last."""
    inner = [(r, s) for r in range(side.outer) for s in range(side.inner)]
    return inner + [(r, side.inner) for r in range(side.outer)] * side.bias


@each("case", [(1, 1, False, 2, 1, True), (2, 3, True, 4, 5, False), (3, 9, True, 2, 17, True)])
def test_every_entry_is_its_definition(case):
    rng = np.random.default_rng(0)
    row, column = Side(*case[:3]), Side(*case[3:])
    U, V = rng.standard_normal((row.outer, column.outer)), rng.standard_normal(
        (row.inner + row.bias, column.inner + column.bias)
    )  # fmt: skip
    B, W = rng.standard_normal((len(V), len(U[0]))), rng.standard_normal((len(U), len(V[0])))
    pieces = [U, V, B, W]
    starts = np.cumsum([0, *(piece.size for piece in pieces)])[:4]
    where = np.array([[[*starts, U.shape[1], V.shape[1], True]]], dtype=np.int64)
    factors = np.concatenate([*(piece.ravel() for piece in pieces), np.zeros(VECTOR_BYTES // 8)])
    sides = np.array([row], dtype=np.int64), np.array([column], dtype=np.int64)
    out = np.full((len(places(row)), len(places(column))), np.nan)
    half = len(out) // 2
    for first, last in ((0, half), (half, len(out))):  # in two pieces, as two threads would
        assembly.assemble(*sides, where, factors, first, last, out.reshape(-1))
    wanted = [[U[r, p] * V[s, q] + B[s, p] * W[r, q] for p, q in places(column)] for r, s in places(row)]
    np.testing.assert_allclose(out, wanted, rtol=1e-13)
    assert [assembly.size_of(sides[0], 0), assembly.size_of(sides[1], 0)] == list(out.shape)
