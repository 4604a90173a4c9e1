"""What `Reduction` says."""

from __future__ import annotations

import pytest

import hesskern as hk

WIDE = ((5, 100, 5), (5, 10, 5))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, ""),
        ({"samples": (500, 5), "widths": WIDE}, "500 samples to 5 rows; widths 5-100-5 to 5-10-5"),
        ({"inputs": (9, 3)}, "inputs 9 to 3"),
        ({"widths": WIDE, "start": True}, "orthogonal start: widths 5-100-5 to 5-10-5"),
        ({"rotated": True}, "X diagonal"),
        (
            {"samples": (9, 3), "reason": "widths not reduced: so it is"},
            "9 samples to 3 rows; widths not reduced: so it is",
        ),
    ],
)
def test_words(fields, text):
    reduction = hk.Reduction(**fields)
    assert str(reduction) == text
    assert bool(reduction) is bool(fields)


def test_nothing_but_a_reason_is_nothing():
    assert not hk.Reduction(reason="widths not reduced: square inner layers in general position")
    assert not hk.Reduction(unbalanced=2)
    assert "differ by orders of magnitude" in str(hk.Reduction(unbalanced=2))
