"""Networks in padded, transposed rows: every parameter in its place, zeros around it."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

pytest.importorskip("numba")
from hesskern.backends.numba_kernels import layout
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES


def layout_of(problem, itemsize=8):
    widths = np.array([problem.X.shape[1], *map(len, problem.weights)])
    return layout.make_layout(widths, np.array([bias is not None for bias in problem.biases]), itemsize)


@pytest.mark.parametrize("seed", [3, 8, 14])
def test_parameters_stand_in_transposed_layers(seed):
    problem = problems.general(seed)
    made = layout_of(problem)
    flat = oracle.flatten(problem.weights, problem.biases)
    assert layout.number_of_parameters(made) == len(flat)
    memory = np.zeros(made[0, layout.START] + 5)
    layout.pack(made, flat, 0, 1, memory, 5, 1.0)
    has_bias = any(bias is not None for bias in problem.biases)
    for layer, (weight, bias) in enumerate(zip(problem.weights, problem.biases, strict=True), 1):
        rows, pad = made[layer - 1, layout.PAD], made[layer, layout.PAD]
        assert rows % (VECTOR_BYTES // 8) == pad % (VECTOR_BYTES // 8) == 0
        T = memory[5 + made[layer, layout.START] :][: rows * pad].reshape(rows, pad)
        wanted = np.zeros((rows, pad))
        outputs, inputs = weight.shape
        wanted[:inputs, :outputs] = weight.T
        if bias is not None:
            wanted[inputs, :outputs] = bias
        if has_bias and layer < len(problem.weights):
            wanted[inputs, outputs] = 1.0
        np.testing.assert_array_equal(T, wanted)
    back = np.empty_like(flat)
    layout.unpack(made, memory, 5, back, 0, 1)
    np.testing.assert_array_equal(back, flat)
    mask = np.zeros_like(memory)
    layout.pack_mask(made, mask, 5)
    assert mask.sum() == len(flat) and (memory[mask == 1] != 0).all()


def test_one_column_of_several():
    problem = problems.general(3)
    made = layout_of(problem)
    count = layout.number_of_parameters(made)
    columns = np.arange(3.0 * count)
    memory = np.zeros(made[0, layout.START])
    layout.pack(made, columns, 1, 3, memory, 0, 0.0)
    out = np.zeros(2 * count)
    layout.unpack(made, memory, 0, out, 1, 2)
    np.testing.assert_array_equal(out.reshape(count, 2)[:, 1], columns.reshape(count, 3)[:, 1])
    assert not out.reshape(count, 2)[:, 0].any()
