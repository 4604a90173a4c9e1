"""Checkpoints of training runs: one ``.npz`` file, replaced as a whole, from which only the same run can continue."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import array_files, atomic_write, checks, devices
from hesskern._base.array_types import Array

_FORMAT = "hesskern training checkpoint 2"
#: What fingerprints identify; a message that shows them would help nobody.
_FINGERPRINTS = ("net", "nets", "X", "Y")
#: Bits depend on it, but going on from it is right all the same.
_BITS_ONLY = ("isa",)


def digest(arrays: Sequence[Array | None]) -> str:
    """Return a fingerprint of arrays: shapes, dtypes and values."""
    fingerprint = hashlib.blake2b(digest_size=16)
    for array in arrays:
        if array is None:
            fingerprint.update(b"none")
            continue
        host_array = devices.to_host(array)
        fingerprint.update(f"{host_array.dtype.str}{host_array.shape}".encode())
        fingerprint.update(np.ascontiguousarray(host_array).data)
    return fingerprint.hexdigest()


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return the path if a checkpoint can be written there: better to know now than after hours."""
    try:
        target = atomic_write.check(path, "checkpoint")
    except OSError as error:
        raise ValueError(str(error)) from error
    atomic_write.remove_leftovers(target)
    return Path(path)


class CheckpointWarning(RuntimeWarning):
    """A checkpoint could not be written; the run nevertheless continues, or is returned.

    Attributes
    ----------
    last : bool
        Whether it was the checkpoint at the end of the run; then the file holds an older state.
    """

    def __init__(self, message: str, *, last: bool) -> None:
        super().__init__(message)
        self.last = last


def as_json(value: object) -> Any:
    """Return a value as a checkpoint gives it back: lists instead of tuples, Python's numbers instead of NumPy's."""
    return json.loads(json.dumps(value, default=lambda other: other.item() if hasattr(other, "item") else repr(other)))


def write(path: Path, identity: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write all of it or nothing: a process killed at any moment leaves the checkpoint before, or this one."""
    header = np.array(json.dumps({"format": _FORMAT, "problem": dict(identity)}))
    atomic_write.write(path, "checkpoint", lambda file: np.savez(file, allow_pickle=False, header=header, **arrays))


def read(path: str | os.PathLike[str], identity: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a checkpoint of the run with this identity; a clear error for anything else."""
    name = checks.path(path, "resume")
    try:
        arrays: dict[str, NDArray[Any]] = array_files.read_npz(name)
        header = _header(arrays)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"resume is {name!r}, which does not exist; expected a file written by checkpoint=."
        ) from error
    except OSError as error:
        raise type(error)(f"resume is {name!r}, which cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise ValueError(f"resume is {name!r}, which is not a checkpoint of hesskern: {error}.") from error
    if header["format"] != _FORMAT:
        raise ValueError(
            f"resume is {name!r}, written as {header['format']!r} by another version of hesskern; this version reads "
            f"{_FORMAT!r}. Continue with the version that wrote it, or start again from the beginning."
        )
    for key, expected in identity.items():
        written = header["problem"].get(key)
        if written == expected:
            continue
        if key in _BITS_ONLY:
            warnings.warn(
                f"the checkpoint {name!r} was written with {key} = {written}, this is {expected}: the run continues, "
                "but its last bits may differ from those of a run without interruption.",
                stacklevel=5,
            )
            continue
        differ = f"its {key} was {written!r}, here it is {expected!r}"
        if key in _FINGERPRINTS:
            differ = f"its {key} had other numbers, or another shape or dtype"
        raise ValueError(
            f"resume is {name!r}, a checkpoint of another run: {differ}; expected the same arguments (only max_steps "
            "may differ)."
        )
    return arrays


def _header(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Take the header out of the arrays and return it."""
    text = arrays.pop("header", None)
    if text is None or text.shape != () or text.dtype.kind != "U":
        raise ValueError("it has no header")
    try:
        header = json.loads(str(text))
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is damaged") from error
    right = isinstance(header, dict) and isinstance(header.get("problem"), dict)
    if not right or not str(header.get("format")).startswith(_FORMAT.rstrip("0123456789")):
        raise ValueError("its header belongs to another kind of file")
    checked: dict[str, Any] = header
    return checked
