"""Numerical ranks against those that theory predicts, and against exact elimination on integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import oracle
import problems
import pytest
from looped import each

import hesskern as hk
from hesskern.curvature.cross_block import CrossBlock

ARCHITECTURES = [
    ([25, 5, 10, 10], 40),  # the published example: 150, 175, 250
    ([3, 4], 9),
    ([5, 3], 2),
    ([4, 1, 4], 9),
    ([4, 2, 5], 9),
    ([4, 9, 5], 9),
    ([4, 20, 5], 9),
    ([6, 10, 3], 4),  # fewer samples than inputs
    ([6, 3, 3], 1),
    ([1, 7, 1], 5),
    ([7, 1, 1], 9),
    ([1, 1, 8], 9),
    ([5, 4, 3, 2], 9),
    ([2, 3, 4, 5], 9),
    ([5, 2, 7, 5], 9),
    ([5, 7, 2, 5], 3),
    ([3, 12, 12, 3], 9),
    ([3, 5, 1, 5, 3], 9),
    ([4, 4, 4, 4, 4], 9),
    ([6, 5, 4, 3, 2], 9),
    ([2, 8, 3, 8, 2], 9),
    ([3, 2, 2, 2, 3], 2),
    ([3, 3, 3, 3, 3, 3], 9),
    ([4, 3, 2, 3, 4, 5], 9),
    ([2, 4, 6, 4, 3, 2], 9),
    ([1, 2, 3, 3, 2, 1], 4),
]


@each("seed", range(3), quick=1)
@pytest.mark.parametrize(("widths", "samples"), ARCHITECTURES)
def test_the_ranks_predicted(backend, widths, samples, seed):
    problem = problems.normal(widths, samples, seed)
    H = problem.loss().hessian(problem.network())
    predicted = hk.predicted_rank(widths, samples)
    assert predicted == (H.gauss_newton().rank(), H.functional().rank(), H.rank())
    for operator, rank in zip((H.gauss_newton(), H.functional(), H), predicted, strict=True):
        condition = operator.condition()
        assert condition.rank == rank
        assert condition.size == H.shape[0]
        # Beyond doubt, not by luck.
        assert condition.gap > 1e3


def test_the_published_numbers():
    assert hk.predicted_rank([25, 5, 10, 10], 100) == (150, 175, 250)
    found = hk.predicted_rank([25, 5, 10, 10], 100)
    assert (found.gauss_newton, found.functional, found.full) == (150, 175, 250)
    assert hk.predicted_rank([4, 3], 2) == (6, 0, 6)
    assert hk.predicted_rank((np.int64(4), 3), np.int32(2)) == (6, 0, 6)


@pytest.mark.parametrize(
    ("widths", "samples", "error", "message"),
    [
        ([5], 3, ValueError, r"widths is \(5,\); expected at least two numbers"),
        ([], 3, ValueError, r"widths is \(\); expected at least two numbers"),
        ([5, 0, 2], 3, ValueError, r"widths\[1\] is 0; expected at least 1"),
        ([5, 2.0], 3, TypeError, r"widths\[1\] is 2\.0 .*expected an integer"),
        ([5, 2], 0, ValueError, "N is 0; expected at least 1"),
        ([5, 2], 3.5, TypeError, r"N is 3\.5 .*expected an integer"),
    ],
)
def test_bad_architectures_are_named(widths, samples, error, message):
    with pytest.raises(error, match=message):
        hk.predicted_rank(widths, samples)


def elimination(matrix):
    """The rank of a matrix of integers (or of floats that are few binary digits), without rounding."""
    rows = [[Fraction(value) for value in row] for row in np.asarray(matrix).tolist()]
    rank = 0
    for column in range(len(rows[0])):
        pivot = next((k for k in range(rank, len(rows)) if rows[k][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for k in range(rank + 1, len(rows)):
            if rows[k][column]:
                factor = rows[k][column] / rows[rank][column]
                rows[k] = [a - factor * b for a, b in zip(rows[k], rows[rank], strict=True)]
        rank += 1
    return rank


@each("seed", range(0, 120, 2), quick=20)
@pytest.mark.quick_in_cpp
def test_ranks_of_integer_networks_are_exact(backend, seed):
    """Small integers make weights and data that are singular for every reason there is."""
    problem = problems.small(seed)
    if problem.kind == "mean":
        problem = problems.Problem(problem.weights, problem.biases, problem.X, problem.Y, "sum", problem.weight_decay)
    truth = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    H = problem.loss().hessian(problem.network())
    b = np.random.default_rng(seed).standard_normal(H.shape[0])
    operators = [(H, truth.hessian)]
    for row, rows in enumerate(truth.layers):
        for column, columns in enumerate(truth.layers):
            operators.append((H.block(row, column), truth.hessian[rows, columns]))
    for operator, dense in operators:
        rank = elimination(dense)
        assert operator.rank() == rank
        if isinstance(operator, CrossBlock):
            continue
        if rank < len(dense):
            with pytest.raises(np.linalg.LinAlgError, match=f"rank {rank} of {len(dense)} "):
                operator.solve(b[: len(dense)])
        else:
            operator.solve(b[: len(dense)])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@each(
    ("widths", "bias"),
    [(widths, bias) for widths in ([5, 30, 4], [4, 6, 3], [4, 3, 5, 2], [3, 5, 4, 5, 3]) for bias in (False, True)],
    quick=3,
)
@pytest.mark.quick_in_cpp
def test_interpolation(backend, widths, bias, scale):
    """The residual is rounding errors: the functional part is zero, and H has the rank of its Gauss-Newton part."""
    if bias:  # the constant input is not scaled, and a matrix of condition 1e24 has no rank in float64
        scale **= 0.25
    for seed in range(4):
        problem = problems.normal(widths, 20, seed, bias=bias)
        net = problem.network()
        X = scale * problem.X
        exactly = X.astype(np.longdouble)
        for weight, shift in zip(net.weights, net.biases, strict=True):
            exactly = exactly @ weight.T.astype(np.longdouble) + (0 if shift is None else shift)
        Y = exactly.astype(np.float64)  # rounded otherwise than the network rounds
        H = hk.SquaredLoss(X, Y).hessian(net)
        assert H.functional().rank() == 0
        assert np.isnan(H.functional().cond())
        assert H.rank() == H.gauss_newton().rank()
        if not bias:
            assert H.rank() == hk.predicted_rank(widths, 20).gauss_newton
        # Not by a tolerance that swallows everything: a residual of 1e-7 is seen.
        moved = hk.SquaredLoss(X, Y * (1 + 1e-7 * np.random.default_rng(seed).standard_normal(Y.shape))).hessian(net)
        assert moved.functional().rank() > 0


def test_the_case_after_training():
    """Trained to 1e-20 of the first loss: a residual of 1e-10 of the targets is still there, and not zero."""
    case = hk.datasets.two_layer_case()
    loss = hk.SquaredLoss(case.X, case.Y)
    trained = hk.fit(case.network, loss, lr=case.lr, max_steps=2000, rtol=case.rtol).network
    H = loss.hessian(trained)
    assert H.gauss_newton().rank() == hk.predicted_rank([5, 100, 5], 5).gauss_newton == 25
    assert H.block(1, 1).rank() == 25
    # Along the minima H is flat up to that residual.
    values = np.abs(H.spectrum().values)
    assert H.spectrum().count(1e-8 * values.max()) == 25


@pytest.mark.parametrize("name", ["cpp", "numba", "numpy"])
def test_dependent_integers_are_not_told_from_zero_by_rounding_errors(name):
    """Row 3 is -3 times row 2; the third pivot is a rounding error just above what such errors are expected to be."""
    X = np.array([[0.0, 1, -1], [1, 0, 1], [-3, 0, -3]])
    net = hk.LinearNetwork([np.ones((1, 3))])
    condition = hk.SquaredLoss(X, np.zeros((3, 1)), backend=name).hessian(net).condition()
    assert (condition.rank, condition.undecided) == (2, 1)
    largest = 11 + np.sqrt(91)  # of X.T X, whose eigenvalues solve x (x² - 22 x + 30) = 0
    assert abs(condition.value / (largest**2 / 30) - 1) < 10 * condition.uncertainty < 1e-12
    assert condition.gap > 1e10


@pytest.mark.parametrize("name", ["cpp", "numba", "numpy"])
def test_errors_of_a_vanished_entry_count(name):
    """Row 3 is 4096 times row 1: what is left of row 1 is the error of an entry that vanished, times that of row 2."""
    X = np.array([[-128.0, 192, 192, 0], [-24, 44, 12, 8], [-524288, 786432, 786432, 0]])
    net = hk.LinearNetwork([np.ones((1, 4))])
    condition = hk.SquaredLoss(X, np.zeros((3, 1)), backend=name).hessian(net).condition()
    assert (condition.rank, elimination(X)) == (2, 2)
    assert condition.uncertainty < 1e-10


@each("seed", range(400), quick=40)
def test_integers_never_have_more_rank_than_exactly(seed):
    rng = np.random.default_rng(seed)
    rows, columns, rank = [(3, 3, 2), (7, 6, 5), (6, 6, 2), (9, 4, 3)][seed % 4]
    X = rng.integers(-3, 4, (rows, rank)) @ rng.integers(-3, 4, (rank, columns))
    X *= 2 ** rng.integers(0, 21 if seed % 3 == 0 else 1, (rows, 1))
    exact = elimination(X)
    net = hk.LinearNetwork([np.ones((1, columns))])
    condition = hk.SquaredLoss(X.astype(float), np.zeros((rows, 1))).hessian(net).condition()
    assert condition.rank <= exact <= condition.rank + condition.undecided
    assert condition.uncertainty < 1
