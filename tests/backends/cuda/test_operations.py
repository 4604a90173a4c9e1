"""What the CUDA backend computes with PyTorch, on tensors in main memory, against the numpy backend."""

from __future__ import annotations

import numpy as np
import pytest
from looped import each

pytest.importorskip("torch")

import torch
from host_cuda import BACKEND, REFERENCE, SEEDS, case, close


@each("seed", SEEDS)
def test_forward_and_gradient(seed, dtype):
    loss, net, data, there, moved = case(seed, dtype)
    predictions = BACKEND.forward(there, moved.X)
    assert predictions.dtype == moved.X.dtype
    close(predictions, REFERENCE.forward(net, data.X), dtype)
    close(BACKEND.squared_residual(there, moved), REFERENCE.squared_residual(net, data), dtype)
    for found, wanted in zip(
        BACKEND.gradient(there, moved, loss.scale), REFERENCE.gradient(net, data, loss.scale), strict=True
    ):
        close(found, wanted, dtype)


@pytest.mark.parametrize("rows", [3, 6, 20])
def test_triangular_factor(rows, dtype):
    rng = np.random.default_rng(rows)
    parts = [rng.standard_normal((rows, columns)).astype(dtype) for columns in (3, 1, 2)]
    found = BACKEND.triangular_factor([torch.tensor(part) for part in parts])
    stacked = np.concatenate(parts, axis=1).astype(np.float64)
    assert found.dtype == torch.float64
    assert found.shape == (6, 6)
    assert (found.tril(-1) == 0).all()
    close(found.T @ found, stacked.T @ stacked, "float64")
