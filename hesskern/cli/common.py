"""Common parts of the commands: exit codes, errors of one sentence, and messages on stderr."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from hesskern._base import atomic_write

DONE, NOT_WELL, REFUSED, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141


class RefusedError(Exception):
    """The command cannot be carried out; the message says why."""


class CommandParser(argparse.ArgumentParser):
    """A parser whose usage errors are one sentence."""

    #: The exit code of a usage error.
    refused = REFUSED

    def error(self, message: str) -> NoReturn:
        """Print the fault and how to get help, and exit."""
        self.exit(self.refused, f"hesskern: {message}; {self.prog} --help lists the options.\n")


def say(activity: str) -> None:
    """Print on a terminal what takes time; a program that reads stderr gets errors only."""
    if sys.stderr.isatty():
        print(f"hesskern: {activity} ...", file=sys.stderr, flush=True)


def to_json(values: dict[str, Any]) -> str:
    """Return one JSON object; numbers that JSON does not have become null."""
    return json.dumps(_finite(values), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, without its full stop."""
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


def reason(error: OSError) -> str:
    """Return the system's description of the error, or the message without the path that it begins with."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return cause.strerror or re.sub(r"^\w+ is '.*', which (is )?", "", one_line(error))


def check_output(path: str, option: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a file that cannot be written before the work begins."""
    if Path(path).suffix.lower() not in suffixes:
        raise RefusedError(f"{option} is {path!r}; expected a name that ends in {' or '.join(suffixes)}.")
    try:
        atomic_write.check(path, option)
    except (OSError, ValueError) as error:
        raise RefusedError(f"{one_line(error)}.") from error


def write_output(path: str, option: str, write: Callable[[str], None]) -> None:
    """Write a file; raise a clear error if that fails."""
    try:
        write(path)
    except OSError as error:
        raise RefusedError(f"{option}: cannot write {path!r}: {reason(error)}.") from error
