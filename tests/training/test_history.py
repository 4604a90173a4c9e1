"""What was recorded leaves a run as it went in: of one network, of all, and by way of a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk
from hesskern.training.history import Histories, recorded_steps
from hesskern.training.recorder import Records

EVERY = 2
SEEN = np.array([7, 4])


@pytest.fixture
def records():
    net = hk.LinearNetwork.random([3, 4, 2], seed=0)
    return Records(("loss", "balance", "rank[1]"), net, minibatches=False, sharpness_in_loop=True)


@pytest.fixture
def histories(records):
    """Seven steps of two networks, in pieces of three and four; the second network stops after four."""
    found = Histories(records, 2, EVERY)
    losses = np.array([[7.0, 6, 5, 4, 3, 2, 1], [70.0, 60, 50, 40, np.nan, np.nan, np.nan]])
    column = {"rates": np.ones((2, 7)), "losses": losses}
    found.add_steps({name: rows[:, 0:3:2] for name, rows in column.items()})
    found.add_steps({name: rows[:, 4:7:2] for name, rows in column.items()})
    for step in (0, 2, 4, 6):
        nothing = step >= SEEN
        balance = [np.full(1, np.nan if gone else step + k) for k, gone in enumerate(nothing)]
        rank = [np.nan if gone else 8 for gone in nothing]
        found.add_record({"balance": balance, "rank[1]": rank})
    return found


def test_steps_that_are_recorded():
    np.testing.assert_array_equal(recorded_steps(7, 2), [0, 2, 4, 6])
    np.testing.assert_array_equal(recorded_steps(6, 2), [0, 2, 4])
    assert recorded_steps(0, 3).size == 0


def test_of_one_network(histories):
    one = histories.of(1, int(SEEN[1]))
    np.testing.assert_array_equal(one["step"], [0, 2])
    np.testing.assert_array_equal(one["loss"], [70, 50])
    np.testing.assert_array_equal(one["balance"], [[1], [3]])
    assert one["rank[1]"].dtype == np.int64
    np.testing.assert_array_equal(histories.of(0, 7)["loss"], [7, 5, 3, 1])


def test_of_all_networks_is_nan_after_one_has_stopped(histories):
    runs = histories.stacked(SEEN)
    np.testing.assert_array_equal(runs["step"], [0, 2, 4, 6])
    np.testing.assert_array_equal(runs["loss"], [[7, 5, 3, 1], [70, 50, np.nan, np.nan]])
    assert runs["balance"].shape == (2, 4, 1)
    np.testing.assert_array_equal(runs["rank[1]"], [[8, 8, 8, 8], [8, 8, np.nan, np.nan]])


def test_a_checkpoint_brings_it_back(histories, records):
    again = Histories(records, 2, EVERY)
    again.restore(histories.save(SEEN))
    before, after = histories.stacked(SEEN), again.stacked(SEEN)
    assert before.keys() == after.keys()
    for name, column in before.items():
        np.testing.assert_array_equal(after[name], column)
