"""Arrays from ``.npy`` and ``.npz`` files of any origin: the one place that reads them.

A file is not trusted. Before anything is allocated, the sizes it states are compared with its own size and with the
free memory. Objects, which are pickles, are never read. Each fault is one ValueError that names it.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hesskern._base import memory

Result = TypeVar("Result")

#: Deflate makes at most 1032 bytes of one.
_LARGEST_RATIO = 1032
#: Numbers, truth values and text; neither objects nor records nor dates.
_KINDS = "biufcUS"
_PIECE = 1 << 24
#: Bytes that may follow a member that was written without knowing its size.
_DESCRIPTOR = 24


@contextmanager
def ordinary(path: str) -> Iterator[BinaryIO]:
    """Open a file to read; OSError for a folder, a pipe or a device: reading these may never end."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not an ordinary file", path)
        yield file


def read_npy(path: str) -> NDArray[np.generic]:
    """Return the array of a ``.npy`` file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, or holds no plain array; the message names the fault, but not the file.
    MemoryError
        If the array needs more memory than is free.
    """
    with ordinary(path) as file:
        return _understood(lambda: _array(file, os.fstat(file.fileno()).st_size, "the array"))


def read_npz(path: str) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a ``.npz`` file by their names; errors as of `read_npy`."""
    with ordinary(path) as file:
        size = os.fstat(file.fileno()).st_size
        return _understood(lambda: _members(file, size))


def _understood(read_content: Callable[[], Result]) -> Result:
    """Return the result of `read_content`; all errors of NumPy and zipfile for a damaged file become a ValueError."""
    try:
        return read_content()
    except _DamagedError as error:
        raise ValueError(str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"it is damaged: {reason}") from error


class _DamagedError(ValueError):
    """A fault of a file, in words."""


def _members(file: BinaryIO, size: int) -> dict[str, NDArray[np.generic]]:
    if not zipfile.is_zipfile(file):
        raise _DamagedError("it is not a complete .npz file")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            _check_member(member, size)
        _check_complete(file, members, archive.start_dir)
        if len({member.filename for member in members}) < len(members):
            raise _DamagedError("it holds two arrays of one name")
        claimed = sum(member.file_size for member in members)
        memory.require(claimed, "the content of the file", "free some memory, or write less into one file.")
        arrays = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as opened:
                arrays[name] = _array(opened, member.file_size, repr(name))  # type: ignore[arg-type]
        return arrays


def _check_complete(file: BinaryIO, members: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse an archive whose directory does not list all entries of the file: an array would be missing."""
    at = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        gap = member.header_offset - at
        file.seek(member.header_offset + 26)
        at = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4))) + member.compress_size
        if gap > _DESCRIPTOR:
            raise _DamagedError("its directory is damaged")
    if end - at > _DESCRIPTOR:
        raise _DamagedError("its directory is damaged")


def _check_member(member: zipfile.ZipInfo, size: int) -> None:
    name = repr(member.filename.removesuffix(".npy"))
    if not member.filename.endswith(".npy"):  # of a damaged name, perhaps: what it held would be missing
        raise _DamagedError(f"it holds {name}, which is not an array")
    if member.flag_bits & 0x1:
        raise _DamagedError(f"{name} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _DamagedError(f"{name} is compressed in a way that numpy.savez does not use")
    ratio = 1 if member.compress_type == zipfile.ZIP_STORED else _LARGEST_RATIO
    if member.compress_size > size or member.file_size > ratio * member.compress_size:
        raise _DamagedError(f"{name} claims {member.file_size} bytes, which a file of {size} bytes cannot hold")


def _array(file: BinaryIO, size: int, name: str) -> NDArray[np.generic]:
    """Return the array at the beginning of a file, or of a member, of `size` bytes, which has to be all of it."""
    version = npy.read_magic(file)
    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in headers:
        raise _DamagedError(f"{name} is in format {version}; expected 1.0 or 2.0, as numpy.save writes plain arrays")
    shape, by_column, dtype = headers[version](file)
    if dtype.hasobject:
        raise _DamagedError(f"{name} holds Python objects, which are not read: they can run code")
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise _DamagedError(f"{name} has dtype {dtype}; expected numbers")
    if min(shape, default=0) < 0:
        raise _DamagedError(f"{name} has shape {shape}")
    expected, remaining = math.prod(shape) * dtype.itemsize, size - file.tell()
    if expected != remaining:
        raise _DamagedError(f"{name} claims shape {shape}, which takes {expected} bytes, but {remaining} follow")
    memory.require(expected, name, "free some memory, or write less into one file.")
    array = np.empty(math.prod(shape), dtype)
    view = memoryview(array.view(np.uint8).data)
    at = 0
    while at < expected:
        count = file.readinto(view[at : at + _PIECE])  # type: ignore[attr-defined]
        if not count:
            raise _DamagedError(f"{name} ends after {at} of {expected} bytes")
        at += count
    if file.read(1):  # a member's checksum is compared at its end
        raise _DamagedError(f"{name} is longer than its header says")
    return array.reshape(shape[::-1]).T if by_column else array.reshape(shape)
