"""What is said of a bare number: the cause, that it is right, or that its digits prove nothing."""

from __future__ import annotations

import pytest

import hesskern as hk


@pytest.mark.parametrize("number", [5345.81, "5345.81", "5345"])
def test_the_bare_number(case, number):
    net, loss, _ = case
    why = hk.explain(number, net, loss, params=[1])
    assert [finding.cause for finding in why.findings] == ["X-transposed"]
    assert why.findings[0].expected == pytest.approx(174.0739, rel=1e-6) == why.corrected
    assert "by chance" in why.confidence


@pytest.mark.parametrize("number", [174, 174.07, "174.0739", 25, 2230.5])
def test_true_numbers_match(case, number):
    net, loss, _ = case
    why = hk.explain(number, net, loss, params=[1])
    assert (why.status, why.findings) == ("match", ())


@pytest.mark.parametrize("number", ["0", "0.", "00", 0, 0.0])
def test_zero_is_nothing(case, number):
    net, loss, _ = case
    assert hk.explain(number, net, loss, params=[1]).status == "unexplained"


def test_few_digits_prove_nothing(case):
    net, loss, _ = case
    statuses = [hk.explain(f"{number:.1g}", net, loss, params=[1]).status for number in (3e3, 7e4, 4e5)]
    assert "explained" not in statuses
    assert hk.explain(3.14159265, net, loss, params=[1]).status == "unexplained"
