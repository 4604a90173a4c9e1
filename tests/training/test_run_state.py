"""States of networks as arrays with one row for each, and back; arrays that no run wrote are refused."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.backends.protocol import State
from hesskern.training import run_state


def state(number, vectors=0):
    rng = np.random.default_rng(number)
    return State(
        4, -1.0, rng.standard_normal(3), rng.standard_normal(3), np.empty(0), np.array([0.5]), np.array([0.25]), 2,
        rng.standard_normal((vectors, 3)), 3, 0.125, 0.0625,
    )  # fmt: skip


def same(found, wanted):
    for name in State._fields:
        one, other = getattr(found, name), getattr(wanted, name)
        np.testing.assert_array_equal(one, other, err_msg=name)
        assert type(one) is type(other), name


def test_states_come_back():
    states = [state(0, 2), state(1, 0), state(2, 1)]
    arrays = run_state.stacked(states)
    assert all(len(array) == 3 for array in arrays.values())
    assert arrays["state.search"].shape == (3, 2, 3)
    for index, wanted in enumerate(states):
        same(run_state.single(arrays, index), wanted)


def test_arrays_that_differ_in_length_are_filled_up():
    found = run_state.padded([np.array([1, 2]), np.array([3])], np.nan)
    np.testing.assert_array_equal(found, [[1.0, 2.0], [3.0, np.nan]])
    equal = run_state.padded([np.array([1, 2]), np.array([3, 4])], np.nan)
    assert equal.dtype.kind == "i"


def run(**changes):
    """What a run of two networks has after four steps, with its losses."""
    arrays = run_state.stacked([state(0), state(1)]) | {
        "status": np.array(["", ""]), "seen": np.array([4, 4]), "history.loss": np.ones((2, 4)),
    }  # fmt: skip
    return arrays | changes


def test_a_run_is_a_run():
    run_state.check(run(), run(), 1, {})
    late = run(seen=np.array([5, 4]), status=np.array(["diverged", ""]), **{"history.loss": np.ones((2, 5))})
    run_state.check(late, run(), 1, {})  # the step whose loss was not finite is undone


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"more": np.ones(2)}, r"other arrays than such a run writes \(more\)"),
        ({"seen": np.array([4.0, 4.0])}, "seen has shape"),
        ({"status": np.array(["", "ended"])}, "status or seen holds what no run has"),
        ({"seen": np.array([3, 4]), "history.loss": np.ones((2, 4))}, "the numbers of steps do not fit each other"),
        ({"history.loss": np.ones((2, 3))}, "history.loss has shape"),
        ({"state.parameters": np.ones((2, 4))}, "state.parameters has shape"),
        ({"state.previous": np.full((2, 3), np.nan)}, "previous holds NaN or infinities"),
        ({"state.search_count": np.array([0, 1])}, "search_count does not fit search"),
    ],
)
def test_what_no_run_wrote(changes, words):
    with pytest.raises(ValueError, match=words):
        run_state.check(run(**changes), run(), 1, {})
