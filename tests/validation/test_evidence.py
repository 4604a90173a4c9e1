"""The witnesses themselves, against the exact oracle of the tests, and the bounds on rounding."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

import hesskern as hk

pytest.importorskip("torch")

from hesskern.validation.autograd import AutogradWitness
from hesskern.validation.case import Training, ValidationCase
from hesskern.validation.differences import DifferenceWitness
from hesskern.validation.rounding import Bounds

WITNESSES = [AutogradWitness, DifferenceWitness]


def weighed(problem):
    return ValidationCase("", problem.network(), problem.loss())


@pytest.mark.parametrize("witness", WITNESSES)
@pytest.mark.parametrize("seed", range(15))
def test_against_the_exact_oracle(witness, seed):
    problem = problems.deep_integers(seed)
    truth = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    given = weighed(problem)
    found, bounds = witness(given), Bounds(given, 2.0**-53, rotated=False)
    assert abs(found.loss() - truth.loss) <= bounds.loss(truth.loss)
    assert np.linalg.norm(found.gradient() - truth.gradient) <= bounds.whole_gradient.error
    assert np.linalg.norm(found.hessian() - truth.hessian) <= bounds.whole("block").error
    v = np.random.default_rng(seed).standard_normal(given.size)
    product = found.product(v)
    assert np.linalg.norm(product - truth.hessian @ v) <= bounds.product(bounds.whole("block")) * np.linalg.norm(v)
    pushed = found.gauss_newton_product(v)
    limit = bounds.product(bounds.whole("gauss_newton")) * np.linalg.norm(v)
    assert np.linalg.norm(pushed - found.gauss_newton() @ v) <= limit
    for layer, where in enumerate(given.layers):  # the Gauss-Newton part is the Hessian within a layer, without decay
        block = truth.hessian[where, where] - problem.weight_decay * np.eye(where.stop - where.start)
        assert np.linalg.norm(found.gauss_newton()[where, where] - block) <= bounds.block(layer, layer).error


@pytest.mark.parametrize("witness", WITNESSES)
@pytest.mark.parametrize("kind", problems.KINDS)
def test_training_against_the_oracle(witness, kind):
    problem = problems.normal([3, 4, 2], 7, bias=True, kind=kind, weight_decay=0.1)
    for how in (
        Training("", 0.002, 5, decay=0.1),
        Training("", 0.002, 5, momentum=0.9, decay=0.1),
        Training("", 0.002, 5, momentum=0.9, nesterov=True, decay=0.1),
        Training("", 0.002, 5, batch_size=3, decay=0.1, momentum=0.5),
    ):
        truth = oracle.train(
            problem, how.lr, how.steps, momentum=how.momentum, nesterov=how.nesterov, batch_size=how.batch_size,
            seed=how.seed,
        )  # fmt: skip
        found = witness(weighed(problem)).train(how)
        np.testing.assert_allclose(found.thetas, truth.thetas, rtol=0, atol=1e-13)
        np.testing.assert_allclose(found.losses, truth.losses[:-1], rtol=1e-12)


def test_eigenvectors_solutions_and_condition_numbers_have_a_third_witness():
    given = problems.normal([3, 5, 2], 7)
    report = hk.validate(given.network(), given.loss(), backends=["cpp"])
    rows = {row.quantity: row for row in report.rows}
    for quantity in ("V diag(values) V.T", "solve(b, damping)", "condition and rank of H"):
        row = rows[quantity]
        assert row.third == "differences" and row.ok
        assert row.third_error <= row.third_tolerance < 1e-6
        assert row.witnesses <= row.witnesses_tolerance < 1e-6
