"""The grid that differences leave, and the step that it reveals."""

from __future__ import annotations

import corruptions
import imprecise
import judged
import pytest
from looped import few_quick

import hesskern as hk


@pytest.mark.parametrize("step", few_quick([1.7e-5, 3.3e-4, 7.3e-7], 0))
def test_steps_that_nobody_takes(step):
    """Entries on both sides of the diagonal are few of their units apart."""
    found = []
    for seed in range(1, 9):
        problem = corruptions.random_problem(seed)
        why = hk.explain(imprecise.by_differences(problem, f"central[{step}]"), *judged.given(problem))
        found += [finding.words for finding in why.findings]
    assert all("central differences" in words for words in found)
    assert sum(f"h = {step:.3g}" in words for words in found) >= 5
