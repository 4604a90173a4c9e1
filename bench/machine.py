"""The machine beside every result: without it a time means nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from threadpoolctl import threadpool_info

import hesskern as hk
from bench import peers
from bench.pinned import PINNED

LIBRARIES = (
    "numpy",
    "scipy",
    "torch",
    "jax",
    "numba",
    "curvlinops-for-pytorch",
    "backpack-for-pytorch",
    "hessian-eigenthings",
    "pyhessian",
    "cuda-core",
    "pybind11",
)


def describe() -> dict[str, Any]:
    """Return the processor, memory, threads, libraries and revision of this run."""
    info = hk.info()
    torch = peers.torch()
    return {
        "cpu": cpu_model(),
        "isa": info["isa"],
        "cores": info["cpus"],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpu(torch),
        "system": f"{platform.system()} {platform.machine()} {' '.join(platform.libc_ver())}".strip(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "hesskern": info["hesskern"],
        "libraries": {name: _version(name) for name in LIBRARIES},
        "blas": [
            f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} thread{'s'[: pool['num_threads'] != 1]}"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        ],
        "torch_threads": None if torch is None else torch.get_num_threads(),
        "environment": {
            name: os.environ.get(name) for name in (*PINNED, *peers.ONE_THREAD, "HESSKERN_ISA", "HESSKERN_BACKEND")
        },
        "load_average": {"start": load()},
        "revision": revision(),
    }


def gpu(torch: Any) -> dict[str, Any] | None:
    """Return the graphics card that torch would use, or None without one."""
    if torch is None or not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
        "clocks": _output("nvidia-smi", "--query-gpu=clocks.max.sm,clocks.max.mem", "--format=csv,noheader", "--id=0"),
        "cuda": torch.version.cuda,
    }


def load() -> float:
    """Return how many processes wanted a core in the last minute: above the number of cores, absolute times suffer."""
    return round(os.getloadavg()[0], 2)


def short_name(machine: dict[str, Any]) -> str:
    """Return a folder name for the results of a machine.

    Examples
    --------
    >>> short_name({"cpu": "AMD EPYC 9555 64-Core Processor", "cores": 64, "isa": "avx512"})
    'amd-epyc-9555-64c-avx512'
    """
    model = re.sub(r"\(.*?\)|\d+-core|processor|cpu|@.*", " ", machine["cpu"].lower())
    return f"{re.sub('[^a-z0-9]+', '-', model).strip('-')}-{machine['cores']}c-{machine['isa']}"


def cpu_model() -> str:
    """Return the processor's name, with family and model where Linux tells (clouds leave out the rest)."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields: dict[str, str] = {}
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
        if "model name" in fields:
            return f"{fields['model name']} (family {fields.get('cpu family')}, model {fields.get('model')})"
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def revision() -> str | None:
    """Return the git revision of these sources, with "+changes" where files differ from it."""
    folder = str(Path(__file__).parent)
    commit = _output("git", "-C", folder, "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    changed = _output("git", "-C", folder, "status", "--porcelain", "--untracked-files=no")
    return commit + ("+changes" if changed else "")


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
