"""Pieces of one memory: one behind the other, as long as what stands in them, beginning with a cache line."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("numba")
from hesskern.backends.numba_kernels import layout, memory

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("product", "hessian", "descent"), list(itertools.product([False, True], repeat=3)))
def test_pieces_do_not_overlap(product, hessian, descent):
    made = layout.make_layout(np.array([3, 5, 2]), np.array([True, False]), 8)
    samples, batch, vectors = 11, 4 if descent else 0, 3 if hessian and descent else 0
    options = (samples, product, hessian, descent, descent, batch, vectors)
    flat = memory.make_memory(made, np.empty(0), *options)
    at = memory.places(flat, made, *options)
    assert list(at) == sorted(at) and at.end <= len(flat) and not flat.any()
    assert (flat.ctypes.data + 8 * at.theta) % 64 == 0
    network = made[0, layout.START]
    sizes = dict(zip(at._fields, np.diff([*at, len(flat)]), strict=True))
    for name, wanted in {
        "theta": network, "gradient": network, "x": samples * made[0, layout.PAD], "y": samples * made[-1, layout.PAD],
        "direction": network * hessian, "image": network * hessian, "other": network * descent,
        "velocity": network * descent, "mask": network * descent, "batch_x": batch * made[0, layout.PAD],
        "space": vectors * network,
    }.items():  # fmt: skip
        assert sizes[name] == wanted, name


def test_many_samples_go_through_in_chunks():
    made = layout.make_layout(np.array([3, 1000, 2]), np.array([False, False]), 8)
    assert memory.chunk_of(made, 5) == 5
    assert 64 <= memory.chunk_of(made, 10**6) < 10**6
    assert memory.rows_of_product(made) == 3
