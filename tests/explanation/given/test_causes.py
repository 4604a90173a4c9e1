"""Causes in words, and what several of them come to."""

import pytest

from hesskern.explanation.given.causes import Cause, keys, listed, sentence, total

ONE, TWO = Cause("one", "this happened", "undo this"), Cause("two", "that happened", "undo that", cost=3)


def test_several_causes():
    assert total((ONE, TWO)) == 4 and total(()) == 0
    assert keys([ONE, TWO]) == ("one", "two")
    assert sentence([ONE, TWO]) == "this happened; that happened"


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")]
)
def test_lists_in_words(words, text):
    assert listed(list(words)) == text
