"""Matrices from files: ``.npy``, ``.npz``, and numbers as text."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import array_files, memory
from hesskern._base.array_types import Array
from hesskern.cli.common import RefusedError, one_line

SUFFIXES = (".npy", ".npz", ".csv", ".txt")


def read_matrix(path: str, name: str, dtype: np.dtype[np.floating]) -> Array:
    """Return the matrix `name` ("X", "Y") from a file, its numbers converted to `dtype`.

    A ``.npz`` file has one array, or one of this name. In ``.csv`` numbers are separated by commas, in ``.txt`` by
    blanks. The first line is a heading if none of its words is a number or begins like one.

    Raises
    ------
    RefusedError
        If there is no such file or no such matrix in it.
    """
    return _converted(read_array(path, name, f"--{name}"), dtype)


def read_array(path: str, name: str, option: str, other_suffixes: tuple[str, ...] = ()) -> NDArray[Any]:
    """Return an array from a file as `read_matrix` does, with its own dtype.

    `option` is its name in messages, `other_suffixes` are those of files that the caller reads.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise RefusedError(
            f"{option} is {path!r}; expected a name that ends in {', '.join((*SUFFIXES, *other_suffixes))}."
        )
    try:
        if suffix in (".csv", ".txt"):
            array: NDArray[Any] = _read_text(path, suffix)
        else:
            array = _read_numpy(path, name, option)
    except OSError as error:
        raise RefusedError(f"{option}: cannot read {path!r}: {error.strerror or one_line(error)}.") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise RefusedError(f"{option}: {path!r} does not hold a matrix of numbers: {one_line(error)}.") from error
    if array.size == 0:
        raise RefusedError(f"{option}: {path!r} holds no numbers (shape {array.shape}).")
    return array


def _read_numpy(path: str, name: str, option: str) -> NDArray[Any]:
    """Return the only array of a NumPy file, or the one of this name; the content, not the suffix, decides."""
    with array_files.ordinary(path) as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return array_files.read_npy(path)
    if not start.startswith(b"PK"):
        raise RefusedError(f"{option}: {path!r} was not written by numpy.save or numpy.savez.")
    arrays = array_files.read_npz(path)
    names = list(arrays)
    named = [spelling for spelling in (name, name.lower()) if spelling in names]
    if not named and len(names) != 1:
        raise RefusedError(f"{option}: {path!r} holds {names}; expected one array, or one with the name {name!r}.")
    return arrays[(named or names)[0]]


def _read_text(path: str, suffix: str) -> NDArray[np.float64]:
    separator = "," if suffix == ".csv" else None
    with array_files.ordinary(path) as file:
        # Two characters at least, a digit and a separator, become eight bytes.
        memory.require(
            4 * os.fstat(file.fileno()).st_size, "the content of the file", "free some memory, or write a .npy file."
        )
        text = io.TextIOWrapper(file, encoding="utf-8-sig")
        cells = text.readline().split(separator)
        heading = bool(cells) and not any(map(_holds_digits, cells))
        text.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file; it is refused as an empty matrix
            return np.loadtxt(text, delimiter=separator, skiprows=int(heading), ndmin=2)


def _holds_digits(cell: str) -> bool:
    """Return whether a cell is a number, or may be a mistyped one; names of columns begin with a letter."""
    return cell.strip().strip("\"'")[:1] in tuple("0123456789+-.") or _is_number(cell)


def _is_number(cell: str) -> bool:
    with contextlib.suppress(ValueError):  # "nan" and "inf" are numbers too
        float(cell)
        return True
    return False


def _converted(array: NDArray[Any], dtype: np.dtype[np.floating]) -> Array:
    """Return integers and floats as `dtype`; the checks of the library refuse anything else."""
    if array.dtype.kind in "iu" or (array.dtype.kind == "f" and array.dtype.itemsize <= 8):
        with np.errstate(over="ignore"):  # an infinity is refused like any other
            return array.astype(dtype, copy=False)
    return array
