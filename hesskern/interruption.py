"""Ctrl-C as a wish, looked at between two pieces of work, not an exception that may come between any two lines."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interruption:
    """While it is entered, the first Ctrl-C sets `wished`, and the second raises KeyboardInterrupt.

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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._replaced:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.wished:
            self.forced = True
            signal.default_int_handler(number, frame)
        self.wished = True
