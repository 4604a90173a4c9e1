"""The CUDA backend on tensors in main memory, and the problems that it shares with the numpy backend."""

from __future__ import annotations

from typing import Any, NamedTuple

import cuda_host
import numpy as np
import problems
import pytest

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
