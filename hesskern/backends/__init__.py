"""The registry of backends: by argument, by `use_backend`, by the variable HESSKERN_BACKEND, else "cpp"."""

from __future__ import annotations

import functools
import importlib
import os
import threading
import weakref
from contextvars import ContextVar
from types import TracebackType
from typing import TypeGuard

from hesskern._base import checks
from hesskern.backends.protocol import Backend, HostBackend

_MODULES = {
    "cpp": "hesskern.backends.cpp_backend",
    "numba": "hesskern.backends.numba_backend",
    "numpy": "hesskern.backends.numpy_backend",
    "cuda": "hesskern.backends.cuda.backend",
}
#: Backends whose arrays are tensors on a GPU; all others take NumPy's.
_ON_DEVICE = ("cuda",)
_DEFAULT = "cpp"
#: The choice of the innermost ``with`` block of this thread or task, in a tuple; else that of the process.
_in_block: ContextVar[tuple[str | None] | None] = ContextVar("hesskern_backend", default=None)
_of_process: str | None = None


class _Calls(threading.local):
    """The last object that `use_backend` returned in each thread, until it is known whether it enters a block."""

    last: weakref.ref[use_backend] | None = None


_calls = _Calls()


def names() -> tuple[str, ...]:
    """Return the names of all backends."""
    return tuple(_MODULES)


def host_names() -> tuple[str, ...]:
    """Return the names of the backends that compute on the CPU."""
    return tuple(name for name in _MODULES if name not in _ON_DEVICE)


def resolve(name: str | None = None) -> str:
    """Return the name of the backend that a call with this argument uses; ValueError for an unknown one."""
    source = "backend"
    if name is None:
        _settle()
        block = _in_block.get()
        name = _of_process if block is None else block[0]
    if name is None and os.environ.get("HESSKERN_BACKEND"):
        name, source = os.environ["HESSKERN_BACKEND"], "HESSKERN_BACKEND"
    if name is None:
        return _DEFAULT
    return checks.one_of(name, source, names())


def get(name: str | None = None) -> Backend:
    """Return a backend, loaded on first use."""
    return _load(resolve(name))


def get_for(name: str | None, place: str, subject: str) -> Backend:
    """Return the backend for arrays at `place`; on a GPU without a name "cuda".

    Raises
    ------
    TypeError
        If the arrays are not on the device where the backend computes; `subject` begins the message: "X and Y are".
    """
    device = place != "cpu"
    chosen = "cuda" if device and name is None else resolve(name)
    if device != (chosen in _ON_DEVICE):
        raise TypeError(
            f"{subject} on {place}, but the backend {chosen!r} takes arrays on {'the CPU' if device else 'a GPU'}; "
            + ("move them with .cpu()." if device else "pass tensors on the GPU, for instance torch.tensor(X).cuda().")
        )
    return _load(chosen)


def get_on_host(name: str | None, subject: str) -> HostBackend:
    """Return the backend for arrays in main memory.

    Raises
    ------
    TypeError
        If the backend computes on a GPU; `subject` begins the message.
    """
    backend = get_for(name, "cpu", subject)
    assert on_host(backend)
    return backend


def on_host(backend: Backend) -> TypeGuard[HostBackend]:
    """Return whether a backend computes on the CPU."""
    return backend.name not in _ON_DEVICE


@functools.cache
def _load(name: str) -> Backend:
    backend: Backend = importlib.import_module(_MODULES[name]).BACKEND
    return backend


def _settle() -> None:
    """Let the last call of `use_backend` in this thread choose for the process, unless it entered a block."""
    if _calls.last is not None:
        call = _calls.last()
        if call is not None:
            call._settle()


class use_backend:  # noqa: N801 - read and called like a function, and usable in a `with` statement
    """Use this backend from now on in the whole process, or inside a ``with`` block in this thread or task only.

    A plain call sets the backend for all threads that are not inside a block. A block sets it for the thread or the
    asyncio task that entered it, and for tasks and ``asyncio.to_thread`` started inside. This overrides the backend of
    the process and ends with the block. Threads started inside a block, also those of a ThreadPoolExecutor, begin with
    the backend of the process (from Python 3.14 on with the block's backend if ``sys.flags.thread_inherit_context`` is
    set). To use the block's backend in them, call ``contextvars.copy_context().run``, or pass ``backend=``.

    Parameters
    ----------
    name : str or None
        "cpp" (compiled, the default), "numba" (compiled on first use), "numpy" (the plain definition) or "cuda" (for
        tensors on a GPU); None goes back to HESSKERN_BACKEND or "cpp".

    Raises
    ------
    TypeError, ValueError
        If there is no such backend.
    ImportError
        If a package or a GPU that it needs is missing; the message says what to install.

    Examples
    --------
    >>> import hesskern as hk
    >>> with hk.use_backend("numpy"):
    ...     hk.info()["backend"]
    'numpy'
    """

    def __init__(self, name: str | None) -> None:
        _settle()
        self._name = None if name is None else get(name).name
        self._before: list[tuple[str | None] | None] = []
        self._open = True  # whether a `with` block may still follow
        _calls.last = weakref.ref(self)

    def _settle(self) -> None:
        """Choose for the process, unless a block was entered.

        A call does not know whether it belongs to a ``with`` statement, and other threads must not see a block's choice
        even for a moment. The next event in this thread shows that it does not: the object is dropped, or a backend is
        requested.
        """
        global _of_process  # noqa: PLW0603 - the one process-wide choice
        if self._open:
            self._open = False
            _of_process = self._name
            if _in_block.get() is not None:
                _in_block.set((self._name,))  # of the rest of the block as well

    def __del__(self) -> None:
        if getattr(self, "_open", False):  # not there where the name was refused
            self._settle()

    def __enter__(self) -> None:
        """Choose for this thread or task."""
        self._open = False
        self._before.append(_in_block.get())
        _in_block.set((self._name,))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Go back to the choice before."""
        _in_block.set(self._before.pop())
