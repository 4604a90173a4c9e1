"""Ctrl-C while a command is still importing: one line on stderr and exit code 130, as later.

`hesskern.cli.main.main` is not running yet then, and a console script has nobody else who could catch it.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType


def _install() -> None:
    """Let a process that was started as the command end in one line where Ctrl-C reaches nobody."""
    name = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    as_module = name == "-m" and "hesskern" in sys.orig_argv
    if as_module or name in ("hesskern", "hesskern.exe", "hesskern-script.py"):
        sys.excepthook = _end


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__  # compiled modules make another error of it
    if cause is None:
        sys.__excepthook__(kind, error, trace)
        return
    os.write(2, b"hesskern: interrupted\n")
    os._exit(130)


_install()
