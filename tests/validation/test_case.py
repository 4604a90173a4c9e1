"""What is validated: where each parameter stands, and which samples each step sees."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

import hesskern as hk

pytest.importorskip("torch")
from hesskern.validation.case import Training, ValidationCase


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_numbers_are_the_networks_in_float64(dtype):
    problem = problems.normal([3, 4, 2], 6, bias=True, kind="mean", weight_decay=0.25)
    given = ValidationCase("one", problem.network(dtype), problem.loss(dtype))
    assert given.unit == {"float32": 2.0**-24, "float64": 2.0**-53}[dtype]
    assert (given.size, given.samples, given.work) == (26, 6, 6 * 20)
    assert given.theta.dtype == given.X.dtype == np.float64
    np.testing.assert_array_equal(given.theta, problem.network(dtype).flatten())
    np.testing.assert_array_equal(given.theta, oracle.flatten(given.weights, given.biases))
    assert str(given) == f"3-4-2, biases, N = 6, mean, weight decay 0.25, {dtype}"


def test_where_parameters_stand():
    net = hk.LinearNetwork([np.zeros((2, 3)), np.zeros((1, 2))], [np.zeros(2), None])
    given = ValidationCase("", net, hk.SquaredLoss(np.zeros((1, 3)), np.zeros((1, 1))))
    assert given.names == {"0.weight": slice(0, 6), "0.bias": slice(6, 8), "1.weight": slice(8, 10)}
    assert given.layers == [slice(0, 8), slice(8, 10)]
    assert [given.parameter(k) for k in (0, 5, 7, 9)] == [
        "0.weight[0,0]",
        "0.weight[1,2]",
        "0.bias[1]",
        "1.weight[0,1]",
    ]


@pytest.mark.parametrize(("size", "steps"), [(None, 3), (3, 7), (7, 2), (2, 1)])
def test_minibatches_are_those_of_the_oracle(size, steps):
    found = list(Training("", 0.1, steps, batch_size=size, seed=5).batches(7))
    wanted = [rows for rows, _ in zip(oracle.batches(7, size, seed=5), range(steps), strict=False)]
    assert len(found) == steps
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(np.arange(7)[one], other)


def test_another_loss_of_the_same_data():
    problem = problems.normal([3, 2], 6)
    other = ValidationCase("p", problem.network(), problem.loss()).with_loss("sum", 0.5)
    assert (other.name, other.kind, other.decay) == ("p", "sum", 0.5)
    np.testing.assert_array_equal(other.X, problem.X)
