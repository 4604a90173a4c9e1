"""Recorded products: the second of a shape is recorded, the next ones are replayed."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from host_cuda import BACKEND, case


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
