"""The GPU's kernels on the host: compiled by the system's C++ compiler, launched on tensors in main memory."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess

import pytest
from checkout import HELPERS, ROOT
from shared_folder import for_all_workers

from hesskern.backends.cuda.shared_memory_kernel import Limits

SOURCES = ROOT / "csrc" / "cuda"


def compiler() -> str:
    """Return the system's C++ compiler; skip the test where there is none."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
    if found is None:
        pytest.skip("no C++ compiler on PATH to compile the GPU's kernels for the host")
    return found


@functools.cache
def library() -> ctypes.CDLL:
    """Return the kernels, compiled with all warnings and checks of undefined behaviour."""
    # Where the process has the address sanitizer loaded, the kernels are built for it.
    extra = ["-fsanitize=address"] if "libasan" in os.environ.get("LD_PRELOAD", "") else []
    with for_all_workers("kernels.so") as target:
        if not target.exists():
            made = target.with_suffix(".made")
            subprocess.run(
                [
                    compiler(), "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared",
                    "-fPIC", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", *extra,
                    f"-I{SOURCES}", str(HELPERS / "cuda_host.cpp"), "-o", str(made),
                ],
                check=True,
            )  # fmt: skip
            made.rename(target)
        return ctypes.CDLL(str(target))


def limits(device: object) -> Limits:
    """Return what the card would have: as an H100."""
    return Limits(processors=132, block_bytes=227 << 10, processor_bytes=228 << 10)


def launch(kernel: str, blocks: int, threads: int, *arguments: object, shared: int = 0, only: int = -1) -> None:
    """Run all threads of a launch, or the one numbered `only`; the stand-in for `hesskern.backends.cuda.launch`."""
    converted = [
        ctypes.c_void_p(argument.data_ptr()) if hasattr(argument, "data_ptr")
        else ctypes.c_void_p(None) if argument is None
        else ctypes.c_longlong(argument)
        for argument in arguments
    ]  # fmt: skip
    function = getattr(library(), kernel)
    function.restype = None
    function(ctypes.c_longlong(blocks), ctypes.c_int(threads), ctypes.c_longlong(only), *converted)
