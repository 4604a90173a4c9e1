"""Numbers as a reader wants them."""

from __future__ import annotations


def seconds_words(seconds: float) -> str:
    """Return a time with a unit that suits it.

    Examples
    --------
    >>> seconds_words(0.000276), seconds_words(0.1411)
    ('276 µs', '141 ms')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{digits(seconds / size)} {unit}"
    return f"{digits(seconds * 1e9)} ns"


def bytes_words(count: float) -> str:
    """Return an amount of memory with a unit that suits it.

    Examples
    --------
    >>> bytes_words(123_000), bytes_words(2**21), bytes_words(3 * 2**30)
    ('120 KiB', '2 MiB', '3 GiB')
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{digits(count / size)} {unit}"
    return f"{digits(count / 1024)} KiB"


def digits(value: float) -> str:
    """Return a number with three digits.

    Examples
    --------
    >>> digits(0.12345), digits(1234.5)
    ('0.123', '1234')
    """
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
