"""The demo in words: what it explains, and what it says where numbers disagree."""

import dataclasses

import numpy as np
import pytest

from hesskern.demo.text import describe


def test_text_explains_and_is_ascii(bare):
    text = describe(bare)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 120
    for part in ("608 epochs", "9.5 times", "5345.8106", "`w1.dot(x)` should be `w1.dot(x.T)`", "25 of 500", "rows"):
        assert part in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 607}, "the number of epochs is 607; expected 608"),
        ({"status": "max_steps"}, "training max_steps after 608 epochs"),
        ({"multiplicities": np.array([5, 5, 5, 5, 4])}, "the number of nonzero eigenvalues is 24; expected 25"),
    ],
)
def test_disagreement_is_said(bare, change, said):
    wrong = dataclasses.replace(bare, **change)
    assert not wrong.ok
    assert wrong.failures == (said,)
    assert "CHECKS FAILED" in describe(wrong) and said in describe(wrong)
