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


def of(states, **changes):
    """The state of a run of these networks after four steps, with their losses."""
    count = len(states)
    whole = {"status": np.full(count, ""), "seen": np.full(count, 4), "history": {"loss": np.ones((count, 4))}}
    return run_state.RunState(run_state.stacked(states), **(whole | changes))


def test_states_come_back():
    states = [state(0, 2), state(1, 0), state(2, 1)]
    whole = of(states)
    assert whole.descents["search"].shape == (3, 2, 3)
    again = run_state.read(whole.arrays(), whole, 1, {})
    for index, wanted in enumerate(states):
        same(again.descent(index), wanted)
    assert again.step == 4


def test_what_a_backend_does_not_keep_has_its_default():
    kept = {name: np.asarray(getattr(state(0), name))[None] for name in ("steps", "target", "parameters", "previous")}
    columns = run_state.completed(kept | {"velocity": np.empty((1, 0))}, 1)
    one = run_state.RunState(columns, np.array([""]), np.array([4]), {}).descent(0)
    assert (one.growth_step, one.search_step, one.search_rest) == (-1, -1, 0.0)
    assert one.search.size == one.growth.size == 0
    assert one.steps == 4


def run(**changes):
    """What a run of two networks writes after four steps, with its losses."""
    return of([state(0), state(1)]).arrays() | changes


def read(arrays):
    return run_state.read(arrays, of([state(0), state(1)]), 1, {})


def test_a_run_is_a_run():
    assert read(run()).step == 4
    late = run(seen=np.array([5, 4]), status=np.array(["diverged", ""]), **{"history.loss": np.ones((2, 5))})
    assert read(late).step == 4  # the step whose loss was not finite is undone


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"more": np.ones(2)}, r"other arrays than such a run writes \(more\)"),
        ({"seen": np.array([4.0, 4.0])}, "seen has shape"),
        ({"status": np.array(["", "ended"])}, "status or seen holds values that no run has"),
        ({"seen": np.array([3, 4]), "history.loss": np.ones((2, 4))}, "the numbers of steps do not fit each other"),
        ({"history.loss": np.ones((2, 3))}, "history.loss has shape"),
        ({"state.parameters": np.ones((2, 4))}, "state.parameters has shape"),
        ({"state.previous": np.full((2, 3), np.nan)}, "previous holds NaN or infinities"),
        ({"state.search_count": np.array([0, 1])}, "search_count does not fit search"),
    ],
)
def test_what_no_run_wrote(changes, words):
    with pytest.raises(ValueError, match=words):
        read(run(**changes))
