"""Libraries that may be there: a benchmark runs without them and reports them as absent."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from bench.task import Contestant

#: XLA has its own thread pools. The flags keep its matrix products on one thread, and NPROC, which it reads when it
#: starts, keeps the pool they would run in to one: in jax 0.10 the flags alone leave two cores busy.
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "NPROC": "1"}


@functools.cache
def torch() -> Any:
    """Return torch, on one thread, or None where it is not installed."""
    try:
        module = importlib.import_module("torch")
    except ImportError:
        return None
    module.set_num_threads(1)
    return module


@functools.cache
def jax() -> Any:
    """Return jax, on one thread of the processor and in float64, or None where it is not installed."""
    if "jax" not in sys.modules:
        os.environ.update(ONE_THREAD)
        os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        module = importlib.import_module("jax")
    except ImportError:
        return None
    module.config.update("jax_enable_x64", True)
    return module


@functools.cache
def numba() -> Any:
    """Return numba, or None where it is not installed."""
    try:
        return importlib.import_module("numba")
    except ImportError:
        return None


def with_torch(
    name: str, make: Callable[[Any], Callable[[], object]], *, note: str = "", units: float = 1.0
) -> Contestant:
    """Return a contestant that `make(torch)` builds, or one that is absent."""
    return _with(torch(), "torch", Contestant(name=name, run=None, note=note, units=units), make)


def with_jax(
    name: str, make: Callable[[Any], Callable[[], object]], *, note: str = "", units: float = 1.0
) -> Contestant:
    """Return a contestant that `make(jax)` builds and compiles, or one that is absent."""
    return _with(jax(), "jax", Contestant(name=name, run=None, note=note, units=units), make)


def with_numba(
    name: str, make: Callable[[Any], Callable[[], object]], *, note: str = "", units: float = 1.0
) -> Contestant:
    """Return a contestant that `make(numba)` builds and compiles, or one that is absent."""
    return _with(numba(), "numba", Contestant(name=name, run=None, note=note, units=units), make)


def _with(module: Any, library: str, contestant: Contestant, make: Callable[[Any], Callable[[], object]]) -> Contestant:
    if module is None:
        return Contestant(name=contestant.name, run=None, note=f"{library} is not installed", units=contestant.units)
    return Contestant(name=contestant.name, run=make(module), note=contestant.note, units=contestant.units)
