"""How much memory a dense result takes, asked before it is allocated."""

from __future__ import annotations

import psutil


def require(needed: int, what: str, instead: str) -> None:
    """Raise MemoryError if `needed` bytes are not available now.

    Parameters
    ----------
    needed : int
        Bytes.
    what, instead : str
        What would take them, and what to do without; parts of the message.
    """
    free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(f"{what} takes {human(needed)}, but only {human(free)} of memory is free; {instead}")


def human(count: int) -> str:
    """Return a number of bytes in words."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
