"""The environment: versions, instruction set, BLAS, threads, GPU."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

from hesskern import backends
from hesskern._core import available_isas, isa, version


def info() -> dict[str, Any]:
    """Return versions, backend, instruction set, BLAS with its threads, and the GPU if torch is installed and sees one.

    Returns
    -------
    dict
        Values are plain strings, numbers, lists and dicts, which JSON can hold.

    Examples
    --------
    >>> import hesskern as hk
    >>> hk.info()["backends"]
    ['cpp', 'numba', 'numpy', 'cuda']
    """
    from threadpoolctl import threadpool_info  # noqa: PLC0415 - not needed to import the package

    backends.get("cpp")  # loads BLAS, so that it can be named
    pools = [
        {"library": pool["internal_api"], "version": pool["version"], "threads": pool["num_threads"]}
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return {
        "hesskern": version,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in ("numpy", "scipy", "numba", "torch", "cuda-core", "matplotlib")},
        "backend": backends.resolve(),
        "backends": list(backends.names()),
        "isa": isa,
        "available_isas": list(available_isas),
        "blas": pools,
        "blas_in_kernels": getattr(backends.get("cpp"), "blas", "none"),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    """Return the GPU's name, asked of torch; loading torch takes seconds, so only where it has a CUDA build."""
    installed = _version("torch")
    if installed is None or installed.endswith("+cpu") or sys.platform == "darwin":
        return None
    import torch  # noqa: PLC0415 - an optional dependency

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None
