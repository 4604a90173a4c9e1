"""BLAS on one thread, for results that must not depend on the number of threads: BLAS splits sums between them.

The setting holds for the whole process. Nested and concurrent uses are counted; the last one to end restores it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Held by a fork, so that no child begins in the middle of a change. Reentrant: a signal handler may fork.
_LOCK = threading.RLock()
_CONTROLLERS: list[Any] = []  # made once: looking for the libraries takes a millisecond
_USERS: list[int] = []  # the thread of each use
_LIMITS: list[Any] = []  # the limit, while there are users

#: Product of the two largest dimensions below which OpenBLAS does not share work between threads.
_SHARED_FROM = 4096


@contextmanager
def one_thread(*dimensions: int) -> Iterator[None]:
    """Keep BLAS on one thread inside the block, if matrices of these dimensions are large enough to be shared."""
    largest = sorted(dimensions)[-2:]
    if largest[0] * largest[-1] < _SHARED_FROM:
        yield
        return
    this_thread = threading.get_ident()
    with _LOCK:
        if not _USERS:
            _LIMITS.append(_limit())
        _USERS.append(this_thread)
    try:
        yield
    finally:
        with _LOCK:
            _USERS.remove(this_thread)
            _restore_if_unused()


def _restore_if_unused() -> None:
    if _LIMITS and not _USERS:
        _LIMITS.pop().restore_original_limits()


def _limit() -> Any:
    if not _CONTROLLERS:
        import scipy.linalg  # noqa: F401, PLC0415 - its BLAS has to be there to be found
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415 - `import hesskern` need not load it

        _CONTROLLERS.append(ThreadpoolController())
    return _CONTROLLERS[0].limit(limits=1, user_api="blas")


def _in_child() -> None:
    """Forget the uses of threads that a forked process does not have."""
    _USERS[:] = [thread for thread in _USERS if thread == threading.get_ident()]
    _restore_if_unused()
    _LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_in_child)
