"""Arrays on a GPU: recognised without loading anything, read as PyTorch tensors without a copy, checked.

The functions below take NumPy arrays too, so that a formula that is the same on both sides is written once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Numbers of DLPack: memory of a CUDA device, and managed memory.
_CUDA = (2, 13)


def on_device(value: object) -> bool:
    """Return whether this is an array on a GPU: of PyTorch, or with DLPack or ``__cuda_array_interface__``."""
    if isinstance(value, np.ndarray):
        return False
    if hasattr(value, "is_cuda"):
        return bool(value.is_cuda)
    if hasattr(value, "__dlpack_device__"):
        return value.__dlpack_device__()[0] in _CUDA
    return hasattr(value, "__cuda_array_interface__")


def unwrapped(array: Any) -> Any:
    """Return a NumPy array without its subclass (a memory map), sharing its memory; anything else as it is."""
    return np.asarray(array) if isinstance(array, np.ndarray) else array


def place(array: Any) -> str:
    """Return where an array is, as PyTorch writes it: "cpu", "cuda:0"."""
    return str(array.device) if on_device(array) else "cpu"


def shared_tensor(value: Any, name: str) -> Any:
    """Return an array on a GPU as a contiguous float32 or float64 tensor, which shares its memory if possible.

    Raises
    ------
    TypeError
        If it has another dtype.
    ImportError
        If PyTorch is not installed.
    """
    try:
        import torch  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError(
            f'{name} is on a GPU, which needs PyTorch ({error}); install it with pip install "hesskern[cuda]".'
        ) from error

    if isinstance(value, torch.Tensor):
        tensor = value.detach()
    elif hasattr(value, "__dlpack__"):
        tensor = torch.utils.dlpack.from_dlpack(value)
    else:
        tensor = torch.as_tensor(value)
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{name} has dtype {tensor.dtype}; expected torch.float64 (or torch.float32). "
            f"Convert it with {name}.to(torch.float64)."
        )
    return tensor.contiguous()


def as_tensor(value: Any, name: str, ndim: int) -> Any:
    """Return `shared_tensor` with its shape and entries checked; the check of the entries waits for the device.

    Raises
    ------
    ValueError
        If it has another number of dimensions, is empty or not finite.
    """
    tensor = shared_tensor(value, name)
    if tensor.ndim != ndim:
        shape = tuple(tensor.shape)
        raise ValueError(f"{name} has shape {shape}; expected {ndim} dimension{'s' if ndim > 1 else ''}.")
    if tensor.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)} and is empty; expected at least one row and column.")
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise ValueError(f"{name} holds {bad} value{'s' if bad > 1 else ''} NaN or infinite; expected finite numbers.")
    return tensor


def to_host(array: Any) -> NDArray[Any]:
    """Return an array in main memory."""
    host: NDArray[Any] = array.cpu().numpy() if on_device(array) else array
    return host


@contextmanager
def enough_memory(array: Any, work: str, instead: str) -> Iterator[None]:
    """Turn "out of memory" on the device of this array into a MemoryError; do nothing for arrays in main memory.

    Parameters
    ----------
    array : array
    work : str
        What is done and how much memory it takes; begins the message.
    instead : str
        A way that needs less memory; ends the message.
    """
    if not on_device(array):
        yield
        return
    import torch  # noqa: PLC0415

    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryError(f"{work} does not fit into the memory that {place(array)} has free; {instead}") from error


# The same for arrays in main memory and on a device ------------------------------------------------------------------


def namespace(array: Any) -> Any:
    """Return the module whose functions take this array: numpy or torch."""
    if not on_device(array):
        return np
    import torch  # noqa: PLC0415

    return torch


def numpy_dtype(array: Any) -> np.dtype[Any]:
    """Return the dtype of an array in NumPy's terms."""
    dtype: np.dtype[Any] = np.dtype(str(array.dtype).removeprefix("torch.")) if on_device(array) else array.dtype
    return dtype


def converted(array: Any, dtype: Any) -> Any:
    """Return an array in NumPy's dtype `dtype`, C-contiguous; itself where it is that already."""
    if on_device(array):
        return array.to(getattr(namespace(array), str(np.dtype(dtype)))).contiguous()
    return np.ascontiguousarray(array, dtype=dtype)


def size(array: Any) -> int:
    """Return how many numbers an array has."""
    return math.prod(array.shape)


def eye(count: int, like: Any) -> Any:
    """Return the identity, float64, where `like` is."""
    xp = namespace(like)
    return np.eye(count) if xp is np else xp.eye(count, dtype=xp.float64, device=like.device)


def ones(shape: tuple[int, ...], like: Any) -> Any:
    """Return ones of the dtype of `like`, where it is."""
    return like.new_ones(shape) if on_device(like) else np.ones(shape, like.dtype)


def concatenate(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Return the arrays joined along an axis."""
    xp = namespace(arrays[0])
    return np.concatenate(arrays, axis) if xp is np else xp.cat(list(arrays), axis)


def stack(arrays: Sequence[Any]) -> Any:
    """Return arrays of one shape along a new first dimension."""
    return namespace(arrays[0]).stack(list(arrays))


def squared_norm(array: Any) -> float:
    """Return the sum of squares, added in float64."""
    if on_device(array):
        return float(array.double().square().sum())
    wide = array if array.dtype == np.float64 else array.astype(np.float64)
    return float(np.vdot(wide, wide))


def matrix_norm(array: Any) -> Any:
    """Return the Frobenius norm of a matrix; on a device of each of many matrices, copied to main memory."""
    return to_host(array.flatten(-2).norm(dim=-1)) if on_device(array) else np.linalg.norm(array)


def placed(array: NDArray[Any], like: Any) -> Any:
    """Return a copy of an array in main memory on the device of `like`."""
    return namespace(like).as_tensor(np.ascontiguousarray(array), device=like.device)
