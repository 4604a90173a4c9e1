"""The checks of arguments themselves: what each takes, what it returns, and its one sentence otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hesskern._base import checks

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("check", "value", "returned"),
    [
        (checks.positive, np.float32(0.5), 0.5),
        (checks.non_negative, 0, 0.0),
        (checks.real, np.int8(-3), -3.0),
        (checks.boolean, np.True_, True),
        (checks.seed, 2**80, 2**80),
        (checks.widths, (5, np.int64(100), 5), [5, 100, 5]),
        (checks.path, Path("a") / "b", "a/b"),
        (checks.float_dtype, "f4", np.dtype("float32")),
        (checks.float_dtype, float, np.dtype("float64")),
    ],
)
def test_what_is_taken(check, value, returned):
    found = check(value, "it")
    assert found == returned and type(found) is type(returned)


REFUSED = {
    "zero": (checks.positive, 0.0, ValueError, "it is 0.0; expected a number greater than 0."),
    "below zero": (checks.non_negative, -1, ValueError, "it is -1.0; expected a number greater than or equal to 0."),
    "infinite": (checks.real, INF, ValueError, "it is inf; expected a finite number."),
    "NaN": (checks.positive, NAN, ValueError, "it is nan; expected a finite number."),
    "text": (checks.real, "1", TypeError, "it is '1' (of type str); expected a real number."),
    "complex": (checks.real, 1j, TypeError, "it is 1j (of type complex); expected a real number."),
    "a bool as number": (checks.real, True, TypeError, "it is True (of type bool); expected a real number."),
    "1 as bool": (checks.boolean, 1, TypeError, "it is 1 (of type int); expected True or False."),
    "negative seed": (checks.seed, -1, ValueError, "it is -1; expected at least 0."),
    "one width": (checks.widths, [5], ValueError, "it is (5,); expected at least two numbers, inputs and outputs."),
    "a width of zero": (checks.widths, [5, 0], ValueError, "it[1] is 0; expected at least 1."),
    "a number as path": (checks.path, 1, TypeError, "it is 1 (of type int); expected the path of a file."),
    "a dtype of integers": (
        checks.float_dtype, "int8", TypeError,
        "it is 'int8' (of type str); expected numpy.float64 or numpy.float32.",
    ),
    "None as dtype": (
        checks.float_dtype, None, TypeError,
        "it is None (of type NoneType); expected numpy.float64 or numpy.float32.",
    ),
    "no function": (checks.function, 3, TypeError, "it is 3 (of type int); expected a function."),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    check, value, error, message = REFUSED[case]
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        check(value, "it")


def test_integers_have_bounds():
    assert checks.integer(np.int16(7), "n", 1) == 7
    assert checks.integer(2**70, "n", 0, None) == 2**70
    with pytest.raises(ValueError, match=r"^n is 9223372036854775808; expected at most 9223372036854775807\.$"):
        checks.integer(2**63, "n", 0)
    with pytest.raises(ValueError, match=r"^n is -10\*\*60 or more; expected at least 0\.$"):
        checks.integer(-(10**70), "n", 0)
    with pytest.raises(TypeError, match="expected an integer"):
        checks.integer(2.0, "n", 0)


def test_indices_count_from_both_ends():
    assert [checks.index(k, 3, "layers") for k in (-3, -1, 0, 2)] == [-3, -1, 0, 2]
    for k in (-4, 3):
        with pytest.raises(IndexError, match=rf"^index is {k}; there are 3 layers, counted from 0\.$"):
            checks.index(k, 3, "layers")


def test_arrays_are_contiguous_finite_and_of_the_dimensions_asked_for():
    given = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    found = checks.as_array(given, "X", 2)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, given)
    assert checks.as_array(given.astype("float32"), "X", 2).dtype == np.float32
    for bad in (given[0], np.array([[1.0, NAN]]), np.array([[1.0, -INF]]), np.empty((0, 3))):
        with pytest.raises(ValueError, match=r"^X "):
            checks.as_array(bad, "X", 2)
    for bad in (given.astype(complex), given.astype(int), [[1.0], [1.0, 2.0]], "text"):
        with pytest.raises(TypeError, match=r"^X "):
            checks.as_array(bad, "X", 2)


def test_masked_entries_are_not_dropped():
    assert checks.read(np.ma.array([1.0, 2.0]), "X").tolist() == [1.0, 2.0]
    with pytest.raises(TypeError, match=r"^X is a masked array with 1 masked entries"):
        checks.refuse_masked(np.ma.array([1.0, 2.0], mask=[True, False]), "X")


def test_results_go_into_arrays_that_fit_only():
    double = np.dtype("float64")
    out = np.empty((2, 3))
    assert checks.out_array(out, (2, 3), double) is out
    read_only = np.empty((2, 3))
    read_only.flags.writeable = False
    for bad, error, words in (
        ([[0.0]], TypeError, "out is a list"),
        (np.empty((3, 2)), ValueError, "has shape (3, 2); expected (2, 3)"),
        (np.empty((2, 3), "float32"), TypeError, "has dtype float32; expected float64"),
        (np.empty((3, 2)).T, ValueError, "not C-contiguous"),
        (read_only, ValueError, "read-only"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            checks.out_array(bad, (2, 3), double)


def test_frozen_arrays_are_nobody_elses():
    given = np.arange(3.0)
    found = checks.frozen(given, given)
    given[0] = 9.0
    assert found[0] == 0.0 and not found.flags.writeable
    made = np.arange(3.0)
    assert np.shares_memory(checks.frozen(made, [0, 1, 2]), made)


def test_dtypes_are_not_mixed():
    one, other = np.zeros(2), np.zeros(2, "float32")
    checks.same_dtype(one, "X", one, "Y")
    with pytest.raises(TypeError, match=r"^Y has dtype float32, but X has float64; convert one of them"):
        checks.same_dtype(one, "X", other, "Y")


def test_words_and_entries():
    assert checks.one_of("mean", "kind", ("sum", "mean")) == "mean"
    with pytest.raises(ValueError, match=r"^kind is .*; expected one of 'sum', 'mean'\.$"):
        checks.one_of("max", "kind", ("sum", "mean"))
    assert list(checks.entries([1, 2], "nets", "a list")) == [1, 2]
    with pytest.raises(TypeError, match=r"^nets is 3 \(of type int\); expected a list\.$"):
        checks.entries(3, "nets", "a list")
    assert checks.shown("a" * 200) == "an object of type str"
