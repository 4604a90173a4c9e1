"""Whether a dense result fits into the free memory, checked before it is allocated."""

from __future__ import annotations

from pathlib import Path

import psutil

#: Bytes from which control groups are looked at. Reading their files takes as long as writing a megabyte or two, which
#: is at most a twentieth of what follows.
_LOOK_AT_GROUPS = 32 << 20
#: Version 1 writes a number at least this large where there is no limit.
_NO_LIMIT = 1 << 60


def require(size: int, purpose: str, instead: str) -> None:
    """Raise MemoryError if `size` bytes are not available now.

    Parameters
    ----------
    size : int
        Bytes.
    purpose, instead : str
        The work that needs them, and the advice to the user; parts of the message.
    """
    free = available() if size >= _LOOK_AT_GROUPS else int(psutil.virtual_memory().available)
    if size > free:
        raise MemoryError(f"{purpose} takes {human(size)}, but only {human(free)} of memory is free; {instead}")


def available(root: Path = Path("/")) -> int:
    """Return how many bytes the machine, or the container that this process is in, has left.

    Parameters
    ----------
    root : path
        Below which ``proc`` and ``sys`` are.
    """
    return max(0, min([int(psutil.virtual_memory().available), *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> list[int]:
    """Return the free part of the memory limit of each control group (cgroup) of this process, versions 1 and 2.

    A group within another is limited by both. A container often sees its own group as the root of the tree, although
    the kernel reports another path.
    """
    remaining = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            tree, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file ")
        elif "memory" in controllers.split(","):
            tree = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        else:
            continue
        group = tree / path.strip("/")
        while group == tree or tree in group.parents:
            remaining += _left_of_limit(group, *names)
            group = group.parent
    return remaining


def _left_of_limit(group: Path, limit: str, usage: str, cache: str) -> list[int]:
    """Return the free part of a group's limit, or nothing if it has no limit."""
    most = _text(group / limit).strip()
    if not most.isdigit() or int(most) >= _NO_LIMIT:
        return []
    used = _text(group / usage).strip()
    if not used.isdigit():
        return []
    # Pages of files that were read and may be dropped count as used.
    droppable = [
        line.removeprefix(cache) for line in _text(group / "memory.stat").splitlines() if line.startswith(cache)
    ]
    return [int(most) - int(used) + sum(int(count) for count in droppable if count.isdigit())]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not Linux, or no such group
        return ""


def human(count: int) -> str:
    """Return a number of bytes in words."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
