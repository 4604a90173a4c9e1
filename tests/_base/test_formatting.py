"""Lists in one line: whole where they are short, with dots where they are long."""

import pytest

from hesskern._base.formatting import shortened, widths_in_words


@pytest.mark.parametrize(
    ("widths", "words"),
    [([3, 2], "3-2"), (range(1, 9), "1-2-3-4-5-6-7-8"), (range(1, 10), "1-2-3-...-9 (8 layers)")],
)
def test_widths(widths, words):
    assert widths_in_words(widths) == words


def test_lists_are_shortened_from_nine_items_on():
    assert shortened(range(8)) == list("01234567")
    assert shortened(["a"] * 8 + ["z"]) == ["a", "a", "a", "...", "z"]
    assert shortened([]) == []
