"""Tensors on a GPU where there is one, and tensors in main memory in its place.

Two things stand in there: the launch of a kernel (its host-compiled twin runs) and the answer to "is this on a GPU?".
"""

from __future__ import annotations

import pytest
import torch

import hesskern as hk
from hesskern import backends
from hesskern._base import devices

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=on_a_gpu)])
def place(request, monkeypatch):
    """Where PyTorch has the tensors; in main memory they count as being on "cuda:0"."""
    if request.param == "gpu":
        with torch.device("cuda:0"):
            yield "cuda:0"
        return
    monkeypatch.setitem(backends._MODULES, "cuda", "cuda_stand_in")
    monkeypatch.setattr(devices, "on_device", lambda value: isinstance(value, torch.Tensor))
    monkeypatch.setattr(devices, "place", lambda array: "cuda:0" if isinstance(array, torch.Tensor) else "cpu")
    backends._load.cache_clear()
    yield "cpu"
    backends._load.cache_clear()


def moved(net, loss, **options):
    """The network and loss with tensors."""
    tensors = [torch.tensor(weight) for weight in net.weights]
    biases = [None if bias is None else torch.tensor(bias) for bias in net.biases]
    there = hk.SquaredLoss(torch.tensor(loss.X), torch.tensor(loss.Y), loss.kind, loss.weight_decay, **options)
    return hk.LinearNetwork(tensors, biases), there
