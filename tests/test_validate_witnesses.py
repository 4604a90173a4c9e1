"""The witnesses themselves, against the exact oracle of the tests, and the bounds on rounding."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

import hesskern as hk

pytest.importorskip("torch")

from hesskern.validation import exact
from hesskern.validation.autograd import AutogradWitness
from hesskern.validation.case import Training, ValidationCase
from hesskern.validation.differences import DifferenceWitness
from hesskern.validation.rounding import Bounds, spread_error

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


def test_the_third_witness_knows_its_own_error():
    """In float64, where it is worst, its errors are within its bounds and the bounds within reason."""
    problem = problems.normal([3, 4, 5, 2], 6, bias=True)
    given = weighed(problem)
    extended, plain = DifferenceWitness(given), DifferenceWitness(given)
    plain._theta, plain._X, plain._Y, plain._steps = (
        array.astype(np.float64) for array in (plain._theta, plain._X, plain._Y, plain._steps)
    )
    plain._half, plain._decay, plain.unit = np.float64(plain._half), np.float64(plain._decay), 2.0**-53
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        pytest.skip("long double is double here")
    v = np.random.default_rng(0).standard_normal(given.size)
    for error, bound, truth in (
        (plain.gradient() - extended.gradient(), plain.gradient_error, extended.gradient()),
        (plain.hessian() - extended.hessian(), plain.curvature_error, extended.hessian()),
        (plain.product(v) - extended.product(v), plain.product_error * np.linalg.norm(v), extended.product(v)),
    ):
        assert np.linalg.norm(error) <= bound <= 1e-7 * np.linalg.norm(truth)


def test_differences_of_a_float32_network_are_those_of_its_numbers():
    problem = problems.normal([3, 4, 2], 6, bias=True)
    given = ValidationCase("", problem.network("float32"), problem.loss("float32"))
    for witness in WITNESSES:
        found = witness(given)
        assert found.gradient().dtype == np.float64
    same = np.linalg.norm(DifferenceWitness(given).hessian() - AutogradWitness(given).hessian())
    assert same <= 1e-13 * np.linalg.norm(DifferenceWitness(given).hessian())
    assert (given.theta == problem.network("float32").flatten()).all()


@pytest.mark.parametrize("shape", [([3, 4, 2], 6), ([5, 3, 4, 2], 8), ([4, 6], 3), ([3, 3, 3], 3)])
def test_exact_condition_numbers_against_mpmath(shape):
    problem = problems.normal(*shape)
    for layer in range(len(problem.weights)):
        value, rank = exact.block_condition(weighed(problem), layer)
        truth, count = oracle.condition(problem.weights, problem.X, layer)
        assert oracle.relative_error(value, truth) < 1e-15 and rank == count


def test_exact_condition_numbers_where_floating_point_fails():
    problem = problems.normal([3, 4, 2], 6)
    X = problem.X * np.array([1e-12, 1.0, 1e9])
    graded = problems.ValidationCase(problem.weights, problem.biases, X, problem.Y)
    value, rank = exact.block_condition(weighed(graded), 0)
    truth, count = oracle.condition(graded.weights, graded.X, 0)
    assert value > 1e30 and oracle.relative_error(value, truth) < 1e-14 and rank == count


def test_exact_ranks_of_integers():
    X = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 1.0, 1.0], [1.0, 3.0, 4.0]])
    problem = problems.ValidationCase([np.ones((2, 3))], [None], X, np.zeros((4, 2)))
    assert exact.block_condition(weighed(problem), 0)[1] == 2 * 2
    nothing = problems.ValidationCase([np.ones((2, 3)), np.zeros((1, 2))], [None, None], X, np.zeros((4, 1)))
    assert exact.block_condition(weighed(nothing), 0)[1] == 0
    biased = problems.ValidationCase([np.ones((2, 3))], [np.zeros(2)], X, np.zeros((4, 2)))
    assert exact.block_condition(weighed(biased), 0)[1] == 2 * np.linalg.matrix_rank(np.column_stack([X, np.ones(4)]))


def test_exact_arithmetic_declines_what_would_take_long():
    assert exact.block_condition(weighed(problems.normal([20, 20], 30)), 0) is None


def test_the_spread_of_rounding():
    assert spread_error(1, 1.0) == 1
    assert spread_error(64, 1.0) == 64
    assert spread_error(6400, 1.0) == 640


def test_torch_is_left_as_it_was():
    import torch

    given = weighed(problems.normal([3, 4, 2], 6))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            witness = AutogradWitness(given)
            assert np.isfinite(witness.hessian()).all()
            witness.train(Training("", 0.01, 2))
            assert torch.is_inference_mode_enabled()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(state, torch.get_rng_state())


def test_a_residual_of_zero_is_no_trap():
    """torch.norm(error) ** 2 has a NaN there."""
    problem = problems.normal([3, 4, 2], 6)
    Y = problem.X @ problem.weights[0].T @ problem.weights[1].T
    given = weighed(problems.ValidationCase(problem.weights, problem.biases, problem.X, Y))
    assert np.isfinite(AutogradWitness(given).hessian()).all()


def test_eigenvectors_solutions_and_condition_numbers_have_a_third_witness():
    given = problems.normal([3, 5, 2], 7)
    report = hk.validate(given.network(), given.loss(), backends=["cpp"])
    rows = {row.quantity: row for row in report.rows}
    for quantity in ("V diag(values) V.T", "solve(b, damping)", "condition and rank of H"):
        row = rows[quantity]
        assert row.third == "differences" and row.ok
        assert row.third_error <= row.third_tolerance < 1e-6
        assert row.witnesses <= row.witnesses_tolerance < 1e-6
