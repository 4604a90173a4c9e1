"""How many threads the extension writes large matrices with: one in every comparison, unless a contestant says so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from bench.contest import Contestant
from hesskern.backends import cpp_backend


@contextmanager
def extension_threads(count: int) -> Iterator[None]:
    """Give the extension this many threads for a while."""
    before = cpp_backend._THREADS
    cpp_backend._THREADS = count
    try:
        yield
    finally:
        cpp_backend._THREADS = before


def with_threads(count: int, name: str, run: Callable[[], object], *, note: str) -> Contestant:
    """Return a contestant that runs on several threads and says so; absent where there are fewer cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < count:
        return Contestant(name=f"{name}, {count} threads", run=None, note=f"{cores} cores only")
    return Contestant(name=f"{name}, {count} threads", run=run, note=note, context=partial(extension_threads, count))
