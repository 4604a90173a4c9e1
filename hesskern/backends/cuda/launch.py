"""Launches kernels on PyTorch's current stream; the one place that needs a GPU."""

from __future__ import annotations

import functools

import torch
from cuda.bindings import driver
from cuda.core import Device, Kernel, LaunchConfig, ObjectCode, Stream
from cuda.core import launch as launch_kernel
from torch import Tensor

from hesskern.backends.cuda.kernels import machine_code, program_of
from hesskern.backends.cuda.shared_memory_kernel import Limits

#: Shared memory that a kernel has on every card without a request (bytes).
_SHARED = 48 << 10


def launch(kernel: str, blocks: int, threads: int, *arguments: Tensor | int | None, shared: int = 0) -> None:
    """Launch a kernel on the device of its tensors.

    Parameters
    ----------
    kernel : str
    blocks, threads : int
        Number of blocks, and of threads in each, in one dimension.
    arguments : tensor, int or None
        As the kernel takes them: a tensor for a pointer, None for a null pointer, an int for a ``long long``.
    shared : int
        Bytes of shared memory for each block.
    """
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(device):
        Device(device.index).set_current()
        stream = Stream.from_handle(torch.cuda.current_stream(device).cuda_stream)
        config = LaunchConfig(grid=blocks, block=threads, shmem_size=shared)
        launch_kernel(stream, config, _loaded(kernel, device.index), *map(_word, arguments))


def limits(device: torch.device) -> Limits:
    """Return the limits of a device for kernels that keep everything in shared memory."""
    properties = Device(device.index).properties
    return Limits(
        processors=properties.multiprocessor_count,
        block_bytes=properties.max_shared_memory_per_block_optin,
        processor_bytes=properties.max_shared_memory_per_multiprocessor,
    )


def _word(argument: Tensor | int | None) -> int:
    """Return the argument as the integer that cuda-core passes as eight bytes."""
    return int(argument.data_ptr()) if isinstance(argument, Tensor) else argument or 0


@functools.cache
def _module(program: str, device: int) -> ObjectCode:
    major, minor = torch.cuda.get_device_capability(device)
    return ObjectCode.from_cubin(machine_code(program, f"sm_{major}{minor}"), name="hesskern")


@functools.cache
def _loaded(kernel: str, device: int) -> Kernel:
    loaded = _module(program_of(kernel), device).get_kernel(kernel)
    most = limits(torch.device("cuda", device)).block_bytes
    if most > _SHARED:
        name = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        (status,) = driver.cuKernelSetAttribute(name, most, loaded.handle, device)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"the kernel {kernel} cannot have {most} bytes of shared memory ({status.name})")
    return loaded
