"""The loop that stands for a parametrisation: every case is run, and a failure names its case."""

from __future__ import annotations

import pytest
from looped import each, few_quick


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


def test_a_few_are_quick_and_none_is_lost():
    seen = []

    @each("letter", "ab")
    @each("number", range(11), quick=3)
    def test(backend, letter, number):
        seen.append((letter, number))

    (parts,) = [mark.args[1] for mark in test.pytestmark if mark.name == "parametrize"]
    assert parts[0] == "some" and parts[1].values == ("others",)
    assert [mark.name for mark in parts[1].marks] == ["long"]
    test(backend="cpp", cases="some")
    assert seen == [(letter, number) for letter in "ab" for number in (0, 5, 10)]
    test(backend="cpp", cases="others")
    assert sorted(seen) == [(letter, number) for letter in "ab" for number in range(11)]
    marked = few_quick(range(5), 2)
    assert [case.values for case in marked] == [(k,) for k in range(5)]
    assert [bool(case.marks) for case in marked] == [False, True, True, True, False]


@each("number", range(5), quick=2)
def test_pytest_sees_the_two_parts(number, backend):
    assert number in range(5) and backend.name
