"""Launches kernels on PyTorch's current stream; the one place that needs a GPU."""

from __future__ import annotations

import functools

import torch
from cuda.core import Device, Kernel, LaunchConfig, ObjectCode, Stream
from cuda.core import launch as launch_kernel
from torch import Tensor

from hesskern.backends.cuda.kernels import machine_code


def launch(kernel: str, blocks: int, threads: int, *arguments: Tensor | int | None) -> None:
    """Launch a kernel on the device of its tensors.

    Parameters
    ----------
    kernel : str
    blocks, threads : int
        In a block that many threads, in one dimension.
    arguments : tensor, int or None
        As the kernel takes them: a tensor for a pointer, None for a null pointer, an int for a ``long long``.
    """
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(device):
        Device(device.index).set_current()
        stream = Stream.from_handle(torch.cuda.current_stream(device).cuda_stream)
        config = LaunchConfig(grid=blocks, block=threads)
        launch_kernel(stream, config, _loaded(kernel, device.index), *map(_word, arguments))


def _word(argument: Tensor | int | None) -> int:
    """Return what cuda-core passes as eight bytes."""
    return int(argument.data_ptr()) if isinstance(argument, Tensor) else argument or 0


@functools.cache
def _loaded(kernel: str, device: int) -> Kernel:
    major, minor = torch.cuda.get_device_capability(device)
    return ObjectCode.from_cubin(machine_code(f"sm_{major}{minor}"), name="hesskern").get_kernel(kernel)
