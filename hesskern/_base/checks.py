"""Arguments, checked once, with messages that name the fault and the way to fix it.

Accepted: float32 and float64 arrays, read-only ones too, with any strides (Fortran order, slices, reversed). An array
that is not C-contiguous is copied. Refused: other dtypes, wrong shapes, empty arrays, NaN and infinities.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hesskern._base import devices
from hesskern._base.array_types import Array

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def as_array(value: object, name: str, ndim: int) -> Array:
    """Return `value` as a C-contiguous, finite float32 or float64 array with `ndim` dimensions."""
    array = read(value, name)
    if array.dtype.newbyteorder("=") not in FLOATS:
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected float64 (or float32). "
            f"Convert it with {name}.astype(numpy.float64)."
        )
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected {ndim} dimension{'s' if ndim > 1 else ''}.")
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape} and is empty; expected at least one row and one column.")
    array = np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        first = tuple(int(k) for k in bad[0])
        raise ValueError(
            f"{name} holds {len(bad)} value{'s' if len(bad) > 1 else ''} that "
            f"{'are' if len(bad) > 1 else 'is'} NaN or infinite, the first at index {first}; expected finite numbers."
        )
    return array


def read(value: object, name: str) -> NDArray[Any]:
    """Return `value` as a NumPy array; TypeError if NumPy cannot read it, or would drop its mask."""
    refuse_masked(value, name)
    if type(value).__module__.startswith("scipy.sparse") and hasattr(value, "toarray"):
        raise TypeError(f"{name} is a sparse {type(value).__name__}; expected a dense array, {name}.toarray().")
    try:
        array = np.asarray(value)
    except MemoryError:  # from an operator's dense matrix, with a message of its own
        raise
    except (
        Exception
    ) as error:  # a list of unequal rows; a tensor that requires grad or lives on a GPU raises its own kind
        if isinstance(value, list | tuple):
            kind = type(value).__name__
            raise TypeError(
                f"{name} is a {kind} that is not an array; expected numbers, in rows of equal length."
            ) from error
        precise = ".double()" if "bfloat16" in str(error).lower() else ""  # which NumPy does not know
        raise TypeError(
            f"{name} is a {type(value).__name__} that NumPy cannot read ({error}); "
            f"for a torch tensor pass {name}.detach().cpu(){precise}.numpy()."
        ) from error
    if array.dtype == np.dtype(object) and not isinstance(value, np.ndarray | list | tuple):
        raise TypeError(f"{name} is {shown(value)}; expected an array of numbers.")
    return array


def refuse_masked(value: object, name: str) -> None:
    """Refuse an array, or a list of them, with masked entries: `numpy.asarray` uses the numbers behind a mask."""
    if isinstance(value, list | tuple):
        for part in value:
            refuse_masked(part, name)
    elif isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        count = int(np.ma.getmaskarray(value).sum())
        raise TypeError(
            f"{name} is a masked array with {count} masked entries; expected an array without: "
            f"leave these rows out, or set them with {name}.filled(...)."
        )


def vectors(value: object, name: str) -> NDArray[Any]:
    """Return the vectors that an operator is multiplied with, as an array of numbers of any shape; True is 1."""
    array = read(value, name)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name} has dtype {array.dtype}; expected numbers, float64 for instance.")
    return array


def as_data(value: object, name: str, ndim: int) -> Array:
    """Return an array on a GPU as a tensor there, and any other array as `as_array` does, with the same checks."""
    if devices.on_device(value):
        tensor: Array = devices.as_tensor(value, name, ndim)
        return tensor
    return as_array(value, name, ndim)


def same_kind(reference: Array, reference_name: str, array: Array, name: str) -> None:
    """Refuse arrays in two places, or of two dtypes: moving and converting silently would cost time and precision."""
    if isinstance(array, np.ndarray) and isinstance(reference, np.ndarray):
        return same_dtype(reference, reference_name, array, name)
    device, reference_device = devices.place(array), devices.place(reference)
    if device != reference_device:
        raise TypeError(
            f"{name} is on {device}, but {reference_name} is on {reference_device}; move one of them: tensors with "
            f".to({reference_device!r}), networks and losses with .cpu()."
        )
    if array.dtype != reference.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}, but {reference_name} has {reference.dtype}; "
            f"convert one of them, for instance with {name}.to({reference.dtype})."
        )
    return None


def same_dtype(reference: Array, reference_name: str, array: Array, name: str) -> None:
    """Refuse a mixture of float32 and float64: converting silently would cost precision or memory."""
    if array.dtype != reference.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}, but {reference_name} has {reference.dtype}; "
            f"convert one of them, for instance with {name}.astype(numpy.{reference.dtype})."
        )


def positive(value: object, name: str) -> float:
    """Return a finite number > 0."""
    number = real(value, name)
    if not number > 0:
        raise ValueError(f"{name} is {number!r}; expected a number greater than 0.")
    return number


def non_negative(value: object, name: str) -> float:
    """Return a finite number >= 0."""
    number = real(value, name)
    if number < 0:
        raise ValueError(f"{name} is {number!r}; expected a number greater than or equal to 0.")
    return number


def real(value: object, name: str) -> float:
    """Return a finite real number as a float."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.timedelta64) or not isinstance(value, Real):
        raise TypeError(f"{name} is {shown(value)}; expected a real number.")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of float64
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number!r}; expected a finite number.")
    return number


