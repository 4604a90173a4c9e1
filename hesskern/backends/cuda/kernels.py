"""The kernels' machine code: compiled by NVRTC for one architecture, kept on disk.

cuda-core makes the key of an entry from the source, the options (architecture, ``--fmad``) and the version of the
compiler, and replaces files as a whole, so that processes may compile at the same time. It does not notice a damaged
file, so there is a checksum in front of the code. It does not notice a file from another user either, so code is read
only from a folder to which nobody else can write (`hesskern._base.trusted`).
"""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from importlib import resources
from pathlib import Path

from cuda.core import Program, ProgramOptions
from cuda.core.utils import FileStreamProgramCache, make_program_cache_key

from hesskern._base import trusted

#: The kernels of one version and architecture take some 500 KB; the least recently used ones are removed first.
_MOST_BYTES = 64 << 20
#: The file of a kernel, by the first word of the kernel's name.
PROGRAMS = {"assemble": "assembly", "train": "training"}


def program_of(kernel: str) -> str:
    """Return the name of the program that a kernel is part of."""
    return PROGRAMS[kernel.partition("_")[0]]


def source(program: str) -> str:
    """Return the CUDA C++ that is compiled: one text, all of which goes into the key of the cache."""
    folder = resources.files("hesskern.backends.cuda")
    texts = [folder.joinpath(f"{name}.cuh").read_text(encoding="utf-8") for name in ("common", program)]
    lines = "".join(texts).splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("#pragma once", '#include "common.cuh"')))


def options(architecture: str) -> ProgramOptions:
    """Return the compiler's options: no contraction of products and sums, so that all compilers round alike."""
    return ProgramOptions(name="hesskern", std="c++17", arch=architecture, fma=False)


def cache_folder() -> Path:
    """Return where machine code is kept: ``hesskern`` in the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root and os.path.isabs(root) else Path.home() / ".cache") / "hesskern"


@functools.cache
def _warn(why: str) -> None:
    warnings.warn(
        f"compiled kernels of hesskern cannot be kept ({why}) and are compiled again in each process; set "
        "XDG_CACHE_HOME to a folder that only you can write to.",
        stacklevel=2,
    )


def machine_code(program: str, architecture: str) -> bytes:
    """Return the kernels of a program for an architecture ("sm_90"), from the cache or compiled.

    If the folder of the cache cannot be read or written, they are compiled in each process; if others can write to it,
    with a warning too.
    """
    code, chosen = source(program), options(architecture)
    key = make_program_cache_key(code=code, code_type="c++", options=chosen, target_type="cubin")
    try:
        folder = cache_folder()
        trusted.make(folder)
        why = trusted.distrust_all(folder)
        if why is not None:
            _warn(why)
            return _compile(code, chosen)
        cache = FileStreamProgramCache(folder, max_size_bytes=_MOST_BYTES)
        binary = _checked(cache.get(key))
    except (OSError, RuntimeError):  # no home, no permission
        return _compile(code, chosen)
    if binary is None:
        binary = _compile(code, chosen)
        try:
            cache[key] = hashlib.sha256(binary).digest() + binary
        except OSError:
            return binary  # a full or read-only disk
    return binary


def _compile(code: str, chosen: ProgramOptions) -> bytes:
    return bytes(Program(code, "c++", chosen).compile("cubin").code)


def _checked(entry: bytes | None) -> bytes | None:
    """Return the code of an entry whose checksum is right."""
    if entry is None or hashlib.sha256(entry[32:]).digest() != entry[:32]:
        return None
    return entry[32:]
