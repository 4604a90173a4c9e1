"""Ctrl-C: as a wish, looked at between two pieces of work, and out of long calls of compiled code."""

from __future__ import annotations

import contextvars
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

from hesskern import _core

Result = TypeVar("Result")


class Interruption:
    """While it is entered, the first Ctrl-C sets `wished`, and the second raises KeyboardInterrupt.

    A long call of compiled code (see `interruptibly`) is left by the first one too: with KeyboardInterrupt, and without
    `forced`.

    Only Python's own handling of SIGINT is replaced, and only in the main thread, which alone receives it: whoever has
    installed a handler keeps it.

    Examples
    --------
    >>> import signal
    >>> with Interruption() as interruption:
    ...     signal.raise_signal(signal.SIGINT)
    ...     interruption.wished
    True
    """

    def __init__(self) -> None:
        self.wished = self.forced = False
        self._replaced = False

    def __enter__(self) -> Interruption:
        here = threading.current_thread() is threading.main_thread()
        if here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._replaced = True
            _entered.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._replaced:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _entered.remove(self)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.wished:
            self.forced = True
            signal.default_int_handler(number, frame)
        self.wished = True


#: The one that is entered, which has replaced Python's handler.
_entered: list[Interruption] = []

#: Floating-point operations a second that a slow core does in BLAS and LAPACK: to tell long calls from short ones.
RATE = 2e9
#: Bytes a second that a slow core writes into a dense matrix.
BYTES = 5e8
#: Calls that are expected to take longer than this run where Ctrl-C can leave them.
_LONG = 0.2
#: How often the main thread looks whether a long call has ended, in seconds, where a signal does not wake it.
_LOOK = 0.1


def interruptibly(function: Callable[..., Result], *arguments: Any, seconds: float, **options: Any) -> Result:
    """Return ``function(*arguments, **options)``, from which Ctrl-C returns at once even where it is compiled code.

    A long call (`seconds`, roughly what it is expected to take) of the main thread runs in a thread of its own, while
    the main thread waits for signals. After Ctrl-C nobody waits for that thread any more: it ends in the background,
    and until then its memory, and a core, are in use. The function must not hold the GIL; LAPACK, BLAS and the kernels
    of the package do not. Short calls, and those of other threads, which receive no signals, are made as they are.
    """
    if seconds < _LONG or threading.current_thread() is not threading.main_thread():
        return function(*arguments, **options)
    results: list[Result] = []
    errors: list[BaseException] = []
    ended = threading.Event()
    left = False
    lock = threading.Lock()

    def work() -> None:
        try:
            results.append(function(*arguments, **options))
        except BaseException as error:  # handed to whoever waits
            errors.append(error)
        finally:
            with lock:
                ended.set()
                if left:
                    _core.count_left_call(-1)

    # As the caller has set them: the backend in use, and what NumPy does about overflow.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="hesskern-call", daemon=True).start()
    try:
        while not ended.wait(_LOOK):
            if any(each.wished for each in _entered):
                raise KeyboardInterrupt
    except BaseException:
        with lock:
            if not ended.is_set():
                _core.count_left_call(1)
                left = True
        raise
    if errors:
        raise errors[0]
    return results[0]
