"""What one worker of a test run makes and all use: compiling takes longer than the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: Set by the process that starts the workers, which take over its environment.
_VARIABLE = "TESTS_OF_HESSKERN"


def begin() -> str | None:
    """Make the folder of this run, and return it to the process that has to remove it; None to a worker."""
    if _VARIABLE in os.environ:
        return None
    os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="hesskern-tests-")
    return os.environ[_VARIABLE]


def end(folder: str) -> None:
    """Remove it."""
    del os.environ[_VARIABLE]
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def for_all_workers(name: str) -> Iterator[Path]:
    """Give a path in the folder of this run to one process at a time: who finds nothing there makes it."""
    import fcntl

    path = Path(os.environ[_VARIABLE], name)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
