"""What a Hessian was taken of, in words."""

import numpy as np
import pytest

import hesskern as hk
from hesskern.curvature.objective import Objective, setting


def test_a_setting_names_the_network_and_what_was_chosen():
    net = hk.LinearNetwork.random([5, 100, 5], seed=0)
    loss = hk.SquaredLoss(np.ones((2, 5)), np.ones((2, 5)), "mean", 0.1)
    words = setting(loss, net)
    assert words.startswith("in 5-100-5, ") and words.endswith(", dtype=float64")
    assert "kind='mean'" in words and "weight_decay=0.1" in words


def test_a_loss_is_an_objective_and_an_objective_alone_is_nothing():
    assert issubclass(hk.SquaredLoss, Objective)
    with pytest.raises(TypeError, match="abstract"):
        Objective()
