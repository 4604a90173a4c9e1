"""Lists in one line, however many items there are."""

from __future__ import annotations

from collections.abc import Sequence

#: Lists of more items are shortened to the first ones and the last.
_SHOWN = 8


def widths_in_words(widths: Sequence[int]) -> str:
    """Return "5-100-5".

    Examples
    --------
    >>> widths_in_words((5, 100, 5))
    '5-100-5'
    >>> widths_in_words([4] * 30)
    '4-4-4-...-4 (29 layers)'
    """
    text = "-".join(shortened(widths))
    return text if len(widths) <= _SHOWN else f"{text} ({len(widths) - 1} layers)"


def shortened(items: Sequence[object]) -> list[str]:
    """Return the items as words; of a long list the first three, "..." and the last."""
    words = [str(item) for item in items]
    return words if len(words) <= _SHOWN else [*words[:3], "...", words[-1]]
