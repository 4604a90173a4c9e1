"""Descents of the extension called directly: wrong arguments are refused, threads do not disturb each other."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from spoiled import REFUSED, SPOILED, SPOILED_2D, descent, good, job, spoil

from hesskern import _core

BATCHES = {"samples_X": good()["X"], "samples_Y": good()["Y"], "largest_batch": 3}


def batches(steps=2):
    """Return a job of minibatches of two samples."""
    return job(
        steps,
        order=np.arange(2 * steps, dtype=np.int64) % 5,
        ends=np.arange(2, 2 * steps + 1, 2, dtype=np.int64),
        batch_losses=np.zeros(steps),
        gradient_norms=np.zeros(steps),
        sharpness=np.zeros(steps),
    )


def untouched(one):
    """Return whether no step was taken."""
    flat = np.empty(24)
    one.parameters(flat)
    a = good()
    start = [a["weights"][0].ravel(), a["biases"][0], a["weights"][1].ravel()]
    return one.steps == 0 and (flat == np.concatenate(start)).all()


@pytest.mark.parametrize("how", SPOILED)
def test_parameters(how):
    with pytest.raises(REFUSED):
        descent().parameters(spoil(how, np.zeros(24)))


FIELDS = ["rates", "scales", "order", "ends", "losses", "batch_losses", "gradient_norms", "sharpness"]


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("field", FIELDS)
def test_fields_of_a_job(field, how):
    one, some = descent(**BATCHES, sharpness=True), batches()
    at = FIELDS.index(field)
    if (field in FIELDS[5:] and how == "None") or (field in ("order", "ends") and how == "integers"):
        pytest.skip("means something for this field")
    if field == "order" and how in ("one row more", "broadcast"):
        pytest.skip("more samples than are asked for")
    some[at] = spoil(how, some[at])
    if field == "order" and how == "reversed":
        assert not some[at].flags.c_contiguous
    with pytest.raises(REFUSED):
        _core.advance([one], [some], 1)
    assert untouched(one)


@pytest.mark.parametrize(
    ("order", "ends", "named"),
    [
        ([0, 1, 2, 5], [2, 4], "order"),  # sample 5 of five
        ([0, 1, 2, -1], [2, 4], "order"),
        ([0, 1, 2, 2**62], [2, 4], "order"),
        ([0, 1, 2], [2, 4], "ends"),  # too few
        ([0, 1, 2, 3], [2, 2], "ends"),  # an empty batch
        ([0, 1, 2, 3], [0, 4], "ends"),
        ([0, 1, 2, 3], [3, 1], "ends"),
        ([0, 1, 2, 3], [-1, 2], "ends"),
        ([0, 1, 2, 3, 4, 0], [4, 6], "ends"),  # larger than the largest
        ([0, 1, 2, 3], [2, 2**62], "ends"),
    ],
)
def test_batches_that_are_none(order, ends, named):
    one, some = descent(**BATCHES), batches()
    some[2:4] = np.array(order), np.array(ends)
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        _core.advance([one], [some], 1)
    assert untouched(one)


@pytest.mark.parametrize("jobs", [None, 3, [], [None], [[]], [job(2)[:7]], [[*job(2), None]], [job(2), job(2)], "job"])
def test_jobs_that_are_none(jobs):
    one = descent()
    with pytest.raises(REFUSED):
        _core.advance([one], jobs, 1)
    assert untouched(one)
    assert _core.advance([one], [job(2)], 1) == [("running", 2)]


@pytest.mark.parametrize("descents", [None, 3, [None], ["descent"], [object()]])
def test_descents_that_are_none(descents):
    with pytest.raises(REFUSED):
        _core.advance(descents, [job(2)], 1)


@pytest.mark.parametrize("threads", [None, "two", 1.5, 2**70])
def test_numbers_of_threads(threads):
    with pytest.raises(REFUSED):
        _core.advance([descent()], [job(2)], threads)


def test_a_descent_without_steps():
    one = descent()
    assert _core.advance([one], [job(0)], 1) == [("running", 0)]
    assert _core.advance([], [], 4) == []
    assert untouched(one)


@pytest.mark.parametrize("how", SPOILED_2D)
@pytest.mark.parametrize("field", ["samples_X", "samples_Y"])
def test_samples(field, how):
    changes = BATCHES | {field: spoil(how, BATCHES[field])}
    with pytest.raises(REFUSED):
        descent(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"every": 0},
        {"every": -1},
        {"largest_batch": -1},
        {"leak_layers": [0]},
        {"leak_layers": [2]},
        {"leak_layers": [-1]},
        {"leak_layers": None},
        {"every": 2**70},
        {"scale": "one"},
        {"momentum": None},
    ],
    ids=str,
)
def test_options(changes):
    with pytest.raises(REFUSED):
        descent(**changes)


def test_states():
    """What was saved is taken back; anything spoiled is refused, and changes nothing."""
    options = {"momentum": 0.5, "leak_layers": [1], "sharpness": True}
    one = descent(**options)
    _core.advance([one], [job(3, sharpness=np.empty(3))], 1)
    saved = one.save()
    other = descent(**options)
    for field, value in saved.items():
        with pytest.raises((KeyError, *REFUSED)):
            other.restore({name: array for name, array in saved.items() if name != field})
        if not isinstance(value, np.ndarray):
            for spoiled in (None, "one", [1], np.ones(2), *((1.5, 2**70) if isinstance(value, int) else ())):
                with pytest.raises(REFUSED):
                    other.restore(saved | {field: spoiled})
            continue
        for how in SPOILED:
            if how == "reversed" and value.size == 0:
                continue
            spoiled = spoil(how, value) if value.ndim == 1 else SPOILED[how](value)
            if isinstance(spoiled, np.ndarray) and spoiled.dtype == value.dtype and spoiled.shape == value.shape:
                if spoiled.flags.c_contiguous:
                    continue
            elif field == "search" and how in ("one row less", "one row more", "empty"):
                continue  # any number of vectors that there is room for
            with pytest.raises(REFUSED):
                other.restore(saved | {field: spoiled})
    with pytest.raises(REFUSED):
        other.restore(saved | {"search": np.zeros((1000, 24))})
    with pytest.raises(REFUSED):
        other.restore(saved | {"steps": -1})
    assert untouched(other)
    other.restore(saved)
    losses = [job(4, sharpness=np.empty(4)) for _ in range(2)]
    assert _core.advance([one, other], losses, 2) == [("running", 4)] * 2
    np.testing.assert_array_equal(losses[0][4], losses[1][4])
    np.testing.assert_array_equal(losses[0][7], losses[1][7])


def slow(**changes):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((60, 40)) / 8, rng.standard_normal((30, 60)) / 8]
    X, Y = rng.standard_normal((50, 40)), rng.standard_normal((50, 30))
    return descent(weights=weights, biases=[None, None], X=X, Y=Y, **changes)


def test_two_threads_cannot_run_one_descent():
    one = slow()
    steps = 16
    while True:  # long enough for the second thread to find it running, whatever the machine
        some = job(steps, rate=1e-4)
        began = time.perf_counter()
        _core.advance([one], [some], 1)
        if time.perf_counter() - began > 0.2:
            break
        steps *= 2
    taken = one.steps
    some = job(steps, rate=1e-4)
    worker = threading.Thread(target=_core.advance, args=([one], [some], 1))
    worker.start()
    time.sleep(0.02)
    with pytest.raises(RuntimeError, match="already running in another thread"):
        _core.advance([one], [job(1)], 1)
    worker.join()
    assert one.steps == taken + steps  # the refused call took none
    assert np.isfinite(some[4]).all()
    assert _core.advance([one], [job(1, rate=1e-4)], 1) == [("running", 1)]  # and the descent is free again


def test_a_descent_given_twice():
    one, other = descent(), descent()
    with pytest.raises(RuntimeError, match="given twice"):
        _core.advance([other, one, one], [job(2), job(2), job(2)], 1)
    assert untouched(one)
    assert untouched(other)
    assert _core.advance([other, one], [job(2), job(2)], 1) == [("running", 2)] * 2


def test_threads_with_a_descent_each_run_side_by_side():
    alone = job(200, rate=1e-4)
    _core.advance([slow()], [alone], 1)
    jobs = [job(200, rate=1e-4) for _ in range(4)]
    workers = [threading.Thread(target=_core.advance, args=([slow()], [some], 1)) for some in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for some in jobs:
        np.testing.assert_array_equal(some[4], alone[4])


def test_the_gil_is_released():
    worker = threading.Thread(target=_core.advance, args=([slow()], [job(3000, rate=1e-4)], 1))
    counted = 0
    worker.start()
    while worker.is_alive():
        counted += 1
        time.sleep(0.001)
    assert counted > 3
