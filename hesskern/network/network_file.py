"""The ``.npz`` files of `LinearNetwork.save` and `LinearNetwork.load`.

A file holds "format", "names" (of all parameters), and the arrays "0.weight", "0.bias", "1.weight", ... Files of the
same arrays without "format" and "names" are read as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from hesskern._base import array_files, atomic_write
from hesskern._base.array_types import Array

#: The format of the files; the number grows when the meaning of their arrays changes.
FORMAT = "hesskern network 1"
_LAYER = re.compile(r"(0|[1-9]\d{0,5})\.(weight|bias)")

Parameters = tuple[list[Array], list[Array | None], list[str] | None]


def write(
    path: str | os.PathLike[str], weights: Sequence[Array], biases: Sequence[Array | None], names: Sequence[str]
) -> None:
    """Write the parameters to a file, which is replaced as a whole.

    Raises
    ------
    TypeError
        If `path` is not a path.
    OSError
        If the file cannot be written.
    """
    arrays = {"format": np.array(FORMAT)}
    arrays |= {f"{layer}.weight": weight for layer, weight in enumerate(weights)}
    arrays |= {f"{layer}.bias": bias for layer, bias in enumerate(biases) if bias is not None}
    arrays["names"] = np.array(names)  # also the default names: they show when an array is missing
    atomic_write.write(path, "path", lambda file: np.savez(file, allow_pickle=False, **arrays))


def read(name: str) -> Parameters:
    """Return weights, biases and names (None if the file has none) from a file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, or holds other arrays than those of a network.
    """
    arrays: dict[str, Any] = array_files.read_npz(name)
    written = arrays.get("format", np.array(FORMAT))
    if written.shape != () or str(written) != FORMAT:
        raise ValueError(f"its format is {str(written)!r}; this version of hesskern reads {FORMAT!r}")
    layers = sorted({int(key.partition(".")[0]) for key in arrays if _LAYER.fullmatch(key)})
    depth = len(layers)
    if depth == 0 or layers != list(range(depth)) or any(f"{layer}.weight" not in arrays for layer in layers):
        raise ValueError(f"it holds {sorted(arrays)}; expected '0.weight', '1.weight', ... for all layers")
    unknown = sorted(key for key in set(arrays) - {"format", "names"} if not _LAYER.fullmatch(key))
    if unknown:
        raise ValueError(f"it holds {unknown}, which are not part of a network")
    names = arrays.get("names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise ValueError(f"'names' has shape {names.shape} and dtype {names.dtype}; expected text")
    weights = [arrays[f"{layer}.weight"] for layer in layers]
    biases = [arrays.get(f"{layer}.bias") for layer in layers]
    return weights, biases, None if names is None else names.tolist()


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Name the file in the errors of reading it and of making a network of its arrays."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise type(error)(f"path is {name!r}, which cannot be read: {error.strerror or error}.") from error
    except (TypeError, ValueError) as error:
        reason = str(error).removesuffix(".")
        raise ValueError(
            f"path is {name!r}, which is not a network written by LinearNetwork.save: {reason}."
        ) from error
