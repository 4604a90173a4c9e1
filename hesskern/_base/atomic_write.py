"""Files written as a whole: a reader always finds the old file or the new one, never a part.

The content goes to a temporary file in the same folder and to the disk; then the file is renamed. Its name is random
and new (``O_EXCL``, symbolic links are not followed). Two processes may write to one path: each replaces the whole
file. If the path is a symbolic link to a file, the file that it points to is replaced.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hesskern._base import checks

#: Random part and ending of a temporary name, and how much of the file's own name precedes it: names have a limit.
_ENDING, _KEPT = re.compile(r"\.[0-9a-f]{16}\.partial"), 100
_POSIX = os.name == "posix"
_NO_FILE = (
    "exists and is not an ordinary file (but a pipe, a device or a broken link); expected a new name, or a file to "
    "replace."
)


def check(path: object, name: str) -> Path:
    """Return the file to write to, with links followed; raise before any work is done if it cannot be written.

    Parameters
    ----------
    path : str or path
    name : str
        Its name in messages.

    Raises
    ------
    TypeError
        If it is not a path.
    OSError
        If no file can be written there.
    """
    text = checks.path(path, name)
    label = f"{name} is {text!r}" if len(text) <= 300 else f"{name} is a path of {len(text)} characters"
    target = _followed(Path(text), label)
    subject = f"{label}, which"
    try:
        mode: int | None = os.stat(target).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise type(error)(f"{subject} cannot be written to ({error.strerror}).") from error
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{subject} is a folder; expected the name of a file to write.")
    if mode is not None and not stat.S_ISREG(mode):  # replacing a device or a pipe would remove it
        raise OSError(f"{subject} {_NO_FILE}")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"{subject} is in a folder that does not exist (No such file or directory); make it first."
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{subject} is in a folder that cannot be written to; choose another folder.")
    if mode is not None and not os.access(target, os.W_OK):
        raise PermissionError(f"{subject} is write-protected; choose another name, or change its permissions.")
    return target


def write(
    path: object, name: str, content: Callable[[BinaryIO], object], *, mode: int = 0o666, private: bool = False
) -> None:
    """Write all of a file or nothing.

    Parameters
    ----------
    path : str or path
    name : str
        Its name in messages.
    content : callable
        Writes the content to an open binary file.
    mode : int
        Permissions of a new file, before the umask; a file that is replaced keeps its own.
    private : bool
        Whether `mode` and this process's user hold for a file that is replaced too.

    Raises
    ------
    TypeError
        If `path` is not a path.
    OSError
        If the file cannot be written; the old file is unchanged.
    """
    target = check(path, name)
    try:
        partial, descriptor = _create(target, mode)
        try:
            with open(descriptor, "wb") as file:
                if not private:
                    _like(target, descriptor)
                content(file)
                file.flush()
                os.fsync(descriptor)
                os.replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        _sync_folder(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"{name} is {os.fspath(checks.path(path, name))!r}: cannot write: {reason}.") from error


def remove_leftovers(target: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote this file.

    A process that writes holds a lock on its temporary file until it ends. Where there are no such locks, nothing is
    removed.
    """
    stem, names = target.name[:_KEPT], []
    with contextlib.suppress(OSError):  # a folder may be written to and not be listed
        names = os.listdir(target.parent)
    for name in names:
        if name.startswith(stem) and _ENDING.fullmatch(name[len(stem) :]):
            with contextlib.suppress(OSError):
                descriptor = os.open(target.parent / name, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
                try:
                    if _lock(descriptor, wait=False):
                        os.unlink(target.parent / name)
                finally:
                    os.close(descriptor)


def _followed(path: Path, label: str) -> Path:
    """Return the target of a link; refuse a link of another user in a folder open to all."""
    try:
        linked = path.is_symlink()
    except OSError as error:  # a name that is too long
        raise type(error)(f"{label}, which cannot be written to ({error.strerror}).") from error
    if not linked:
        return path
    link, folder = os.lstat(path), os.stat(path.parent)
    if _POSIX and folder.st_mode & stat.S_IWOTH and link.st_uid not in (os.geteuid(), folder.st_uid):
        raise PermissionError(f"{label}, a symbolic link of another user in a folder open to all; choose another name.")
    target = Path(os.path.realpath(path))
    if not target.exists():
        raise OSError(f"{label}, which {_NO_FILE}")
    return target


def _create(target: Path, mode: int) -> tuple[Path, int]:
    """Create the temporary file and lock it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    while True:
        partial = target.with_name(f"{target.name[:_KEPT]}.{os.urandom(8).hex()}.partial")
        descriptor = os.open(partial, flags, mode)
        _lock(descriptor)
        if partial.exists():
            return partial, descriptor
        os.close(descriptor)  # somebody took it for a leftover before it was locked


def _lock(descriptor: int, *, wait: bool = True) -> bool:
    """Lock a file for as long as it is open; return whether that was possible."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _like(target: Path, descriptor: int) -> None:
    """Give a temporary file the owner and the permissions of the file that it replaces."""
    if not _POSIX:
        return
    try:
        replaced = os.stat(target)
    except FileNotFoundError:
        return
    created = os.fstat(descriptor)
    if (replaced.st_uid, replaced.st_gid) != (created.st_uid, created.st_gid):
        with contextlib.suppress(OSError):  # only root may give a file away
            os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode) & 0o777)


def _sync_folder(folder: Path) -> None:
    """Let the new name itself reach the disk."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):  # some file systems cannot; the file is whole all the same
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