def integer(value: object, name: str, least: int, most: int | None = 2**63 - 1) -> int:
    """Return an integer >= `least`, and of 64 bits unless `most` says otherwise (None: of any size)."""
    # NumPy counts a time span among the integers.
    if isinstance(value, bool | np.bool_ | np.timedelta64) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {shown(value)}; expected an integer.")
    number = int(value)
    if number < least:
        raise ValueError(f"{name} is {_number(number)}; expected at least {least}.")
    if most is not None and number > most:
        raise ValueError(f"{name} is {_number(number)}; expected at most {most}.")
    return number


def index(value: object, count: int, items: str) -> int:
    """Return an index into `count` items, which may be negative as in Python; `items` names them in the message."""
    number = integer(value, "index", -(2**63))
    if not -count <= number < count:
        raise IndexError(f"index is {number}; there are {count} {items}, counted from 0.")
    return number


def widths(value: object, name: str = "widths") -> list[int]:
    """Return the widths of a network: at least two integers >= 1."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, str | bytes | memoryview) or not isinstance(value, Sequence):
        raise TypeError(f"{name} is {shown(value)}; expected a list of integers, for instance [5, 100, 5].")
    sizes = [integer(width, f"{name}[{k}]", 1) for k, width in enumerate(value)]
    if len(sizes) < 2:
        raise ValueError(f"{name} is {tuple(sizes)}; expected at least two numbers, inputs and outputs.")
    return sizes


def seed(value: object, name: str = "seed") -> int:
    """Return an integer >= 0 of any size."""
    return integer(value, name, 0, None)


def entries(value: object, name: str, expected: str) -> Iterator[Any]:
    """Return an iterator over the entries; TypeError, with `expected` in its text, if there is none."""
    if not isinstance(value, str | bytes | memoryview | Mapping) and not hasattr(value, "toarray"):
        with contextlib.suppress(TypeError):  # what is iterable by its type may be an array without axes
            return iter(cast("Iterable[Any]", value))
    raise TypeError(f"{name} is {shown(value)}; expected {expected}.")


def function(value: object, name: str) -> None:
    """Raise a TypeError for what cannot be called."""
    if not callable(value):
        raise TypeError(f"{name} is {shown(value)}; expected a function.")


def boolean(value: object, name: str) -> bool:
    """Return True or False; refuse everything else, 0 and 1 too."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {shown(value)}; expected True or False.")
    return bool(value)


def float_dtype(value: object, name: str) -> np.dtype[Any]:
    """Return float64 or float32 from any name that NumPy has for them; None is refused."""
    try:
        dtype = None if value is None else np.dtype(value)  # type: ignore[call-overload]
    except Exception:  # an object that is not a dtype may raise anything
        dtype = None
    if dtype is None or dtype.newbyteorder("=") not in FLOATS:
        raise TypeError(f"{name} is {shown(value)}; expected numpy.float64 or numpy.float32.")
    native: np.dtype[Any] = dtype.newbyteorder("=")
    return native


def path(value: object, name: str) -> str:
    """Return a file's path as text; refuse bytes, and numbers, which `open` would take for open files."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name} is {shown(value)}; expected the path of a file.")
    text = str(os.fspath(value))
    try:
        usable = bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        usable = False
    if not usable:
        raise ValueError(f"{name} is {text!r}, which cannot be the name of a file; expected the path of a file.")
    return text


def one_of(value: object, name: str, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        text = repr(value) if isinstance(value, str) and len(value) < 60 else shown(value)
        raise ValueError(f"{name} is {text}; expected one of {', '.join(repr(word) for word in allowed)}.")
    return value


def out_array(out: object, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out") -> Array:
    """Return `out` if results can be written straight into it: exact shape and dtype, C order, writeable."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name} is a {type(out).__name__}; expected a numpy array.")
    refuse_masked(out, name)
    recipe = f"numpy.empty({shape}, dtype=numpy.{dtype})"
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape}; expected {shape}. Make it with {recipe}.")
    if out.dtype != dtype:
        raise TypeError(f"{name} has dtype {out.dtype}; expected {dtype}. Make it with {recipe}.")
    if not out.flags.c_contiguous:
        raise ValueError(f"{name} is not C-contiguous (strides {out.strides}); make it with {recipe}.")
    if not out.flags.aligned:
        raise ValueError(f"{name} is not aligned in memory; make it with {recipe}.")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only; expected an array that can be written. Make it with {recipe}.")
    return out


def frozen(array: Array, source: object) -> Array:
    """Return `array`, made from the argument `source`, read-only; copied if somebody else could change its memory.

    A memory map that was opened read-only is not copied. A tensor is always copied: it cannot be made read-only.
    """
    if devices.on_device(array):
        copy: Array = array.clone()  # type: ignore[attr-defined]
        return copy
    mapped = isinstance(source, np.memmap) and source.mode == "r"
    if not (mapped and np.may_share_memory(array, source)) and (array is source or not array.flags.owndata):
        array = array.copy()
    array.flags.writeable = False
    return array


def _number(value: int) -> str:
    return str(value) if abs(value) < 10**60 else f"{'-' if value < 0 else ''}10**60 or more"


def shown(value: object) -> str:
    """Return an argument as a message shows it: itself if it is short, and its type."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits, which Python does not write
        text = 61 * " "
    kind = f"of type {type(value).__name__}"
    return f"{text} ({kind})" if len(text) <= 60 else f"an object {kind}"
