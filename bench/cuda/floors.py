"""Limits of the device, measured in the run they are compared with: stores of memory, and GEMM for products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.contest import Contestant
from bench.cuda.device import Device


def stores(device: Device, buffers: Sequence[Any]) -> list[Contestant]:
    """Return the times of writing a buffer: torch's fill, the driver's memset, and a copy, which reads too."""
    source = device.torch.zeros_like(buffers[0])
    ways = {
        "floor: fill_": (lambda out: out.fill_(0.5), "torch's store kernel"),
        "floor: zero_": (lambda out: out.zero_(), "the driver's memset"),
        "floor: copy_": (lambda out: out.copy_(source), "as many bytes read as written"),
    }
    return [
        Contestant(
            name=name,
            run=device.rotating(buffers, write),
            role="floor",
            note=f"{what}; {len(buffers)} buffers in turn, more than the cache holds",
        )
        for name, (write, what) in ways.items()
    ]


def products(device: Device, multiply_adds: float, dtype: Any) -> list[Contestant]:
    """Return the time that so many multiply-adds take at the rate of a large matrix product."""
    edge = 128 if device.dry else 4096
    a, out = device.empty(edge, edge, dtype=dtype).fill_(0.5), device.empty(edge, edge, dtype=dtype)
    return [
        Contestant(
            name="floor: GEMM",
            run=lambda: device.torch.mm(a, a, out=out),
            role="floor",
            note=f"{multiply_adds:.3g} multiply-adds at the rate of one product, {edge} x {edge}, TF32 off",
            units=edge**3 / multiply_adds,
        )
    ]
