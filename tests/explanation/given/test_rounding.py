"""A bound on the rounding error of a Hessian: above what another order of operations gives, and not far above."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from looped import each

from hesskern.explanation.given.rounding import bound

EPSILON = float(np.finfo(np.float32).eps)


@each("seed", problems.GENERAL[::3])
def test_float32_arithmetic_stays_within(seed):
    problem = problems.general(seed)
    narrow = problems.Problem(
        [w.astype("f4") for w in problem.weights], [b if b is None else b.astype("f4") for b in problem.biases],
        problem.X.astype("f4"), problem.Y.astype("f4"),
    )  # fmt: skip
    theta = oracle.flatten(narrow.weights, narrow.biases)
    exact = problems.Problem(
        [w.astype(float) for w in narrow.weights], [b if b is None else b.astype(float) for b in narrow.biases],
        narrow.X.astype(float), narrow.Y.astype(float),
    )  # fmt: skip
    error = np.linalg.norm(oracle.hessian(theta, narrow) - oracle.hessian(theta.astype(float), exact))
    limit = bound(exact.weights, exact.biases, exact.X, exact.Y, 1.0, EPSILON)
    assert error <= limit <= 1e-2 * np.linalg.norm(oracle.hessian(theta.astype(float), exact)) * len(theta)


def test_it_scales_with_the_loss_and_the_unit():
    problem = problems.normal([3, 4, 2], 6)
    arguments = problem.weights, problem.biases, problem.X, problem.Y
    assert bound(*arguments, 2.0, EPSILON) == pytest.approx(2.0 * bound(*arguments, 1.0, EPSILON))
    assert bound(*arguments, 1.0, EPSILON) == pytest.approx(2.0 * bound(*arguments, 1.0, EPSILON / 2))
