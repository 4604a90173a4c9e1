"""The answer: its evidence, what is left unexplained, and where."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk


def test_evidence_and_what_it_should_have_been(training):
    loss, nets = training
    H = loss.hessian(nets[1]).toarray()
    why = hk.explain(2 * H, nets[1], loss)
    (finding,) = why.findings
    assert finding.before == pytest.approx(0.5) and finding.after < 1e-14
    assert finding.yours == pytest.approx(2 * finding.expected)
    np.testing.assert_allclose(why.corrected, H, rtol=0, atol=1e-14 * np.abs(H).max())
    assert why.confidence.startswith("certain")
    assert "fix: divide by 2" in str(why)


def test_the_remainder_says_where(training):
    loss, nets = training
    H = loss.hessian(nets[1]).toarray()
    H[30, 50] += 1.0
    H[50, 30] += 1.0
    rest = hk.explain(H, nets[1], loss).unexplained
    assert set(rest.rows[:2]) == {30, 50} and set(rest.entry) == {30, 50}
    assert rest.yours - rest.expected == pytest.approx(1.0)
    assert set(rest.block) == {"W2", "b2"} and rest.share == pytest.approx(0.5)
