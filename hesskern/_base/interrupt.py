"""Ctrl-C: a request that is looked at between two pieces of work, and a way out of long calls of compiled code."""

from __future__ import annotations

import contextvars
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

from hesskern._core import count_left_call

Result = TypeVar("Result")


class Interruption:
    """Inside its ``with`` block the first Ctrl-C sets `requested`, and the second raises KeyboardInterrupt.

    The first one also ends a long call of compiled code (see `interruptibly`), with KeyboardInterrupt; `forced` stays
    False.

    It replaces only Python's own handler of SIGINT, not a handler that the user has installed. It does so only in the
    main thread, because no other thread receives the signal.

    Examples
    --------
    >>> import signal
    >>> with Interruption() as interruption:
    ...     signal.raise_signal(signal.SIGINT)
    ...     interruption.requested
    True
    """

    def __init__(self) -> None:
        self.requested = self.forced = False
        self._replaced = False

    def __enter__(self) -> Interruption:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
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
        if self.requested:
            self.forced = True
            signal.default_int_handler(number, frame)
        self.requested = True


#: The one whose block is open: it has replaced Python's handler.
_entered: list[Interruption] = []

#: Floating-point operations a second that a slow core does in BLAS and LAPACK: to tell long calls from short ones.
RATE = 2e9
#: Bytes a second that a slow core writes into a dense matrix.
BYTES = 5e8
#: Calls that are expected to take longer than this run where Ctrl-C can leave them.
_LONG = 0.2
#: Interval in seconds at which the main thread looks whether a long call has ended.
_LOOK = 0.1


def interruptibly(function: Callable[..., Result], *arguments: Any, seconds: float, **options: Any) -> Result:
    """Return ``function(*arguments, **options)``; Ctrl-C stops waiting for it at once, even if it is compiled code.

    A long call of the main thread (`seconds`: roughly how long it takes) runs in a second thread, while the main thread
    waits for signals. After Ctrl-C the second thread ends in the background; until then it uses its memory and a core.
    The function must not hold the GIL; LAPACK, BLAS and the kernels of the package do not. Short calls run directly.
    Calls in other threads also run directly, because these receive no signals.
    """
    if seconds < _LONG or threading.current_thread() is not threading.main_thread():
        return function(*arguments, **options)
    results: list[Result] = []
    errors: list[BaseException] = []
    ended = threading.Event()
    abandoned = False
    lock = threading.Lock()

    def work() -> None:
        try:
            results.append(function(*arguments, **options))
        except BaseException as error:  # raised again in the main thread
            errors.append(error)
        finally:
            with lock:
                ended.set()
                if abandoned:
                    count_left_call(-1)

    # The second thread keeps what the caller has set: the backend, and what NumPy does about overflow.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="hesskern-call", daemon=True).start()
    try:
        while not ended.wait(_LOOK):
            if any(interruption.requested for interruption in _entered):
                raise KeyboardInterrupt
    except BaseException:
        with lock:
            if not ended.is_set():
                count_left_call(1)
                abandoned = True
        raise
    if errors:
        raise errors[0]
    return results[0]
