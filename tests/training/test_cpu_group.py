"""Ensembles in main memory: any number of threads gives the same bits."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from ensembles import same_as_alone
from trainings import starts

import hesskern as hk


@pytest.mark.parametrize("count", [1, 2, 33])
def test_any_number_of_threads_gives_the_same_bits(count):
    problem = problems.normal([4, 11, 3], 30, bias=True, weight_decay=0.01)
    nets = starts(problem, count)
    lr = 2e-4 * (1 + np.arange(count))
    lr[count // 2] = 10.0  # one diverges
    record = ("loss", "sharpness", "weights", "condition")
    options = {"lr": lr, "max_steps": 60, "batch_size": 7, "momentum": 0.5, "record": record, "record_every": 5}
    runs = [hk.fit_ensemble(nets, problem.loss(), threads=threads, **options) for threads in (1, 2, 3, None)]
    for other in runs[1:]:
        assert other.steps.tolist() == runs[0].steps.tolist()
        assert other.status.tolist() == runs[0].status.tolist()
        for weight, expected in zip(other.weights, runs[0].weights, strict=True):
            np.testing.assert_array_equal(weight, expected)
        for name, expected in runs[0].history.items():
            np.testing.assert_array_equal(other.history[name], expected, err_msg=name)


def test_large_networks_in_threads():
    """Products that go to BLAS, from two threads at once."""
    problem = problems.normal([150, 200, 120], 160, kind="mean")
    nets = starts(problem, 3, spread=0.01)
    options = {"lr": 0.05, "max_steps": 10, "reduce": "none"}
    one, two = (hk.fit_ensemble(nets, problem.loss(), threads=threads, **options) for threads in (1, 2))
    np.testing.assert_array_equal(one.weights[0], two.weights[0])
    same_as_alone(two, nets, problem.loss(), **options)
