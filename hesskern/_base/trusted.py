"""Whether code that lies in a folder may be run: only where nobody but this user, or root, can have put it there.

A folder is trusted if it and all folders above it belong to the user or to root, and no group and no other user can
write to them. A folder above may be open to all if it is sticky, like ``/tmp``: others cannot exchange its contents. On
Windows, which has other permissions, everything is trusted.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make(folder: str | os.PathLike[str]) -> None:
    """Make a folder and the missing folders above it, for this user alone, for any umask."""
    missing = [Path(folder), *Path(folder).parents]
    for path in reversed(missing):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)


def distrust(folder: str | os.PathLike[str]) -> str | None:
    """Return why code in this folder is not to be run, in words; None if it may be."""
    # Both paths to it: whoever can write to a folder on the way can put a link there.
    for path in dict.fromkeys((os.path.abspath(folder), os.path.realpath(folder))):
        for place in (Path(path), *Path(path).parents):
            why = _open_to_others(place, os.lstat(place), above=str(place) != path)
            if why is not None:
                return why
    return None


def distrust_all(folder: str | os.PathLike[str]) -> str | None:
    """Return why code in this folder, or anywhere below it, is not to be run, in words; None if it may be."""
    why = distrust(folder)
    if why is not None or not os.stat(folder).st_mode & 0o077:  # closed to others: nobody reaches what is in it
        return why
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            place = Path(parent, name)
            why = _open_to_others(place, os.lstat(place), above=False)
            if why is not None:
                return why
    return None


def distrust_file(path: str | os.PathLike[str], status: os.stat_result) -> str | None:
    """Return why a file in a trusted folder, opened and asked for its status, is not to be run."""
    return _open_to_others(Path(path), status, above=False)


def _open_to_others(place: Path, status: os.stat_result, *, above: bool) -> str | None:
    if os.name != "posix":
        return None
    if status.st_uid not in (0, os.geteuid()):
        return f"{str(place)!r} belongs to another user"
    if stat.S_ISLNK(status.st_mode):  # has no permissions of its own
        return None
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (above and status.st_mode & stat.S_ISVTX):
        return f"{str(place)!r} can be written to by others"
    return None
