"""Ctrl-C during a run: it ends between two measurements, and what is finished is kept.

An exception raised by the signal would come up wherever the main thread is, inside the callback of a library too, which
may swallow it.
"""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupt:
    """While it is entered, the first Ctrl-C only sets `asked`; a second one kills the process."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def stopped(self) -> bool:
        return self.asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"Stopping after what runs now; Ctrl-C again kills at once.\n")
