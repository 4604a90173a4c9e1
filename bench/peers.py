"""Libraries that may be there: a benchmark runs without them and reports them as absent."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bench.contest import Contestant

#: XLA has its own thread pools. The flags keep its matrix products on one thread, and NPROC, which it reads when it
#: starts, keeps the pool they would run in to one: in jax 0.10 the flags alone leave two cores busy.
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "NPROC": "1"}
NOT_COMPILED = "left out of quick runs: compiling takes longer than all the rest (--compile runs it)"
#: torch.compile compiles the same line anew for each problem; above its own limit it would go on uncompiled.
RECOMPILATIONS = 256

Make = Callable[[Any], Callable[[], object]]


@dataclass
class Choice:
    """Which peers are made at all.

    Attributes
    ----------
    only : str or None
        The name of the one contestant that is wanted: libraries of others are not loaded.
    compiled : bool
        Whether torch.compile is wanted.
    """

    only: str | None = None
    compiled: bool = True


CHOICE = Choice()


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


def library(name: str) -> Any:
    """Return a library by the name it is imported by, or None where it is not installed or does not load."""
    if name in ("torch", "jax"):
        return {"torch": torch, "jax": jax}[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # curvlinops and backpack load what torch calls deprecated
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


def with_torch(name: str, make: Make, *, note: str = "", units: float = 1.0) -> Contestant:
    """Return a contestant that `make(torch)` builds, or one that is absent."""
    return _with("torch", Contestant(name=name, run=None, note=note, units=units), make)


def with_jax(name: str, make: Make, *, note: str = "", units: float = 1.0) -> Contestant:
    """Return a contestant that `make(jax)` builds and compiles, or one that is absent."""
    return _with("jax", Contestant(name=name, run=None, note=note, units=units), make)


def with_numba(name: str, make: Make, *, note: str = "", units: float = 1.0) -> Contestant:
    """Return a contestant that `make(numba)` builds and compiles, or one that is absent."""
    return _with("numba", Contestant(name=name, run=None, note=note, units=units), make)


def with_library(module: str, name: str, make: Make, *, note: str = "", units: float = 1.0) -> Contestant:
    """Return a contestant of another library on top of torch, or one that is absent."""
    contestant = Contestant(name=name, run=None, note=note, units=units)
    if _wanted(name) and torch() is None:
        return replace(contestant, note="torch is not installed")
    return _with(module, contestant, make)


def with_compile(name: str, make: Make, *, note: str = "", units: float = 1.0) -> Contestant:
    """Return a contestant that `make(torch)` builds with torch.compile; absent where it does not compile.

    Compilation is left out of its times: it has run once when it is made.
    """
    contestant = Contestant(name=name, run=None, note=note, units=units)
    if not CHOICE.compiled:
        return replace(contestant, note=NOT_COMPILED)

    def compiled(torch: Any) -> Callable[[], object]:
        torch._dynamo.config.recompile_limit = RECOMPILATIONS
        torch._dynamo.config.accumulated_recompile_limit = RECOMPILATIONS
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        run = make(torch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own parts warn of each other
            run()
        return run

    try:
        return _with("torch", contestant, compiled)
    except Exception as failure:  # the compiler's errors are of every kind; which one it was is reported
        reason = str(failure).strip().partition("\n")[0][:160]
        return replace(contestant, note=f"torch.compile does not do this here: {type(failure).__name__}: {reason}")


def _wanted(name: str) -> bool:
    return CHOICE.only is None or name == CHOICE.only


def _with(name: str, contestant: Contestant, make: Make) -> Contestant:
    if not _wanted(contestant.name):
        return replace(contestant, note="not asked for")
    module = library(name)
    if module is None:
        return replace(contestant, note=f"{name} is not installed")
    return replace(contestant, run=make(module))
