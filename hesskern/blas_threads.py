"""BLAS on one thread while a result must not depend on how many there are: it splits sums between them.

The number is one for the whole process. Nested and concurrent uses count themselves; the last to leave restores it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCK = threading.Lock()
_CONTROLLERS: list[Any] = []  # made once: looking for the libraries takes a millisecond
_USERS: list[Any] = []  # one entry for each use; the first holds the limit

#: Entries of the two largest dimensions below which OpenBLAS does not share work between threads.
_SHARED_FROM = 4096


@contextmanager
def one_thread(*dimensions: int) -> Iterator[None]:
    """Keep BLAS on one thread inside the block, if matrices of these dimensions are large enough to be shared."""
    largest = sorted(dimensions)[-2:]
    if largest[0] * largest[-1] < _SHARED_FROM:
        yield
        return
    with _LOCK:
        _USERS.append(None if _USERS else _limit())
    try:
        yield
    finally:
        with _LOCK:
            limit = _USERS.pop(0)
            if _USERS:
                _USERS[0] = limit
            else:
                limit.restore_original_limits()


def _limit() -> Any:
    if not _CONTROLLERS:
        import scipy.linalg  # noqa: F401, PLC0415 - its BLAS has to be there to be found
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415 - `import hesskern` need not load it

        _CONTROLLERS.append(ThreadpoolController())
    return _CONTROLLERS[0].limit(limits=1, user_api="blas")
