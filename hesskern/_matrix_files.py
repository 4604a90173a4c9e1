"""Matrices from files: ``.npy``, ``.npz``, and numbers as text."""

from __future__ import annotations

import contextlib
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._array import Array
from hesskern._command import RefusedError, one_line

SUFFIXES = (".npy", ".npz", ".csv", ".txt")


def read_matrix(path: str, name: str, dtype: np.dtype[np.floating]) -> Array:
    """Return the matrix `name` ("X", "Y") from a file, its numbers converted to `dtype`.

    A ``.npz`` file has one array, or one of this name. In ``.csv`` numbers are separated by commas, in ``.txt`` by
    blanks; a first line without any number is taken for a heading.

    Raises
    ------
    RefusedError
        If there is no such file or no such matrix in it.
    """
    return _converted(read_array(path, name, f"--{name}"), dtype)


def read_array(path: str, name: str, option: str, others: tuple[str, ...] = ()) -> NDArray[Any]:
    """Return an array from a file as `read_matrix` does, with its own dtype.

    `option` is what messages call it, `others` are suffixes of files that the caller reads.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise RefusedError(f"{option} is {path!r}; expected a name that ends in {', '.join((*SUFFIXES, *others))}.")
    try:
        if suffix in (".npy", ".npz") and not _is_numpy(path):
            raise RefusedError(f"{option}: {path!r} is no file that numpy.save or numpy.savez wrote.")
        found: Any = _read_text(path, suffix) if suffix in (".csv", ".txt") else np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            with found as archive:
                found = _choose(archive, path, name, option)
    except OSError as error:
        raise RefusedError(f"{option}: cannot read {path!r}: {error.strerror or one_line(error)}.") from error
    except (ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise RefusedError(f"{option}: {path!r} holds no matrix of numbers: {one_line(error)}.") from error
    array: NDArray[Any] = found
    if array.size == 0:
        raise RefusedError(f"{option}: {path!r} holds no numbers (shape {array.shape}).")
    return array


def _is_numpy(path: str) -> bool:
    """Whether a file begins as NumPy's do; of others `numpy.load` says that they might be pickles."""
    with open(path, "rb") as file:
        return file.read(6).startswith((b"\x93NUMPY", b"PK"))


def _choose(archive: Any, path: str, name: str, option: str) -> NDArray[Any]:
    """Return the only array of an archive, or the one of this name."""
    names = list(archive.files)
    named = [each for each in (name, name.lower()) if each in names]
    if not named and len(names) != 1:
        raise RefusedError(f"{option}: {path!r} holds {names}; expected one array, or one with the name {name!r}.")
    chosen: NDArray[Any] = archive[(named or names)[0]]
    return chosen


def _read_text(path: str, suffix: str) -> NDArray[np.float64]:
    separator = "," if suffix == ".csv" else None
    with open(path, encoding="utf-8-sig") as file:
        cells = file.readline().split(separator)
    heading = bool(cells) and not any(map(_is_number, cells))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty file; it is refused as an empty matrix
        return np.loadtxt(path, delimiter=separator, skiprows=int(heading), ndmin=2, encoding="utf-8-sig")


def _is_number(cell: str) -> bool:
    with contextlib.suppress(ValueError):
        float(cell)
        return True
    return False


def _converted(array: NDArray[Any], dtype: np.dtype[np.floating]) -> Array:
    """Return integers and floats as `dtype`; the checks of the library refuse anything else."""
    if array.dtype.kind in "iu" or (array.dtype.kind == "f" and array.dtype.itemsize <= 8):
        with np.errstate(over="ignore"):  # an infinity is refused like any other
            return array.astype(dtype, copy=False)
    return array
