"""What the CUDA backend computes with PyTorch, on tensors in main memory, against the numpy backend."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import cuda_host
import numpy as np
import problems
import pytest
from looped import each

from hesskern import backends
from hesskern.backends.data import Data

pytest.importorskip("torch")

import torch

from hesskern.backends.cuda.operations import CudaBackend

BACKEND, REFERENCE = CudaBackend(cuda_host.launch, cuda_host.limits), backends.get("numpy")
SEEDS = range(15)


class Net(NamedTuple):
    """A network of tensors."""

    weights: tuple[Any, ...]
    biases: tuple[Any, ...]


def tensor(array):
    return None if array is None else torch.tensor(np.asarray(array))


def case(seed, dtype):
    """The same network and data for both backends."""
    problem = problems.general(seed)
    net, loss = problem.network(dtype), problem.loss(dtype)
    data = loss.data(bias=net.has_bias, reduced=True)._replace()
    data = data._replace(ones=data.column)
    there = Net(tuple(map(tensor, net.weights)), tuple(map(tensor, net.biases)))
    return loss, net, data, there, Data(*map(tensor, data[:3]), data.constant)


def close(found, wanted, dtype):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    scale = max(1.0, np.abs(wanted).max(initial=0.0))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=BACKEND.tolerance[dtype] * scale)


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


@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True)], ids=["full", "gauss-newton", "rest"])
@each("seed", SEEDS)
def test_products(seed, parts, dtype):
    loss, net, data, there, moved = case(seed, dtype)
    options = {"scale": loss.scale, "decay": 0.375, "gauss_newton": parts[0], "functional": parts[1]}
    product, reference = (
        BACKEND.hessian_product(there, moved, **options),
        REFERENCE.hessian_product(net, data, **options),
    )
    for shape in [(net.num_parameters,), (net.num_parameters, 1), (net.num_parameters, 4)]:
        v = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
        wanted, out = np.empty_like(v), torch.empty(shape, dtype=moved.X.dtype)
        reference.apply(v, wanted)
        product.apply(torch.tensor(v), out)
        close(out, wanted, dtype)


class Recorder:
    """A CUDA graph in main memory: what was computed while it was open is computed again by `replay`."""

    def __init__(self, product):
        self.product, self.times, self.open = product, product._times, False
        self.plain = self.recorded = self.replayed = 0
        product._times = self.compute

    def compute(self, directions):
        result = self.times(directions)
        if self.open:
            self.recorded += 1
            self.given, self.result = directions, result.clone()
            self.result.fill_(torch.nan)  # what is recorded has not been computed
            return self.result
        self.plain += 1
        return result

    def replay(self):
        self.replayed += 1
        self.result.copy_(self.times(self.given))

    def __enter__(self):
        self.open = True

    def __exit__(self, *_):
        self.open = False


def test_the_second_product_of_a_shape_is_recorded_and_the_next_are_replayed(monkeypatch):
    loss, net, _, there, moved = case(8, "float64")
    product = BACKEND.hessian_product(there, moved, scale=loss.scale, decay=0.0, gauss_newton=True, functional=True)
    graphs = Recorder(product)
    capturing = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graphs)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: bool(capturing))
    kept = []
    for seed in range(4):
        v = torch.tensor(np.random.default_rng(seed).standard_normal((3, net.num_parameters)))
        kept.append((product._replayed(v).clone(), graphs.times(v)))
    assert all((found == wanted).all() for found, wanted in kept)
    assert (graphs.plain, graphs.recorded, graphs.replayed) == (1, 1, 3)
    assert not (kept[0][0] == kept[1][0]).all()
    capturing.append("a graph of the user's")
    product._replayed(v)
    assert (graphs.plain, graphs.recorded, graphs.replayed) == (2, 1, 3)
    capturing.clear()
    product._replayed(v[:2])  # another shape
    assert (graphs.plain, graphs.recorded, graphs.replayed) == (3, 1, 3)


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
