"""Thousands of steps in one launch: how a network's training is laid out in shared memory, and by how many threads.

The kernel is ``csrc/cuda/training.cuh``. Nothing chosen here changes a bit of a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_INTEGER, _NUMBER, _ADDRESS = np.int64, np.float64, np.uint64
#: The kernel's struct `Training`: its fields in their order.
TRAINING = np.dtype(
    [
        ("networks", _INTEGER), ("depth", _INTEGER), ("count_parameters", _INTEGER),
        ("widths", _ADDRESS), ("has_bias", _ADDRESS),
        ("parameters", _ADDRESS), ("previous", _ADDRESS), ("velocity", _ADDRESS),
        ("rows", _INTEGER), ("own_rows", _INTEGER),
        ("x", _ADDRESS), ("ones", _ADDRESS), ("y", _ADDRESS), ("constants", _ADDRESS),
        ("samples", _INTEGER), ("own_samples", _INTEGER), ("most", _INTEGER),
        ("sample_x", _ADDRESS), ("sample_y", _ADDRESS), ("order", _ADDRESS), ("ends", _ADDRESS),
        ("order_step", _INTEGER), ("scales", _ADDRESS), ("rates", _ADDRESS),
        ("rate_network", _INTEGER), ("rate_step", _INTEGER),
        ("scale", _NUMBER), ("rtol", _NUMBER), ("decay", _NUMBER), ("momentum", _NUMBER), ("nesterov", _INTEGER),
        ("first", _INTEGER), ("count", _INTEGER), ("every", _INTEGER), ("loss_wanted", _INTEGER),
        ("losses", _ADDRESS), ("batch_losses", _ADDRESS), ("norms", _ADDRESS), ("records", _INTEGER),
        ("targets", _ADDRESS), ("status", _ADDRESS), ("steps", _ADDRESS), ("seen", _ADDRESS), ("bytes", _INTEGER),
    ],
    align=True,
)  # fmt: skip
#: What a field of each kind takes; None is an address of nothing.
_TYPES = {"i": (int, np.integer), "f": (int, float), "u": (Tensor, type(None))}
_FIELD_TYPES = {name: _TYPES[TRAINING[name].kind] for name in TRAINING.names or ()}

_PARTIAL_SUMS, _LAYER_BYTES = 32, 32
#: Threads of a processor that hide its latencies, and the most that one network gets.
_RESIDENT_THREADS, _MOST_THREADS, _WARP, _WARPS = 1024, 512, 32, 4


class Limits(NamedTuple):
    """Limits of a device for one kernel."""

    processors: int
    block_bytes: int  # shared memory that one block can have
    processor_bytes: int  # shared memory of a processor


class Plan(NamedTuple):
    """How a launch is cut."""

    kernel: str
    blocks: int
    threads: int
    shared: int


def network_bytes(widths: Sequence[int], rows: int, batch: int, *, velocity: bool, itemsize: int) -> int:
    """Return the bytes of shared memory that the training of one network takes.

    Parameters
    ----------
    widths : sequence of int
    rows, batch : int
        Of all data, and of the largest minibatch (0: steps use all data).
    velocity : bool
        Whether there is momentum.
    itemsize : {4, 8}
    """
    odd = [width | 1 for width in widths]
    parameters = sum(out * (into + 1) for out, into in zip(widths[1:], odd[:-1], strict=True))
    numbers = parameters * (3 if velocity else 2)
    numbers += (rows + batch) * (odd[0] + odd[-1] + 1)
    numbers += 2 * max(rows, batch) * sum(odd[1:])
    size = 2 * _PARTIAL_SUMS * 8 + (len(widths) - 1) * _LAYER_BYTES + numbers * itemsize
    return -(-size // 16) * 16


def plan(networks: int, widths: Sequence[int], rows: int, size: int, itemsize: int, limits: Limits) -> Plan | None:
    """Return how to launch, or None where a network does not fit into shared memory.

    Parameters
    ----------
    networks : int
    widths : sequence of int
    rows : int
        The most samples of a step.
    size : int
        Bytes for one network; see `network_bytes`.
    itemsize : {4, 8}
    limits : Limits
    """
    if size > limits.block_bytes:
        return None
    together = max(1, min(limits.processor_bytes // size, -(-networks // limits.processors)))
    pairs = zip(widths[:-1], widths[1:], strict=True)
    largest = max(max(into * out, rows * max(into, out)) for into, out in pairs)  # numbers in one phase
    useful = min(_RESIDENT_THREADS // together, largest, _MOST_THREADS)
    warps = max(1, -(-useful // _WARP))
    if warps > 1:
        return Plan(f"train_block_float{8 * itemsize}", networks, _WARP * warps, size)
    per_block = max(1, min(_WARPS, limits.block_bytes // size, networks))
    return Plan(f"train_warp_float{8 * itemsize}", -(-networks // per_block), _WARP * per_block, size * per_block)


def packed(fields: Mapping[str, Tensor | float | int | None], like: Tensor) -> Tensor:
    """Return the kernel's struct, on the device."""
    assert fields.keys() == _FIELD_TYPES.keys()
    values: list[float] = []
    for name, types in _FIELD_TYPES.items():
        value = fields[name]
        assert isinstance(value, types), name
        values.append(value.data_ptr() if isinstance(value, Tensor) else value or 0)
    struct = np.array([tuple(values)], TRAINING)
    return torch.from_numpy(struct.view(np.uint8)).to(like.device)
