"""Checkpoints of training runs: one ``.npz`` file, replaced as a whole, that fits one problem only."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern import checks, devices
from hesskern._array import Array

_FORMAT = "hesskern training checkpoint 1"
#: Bits depend on it, but going on from it is right all the same.
_BITS_ONLY = ("isa",)


def digest(arrays: Sequence[Array | None]) -> str:
    """Return a fingerprint of arrays: shapes, dtypes and values."""
    found = hashlib.blake2b(digest_size=16)
    for given in arrays:
        array = None if given is None else devices.to_host(given)
        found.update(b"none" if array is None else f"{array.dtype.str}{array.shape}".encode())
        if array is not None:
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return the path if a checkpoint can be written there: better to know now than after hours."""
    found = Path(checks.path(path, "checkpoint"))
    irregular = os.path.lexists(found) and not found.is_file()  # replacing a device would remove it
    if irregular or not found.parent.is_dir() or not os.access(found.parent, os.W_OK):
        what = "is no ordinary file" if irregular else "is in a folder that does not exist or cannot be written to"
        what = "is a folder" if found.is_dir() else what
        raise ValueError(f"checkpoint is {os.fspath(path)!r}, which {what}; expected the name of a file to write.")
    return found


def write(path: Path, problem: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write all of it or nothing: a process killed at any moment leaves the checkpoint before, or this one."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        header = json.dumps({"format": _FORMAT, "problem": dict(problem)})
        np.savez(file, allow_pickle=False, header=np.array(header), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    if hasattr(os, "O_DIRECTORY"):  # the new name itself has to reach the disk
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: str | os.PathLike[str], problem: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a checkpoint of this problem; a clear error for anything else."""
    name = checks.path(path, "resume")
    if not Path(name).exists():
        raise FileNotFoundError(f"resume is {name!r}, which does not exist; expected a file written by checkpoint=.")
    try:
        with open(name, "rb") as opened, np.load(opened, allow_pickle=False) as file:  # np.load would leave it open
            arrays = {key: file[key] for key in file.files}
        header = json.loads(str(arrays.pop("header")))
        if header["format"] != _FORMAT:
            raise KeyError("format")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"resume is {name!r}, which is no checkpoint of hesskern ({error}).") from error
    for key, here in problem.items():
        there = header["problem"].get(key)
        if there == here:
            continue
        if key in _BITS_ONLY:
            warnings.warn(
                f"the checkpoint {name!r} was written with {key} = {there}, this is {here}: the run goes on, but will "
                "not be equal to the uninterrupted one to the last bit.",
                stacklevel=4,
            )
            continue
        raise ValueError(
            f"resume is {name!r}, a checkpoint of another run: its {key} was {there!r}, here it is {here!r}; expected "
            "the same arguments (only max_steps may differ)."
        )
    return arrays
