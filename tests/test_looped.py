"""The loop that stands for a parametrisation: every case is run, and a failure names its case."""

from __future__ import annotations

import pytest
from looped import each


def test_every_case_is_run_with_the_fixtures():
    seen = []

    @each("letter", "ab")
    @each(("number", "square"), [(2, 4), pytest.param(3, 9, id="three")])
    def test(backend, letter, number, square):
        seen.append((backend, letter, number, square))

    test(backend="cpp")
    assert seen == [("cpp", letter, number, number**2) for letter in "ab" for number in (2, 3)]


def test_a_failure_says_with_which_case():
    @each("seed", range(5))
    def test(seed):
        assert seed < 3

    with pytest.raises(AssertionError) as failed:
        test()
    assert failed.value.__notes__ == ["with seed=3"]


def test_what_is_skipped_in_one_case_runs_in_the_others():
    seen = []

    def test(seed):
        if seed < 2:
            pytest.skip("not this one")
        seen.append(seed)

    each("seed", range(4))(test)()
    assert seen == [2, 3]
    with pytest.raises(pytest.skip.Exception, match="every case was skipped"):
        each("seed", range(2))(test)()


def test_misspelt_names_and_no_cases_are_refused():
    with pytest.raises(AssertionError, match="does not take sead"):
        each("sead", [1])(lambda seed: None)
    with pytest.raises(AssertionError, match="no cases"):
        each("seed", [])
