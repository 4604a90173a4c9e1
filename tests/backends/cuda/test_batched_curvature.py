"""The largest eigenvalues of many networks at once."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk

pytest.importorskip("torch")
from device_place import moved

pytestmark = pytest.mark.usefixtures("place")


def test_the_largest_eigenvalue_of_a_cluster():
    """One layer's Hessian is that of its inputs: here eigenvalues as close as wanted to the largest."""
    count = 40
    for values in (
        1 - np.linspace(0, 1, count) ** 4,
        1 - 10.0 ** -np.arange(count),
        1 - 1e-6 * np.linspace(0, 1, count),
    ):
        X = np.diag(np.sqrt(values))
        net, loss = hk.LinearNetwork([np.ones((8, count))]), hk.SquaredLoss(X, np.ones((count, 8)))
        moved_net, lost = moved(net, loss)
        found = hk.fit(moved_net, lost, lr=1e-9, max_steps=1, record=("sharpness",)).history["sharpness"]
        assert found[0] == pytest.approx(values.max(), abs=1e-10)
