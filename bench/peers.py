"""Libraries that may be there: a benchmark runs without them and reports them as absent."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from bench.task import Contestant


@functools.cache
def torch() -> Any:
    """Return torch, on one thread, or None where it is not installed."""
    try:
        module = importlib.import_module("torch")
    except ImportError:
        return None
    module.set_num_threads(1)
    return module


def with_torch(
    name: str, make: Callable[[Any], Callable[[], object]], *, note: str = "", units: float = 1.0
) -> Contestant:
    """Return a contestant that `make(torch)` builds, or one that is absent."""
    module = torch()
    if module is None:
        return Contestant(name=name, run=None, note="torch is not installed")
    return Contestant(name=name, run=make(module), note=note, units=units)
