"""What the reductions leave: sizes, sentences, predicted ranks."""

from __future__ import annotations

import dataclasses

import numpy as np
import problems
import pytest
from attack.oracle import rank_of_integers
from looped import each

import hesskern as hk
from hesskern.curvature.eigenvalue_errors import EigenvalueErrors
from hesskern.curvature.point import Point
from hesskern.curvature.reduced_problem import ReducedProblem
from hesskern.network.parameters import select


def hessian(widths, samples, *, bias=False, params=None):
    problem = problems.normal(widths, samples, bias=bias)
    return problem.loss().hessian(problem.network(), params)


SENTENCES = [
    ([5, 100, 100, 100, 5], 9, None, "21000 parameters to 2950; 18050 exact zeros"),
    ([300, 10, 2], 20, None, "3020 parameters to 76; 2944 exact zeros"),
    ([784, 100, 10], 50, None, "79400 parameters to 1600; 800 eigenvalues in closed form; 77000 exact zeros"),
    ([5, 100, 5], 5, None, "1000 parameters to 100; 900 eigenvalues in closed form"),
    (
        [3, 3, 3],
        9,
        None,
        "18 parameters, none left out: in general position a Hessian of this shape has full rank",
    ),
    ([3, 4, 2], 9, [1], "8 parameters to two factors of size 2 and 4"),
]


@pytest.mark.parametrize(("widths", "samples", "params", "sentence"), SENTENCES)
def test_the_sentence(widths, samples, params, sentence):
    assert hessian(widths, samples, params=params).reduction == sentence


def test_the_functional_part_of_two_layers_is_in_closed_form():
    F = hessian([64, 56, 10], 100).functional()
    assert F.reduction == "4144 parameters; 1120 eigenvalues in closed form; 3024 exact zeros"
    assert (F.rank(), F.predicted_rank) == (1120, 1120)


def test_the_sentence_about_a_gauss_newton_part_counts_the_rows_of_its_jacobian():
    """Five samples with five outputs leave 25 directions, whatever the widths."""
    G = hessian((5, 20, 20, 5), 40).gauss_newton()
    assert G.reduction == "600 parameters to 25; 575 exact zeros"
    spectrum = G.spectrum()
    assert spectrum.multiplicities[spectrum.values == 0].sum() == 575
    assert G.predicted_rank == 25


@each("seed", range(60), quick=30)
def test_functional_parts_of_two_layers(seed):
    rng = np.random.default_rng([3, seed])
    widths = [int(width) for width in rng.integers(1, 9, 3)]
    problem = problems.normal(widths, int(rng.integers(1, 12)), seed, bias=seed % 2 == 1)
    names = [name for name in problem.network().parameter_names if rng.random() < 0.8] or ["0.weight"]
    F = problem.loss().hessian(problem.network(), names).functional()
    dense = F.toarray()
    expected = np.linalg.eigvalsh(dense)
    size = max(np.abs(expected).max(), 1e-300)
    np.testing.assert_allclose(F.eigvalsh(), expected, rtol=0, atol=1e-13 * size)
    values, vectors = F.eigh()
    assert np.linalg.norm(dense @ vectors - vectors * values, 2) <= 1e-13 * size
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(dense)), atol=1e-12)


@each("seed", range(60), quick=30)
def test_the_predicted_rank_bounds_the_exact_one(seed):
    """Integer networks of few numbers are not in general position: their exact rank is at most the predicted one."""
    problem = dataclasses.replace(problems.deep_integers(seed), weight_decay=0.0)
    H = problem.loss().hessian(problem.network())
    exact = rank_of_integers(np.rint(H.toarray() * (problem.Y.size if problem.kind == "mean" else 1) * 2))
    condition = H.condition()
    assert condition.rank <= exact <= condition.rank + condition.undecided
    assert exact <= H.predicted_rank
    assert condition.size - condition.rank - condition.undecided <= condition.size - exact


@each("seed", range(60), quick=20)
def test_in_general_position_the_rank_is_the_predicted_one(seed):
    rng = np.random.default_rng([11, seed])
    depth = int(rng.integers(1, 6))
    widths = [int(width) for width in rng.integers(1, 9, depth + 1)]
    samples = int(rng.integers(1, 12))
    H = hessian(widths, samples)
    expected = hk.predicted_rank(widths, samples).full
    assert (H.rank(), H.predicted_rank, H.condition().undecided) == (expected, expected, 0)
    part = H.gauss_newton()
    expected = hk.predicted_rank(widths, samples).gauss_newton
    assert (part.rank(), part.predicted_rank, part.condition().undecided) == (expected, expected, 0)


def test_nothing_is_decomposed_for_the_sentence(monkeypatch):
    def forbid(*_):
        raise AssertionError("decomposed")

    problem = problems.normal([5, 20, 20, 5], 9)
    monkeypatch.setattr("hesskern._base.decompositions.eigvalsh", forbid)
    monkeypatch.setattr("hesskern._base.decompositions.eigh", forbid)
    assert problem.loss().hessian(problem.network()).reduction == "600 parameters to 375; 225 exact zeros"


def test_the_order_of_the_reductions():
    """Inputs first: a hidden layer that is not wider than 50 + 10 inputs and outputs is wider than 20 + 10."""
    problem = problems.normal([50, 40, 10], 20)
    net, loss = problem.network(), problem.loss()
    parts = select(net, None)
    point = Point(loss, net)
    reduced = ReducedProblem(point, parts, "full", EigenvalueErrors(point, parts, "full", of_squares=False), lift=False)
    assert reduced.span is not None
    assert [len(weight) for weight in reduced.factors.weights] == [30, 10]
    assert reduced.factors.weights[0].shape[1] == 20


@each("seed", range(30), quick=10)
def test_extremes_are_those_of_the_condition(seed):
    rng = np.random.default_rng([31, seed])
    depth = int(rng.integers(3, 5))
    widths = [int(rng.integers(4, 7)), *[int(width) for width in rng.integers(12, 18, depth - 1)], 5]
    problem = problems.normal(widths, 20, seed, bias=seed % 3 == 1, weight_decay=(0.0, 0.01)[seed % 2])
    H = problem.loss().hessian(problem.network())
    found, condition = H.extremes(), H.condition()
    if condition.undecided or condition.gap < 10:
        assert found is None
        return
    if found is None:
        assert H._problem(lift=False).size < 300 or condition.value > 1e10
        return
    assert found.largest == pytest.approx(condition.largest, rel=1e-11)
    assert found.smallest == pytest.approx(condition.smallest, rel=1e-11 + condition.uncertainty)
    assert found.rank == condition.rank
    assert found.value == pytest.approx(condition.value, rel=1e-11 + condition.uncertainty)


def test_extremes_are_found_and_singular_matrices_refused():
    problem = problems.normal([5, 20, 20, 20, 5], 30)
    assert problem.loss().hessian(problem.network()).extremes() is not None
    problem.X[:, 1] = problem.X[:, 0] * (1 + 1e-13 * problem.X[:, 2])  # too close to a rank of 4 to tell
    assert problem.loss().hessian(problem.network()).extremes() is None
    assert problem.loss().hessian(problem.network(), [1]).extremes() is None
