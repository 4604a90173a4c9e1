"""A Hessian with fewer digits: exact where every number has few, and off by as much as a type of that format is."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

from hesskern.explanation.given.formats import FORMATS
from hesskern.explanation.given.orders import tensors
from hesskern.explanation.search.low_precision import Nearest, Scattered, columns
from hesskern.network.parameters import select

FLOAT32 = FORMATS[0]


def hessian(problem, rounding, format_=FLOAT32, **options):
    net = problem.network()
    count = net.num_parameters
    return columns(format_, rounding, net, problem.loss(), tensors(net, select(net, None)), np.arange(count), **options)


@pytest.mark.parametrize("seed", [1, 2, 4, 7])
def test_small_integers_have_no_rounding_errors(seed):
    problem = problems.deep_integers(seed)
    exact = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y).hessian
    floats = problems.Problem(
        [w.astype(float) for w in problem.weights], [b if b is None else b.astype(float) for b in problem.biases],
        problem.X.astype(float), problem.Y.astype(float),
    )  # fmt: skip
    np.testing.assert_array_equal(hessian(floats, Nearest()), exact)


def test_errors_are_as_large_as_those_of_float32():
    problem = problems.normal([3, 5, 2], 12, bias=True)
    theta = oracle.flatten(problem.weights, problem.biases)
    exact = oracle.hessian(theta, problem)
    narrow = problems.Problem(
        [w.astype("f4") for w in problem.weights], [b.astype("f4") for b in problem.biases], problem.X.astype("f4"),
        problem.Y.astype("f4"),
    )  # fmt: skip
    real = np.linalg.norm(oracle.hessian(theta.astype("f4"), narrow) - exact)
    for rounding in (Nearest(), Scattered(0), Scattered(1)):
        assert 0.2 * real < np.linalg.norm(hessian(problem, rounding) - exact) < 5.0 * real
    assert not np.array_equal(hessian(problem, Scattered(0)), hessian(problem, Scattered(1)))


def test_the_gauss_newton_part_alone():
    problem = problems.normal([3, 4, 2], 6)
    interpolated = problems.Problem(
        problem.weights,
        problem.biases,
        problem.X,
        oracle.forward(problem.weights, problem.biases, problem.X).astype(float),
    )
    wanted = oracle.hessian(oracle.flatten(problem.weights, problem.biases), interpolated)
    found = hessian(problem, Nearest(), gauss_newton=True)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
