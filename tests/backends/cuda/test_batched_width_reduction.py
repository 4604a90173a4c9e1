"""Wide hidden layers of many networks, reduced on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk

pytest.importorskip("torch")
from device_runs import agree, both, there

pytestmark = pytest.mark.usefixtures("place")


@pytest.mark.parametrize("bias", [False, True])
def test_unbalanced_units_are_not_mixed(bias):
    """Rows of W_1 times d, columns of W_2 over d: the widths stay, of all networks."""
    rng = np.random.default_rng(0)
    nets = []
    for e in (0, 9):
        d = 10.0 ** rng.uniform(-e, e, 20)
        biases = [rng.standard_normal(20) * d, rng.standard_normal(3)] if bias else None
        nets.append(
            hk.LinearNetwork([rng.standard_normal((20, 3)) * d[:, None], rng.standard_normal((3, 20)) / d], biases)
        )
    loss = hk.SquaredLoss(rng.standard_normal((30, 3)), rng.standard_normal((30, 3)))
    run = both(nets[1], loss, lr=1e-24, max_steps=4)
    assert run.history["loss"][0] == pytest.approx(loss(nets[1]), rel=1e-13)
    moved_nets, lost = there(nets, loss)
    options = {"lr": [1e-4, 1e-24], "max_steps": 4}
    found, wanted = hk.fit_ensemble(moved_nets, lost, **options), hk.fit_ensemble(nets, loss, **options)
    agree(found, wanted)
    for runs in (run, found, wanted):
        assert (runs.reduction.widths, runs.reduction.unbalanced) == (None, 1)
        assert "widths not reduced, because" in str(runs.reduction)
    assert both(nets[0], loss, lr=1e-4, max_steps=4).reduction.unbalanced == 0
