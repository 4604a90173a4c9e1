"""NumPy's protocol for objects that are not arrays: what ``np.asarray(H)`` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from hesskern._base import memory
from hesskern._base.array_types import Array


def as_numpy(make: Callable[[], Array], name: str, dtype: DTypeLike | None, copy: bool | None) -> Array:
    """Return the array that `make` makes, as NumPy's protocol ``__array__(dtype, copy)`` asks for it.

    Raises
    ------
    ValueError
        If `copy` is False: the numbers have to be computed first.
    MemoryError
        If the array, or its conversion to `dtype`, does not fit in the memory that is free.
    """
    if copy is False:
        raise ValueError(f"copy is False, but {name} has to be computed into new memory; expected copy=None or True.")
    array = make()
    if dtype is None or np.dtype(dtype) == array.dtype:
        return array
    target: np.dtype[Any] = np.dtype(dtype)
    memory.require(array.size * target.itemsize, f"{name} as {target}", f"use the one in {array.dtype}.")
    converted: Array = array.astype(target)
    return converted
