"""What is recorded between the steps of networks on a GPU, against the same in main memory."""

from __future__ import annotations

import numpy as np
import problems
import pytest

import hesskern as hk

pytest.importorskip("torch")

from device_place import moved
from device_runs import both_ensembles, ensemble, there

from hesskern._base import devices
from hesskern.backends.cuda import batched_curvature
from hesskern.training import recorder

pytestmark = pytest.mark.usefixtures("place")


def test_sharpness_by_lanczos(monkeypatch):
    nets, loss = ensemble(4, widths=(6, 9, 5))
    options = {"lr": 0.002, "max_steps": 9, "record": ("sharpness",), "record_every": 4}
    both_ensembles(nets, loss, **options)
    monkeypatch.setattr(batched_curvature, "_CHUNK_BYTES", 1)  # one network after another
    both_ensembles(nets, loss, **options)
    monkeypatch.setattr(batched_curvature, "_SMALL", 8)  # several starts
    both_ensembles(nets, loss, **options)
    monkeypatch.setattr(batched_curvature, "_STARTS", 1)  # one is not enough
    both_ensembles(nets, loss, **options)
    moved_nets, lost = there(nets, loss)
    monkeypatch.setattr(batched_curvature, "_DENSE", 8)
    assert np.isnan(hk.fit_ensemble(moved_nets, lost, **options).history["sharpness"]).all()


def test_conditions_that_only_the_cpu_can_tell():
    """Graded inputs: the singular values of a product that is formed are wrong in the first digits."""
    nets, loss = ensemble(2, widths=(4, 6, 3))
    X = loss.X * np.array([1e12, 1e4, 1.0, 1e-6])
    graded = hk.SquaredLoss(X, loss.Y)
    options = dict(lr=1e-30, max_steps=1, record=("condition[1.weight]", "condition[0]", "condition", "rank[0.bias]"))
    both_ensembles(nets, graded, **options)
    both_ensembles(nets, hk.SquaredLoss(loss.X, loss.Y, weight_decay=0.1), **options)
    bottleneck = [hk.LinearNetwork.random([4, 2, 5, 3], seed=seed) for seed in (1, 2)]
    options["record"] = ("condition[0]", "condition[1]", "condition[2]", "rank[2]", "smallest[1]")
    both_ensembles(bottleneck, hk.SquaredLoss(loss.X, loss.Y), **options)


@pytest.mark.parametrize("widths", [(3, 4, 2), (6, 8, 5)], ids=str)
def test_sharpness_beyond_what_can_be_squared(widths):
    """Scaled by powers of two the problem has the same sharpness, scaled."""
    problem = problems.normal(list(widths), 9)
    found = []
    for scale in (0, 490, -400):
        loss = hk.SquaredLoss(np.ldexp(problem.X, scale), np.ldexp(problem.Y, scale))
        net, there = moved(problem.network(), loss)
        run = hk.fit(net, there, lr=1e-3 * 2.0 ** (-2 * scale), max_steps=3, record=("sharpness",))
        found.append(np.ldexp(run.history["sharpness"], -2 * scale))
    assert np.isfinite(found[0]).all()
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_a_new_quantity_is_one_entry_of_the_table(monkeypatch):
    entry = recorder.Quantity(
        "first weight", "a norm", between=lambda networks: devices.matrix_norm(networks.layers().weights[0])
    )
    monkeypatch.setitem(recorder.QUANTITIES, entry.name, entry)
    nets, loss = ensemble(3)
    runs = both_ensembles(nets, loss, lr=0.002, max_steps=5, record=("first weight", "loss"), record_every=2)
    assert runs.history["first weight"].shape == (3, 3)
