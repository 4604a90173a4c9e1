"""Condition numbers of the full Hessian and its parts against fifty digits, and what is said beside them."""

from __future__ import annotations

import dataclasses
import math

import mpmath
import numpy as np
import oracle
import problems
import pytest
import witness
from looped import each

import hesskern as hk


def exact_eigenvalues(matrix):
    """Eigenvalues of a matrix of exact numbers, in fifty digits; those that are zero come out as 1e-40."""
    with mpmath.workdps(50):
        return sorted(mpmath.eigsy(mpmath.matrix(np.asarray(matrix).tolist()), eigvals_only=True), key=abs)


def check(condition, dense, negative=None):
    values = exact_eigenvalues(dense)
    with mpmath.workdps(50):
        nonzero = [value for value in values if abs(value) > abs(values[-1]) * mpmath.mpf(10) ** -35]
        assert condition.rank == len(nonzero)
        assert condition.size == len(values)
        assert condition.negative == sum(value < 0 for value in nonzero)
        if not nonzero:
            assert math.isnan(condition.value)
            return
        assert condition.largest == pytest.approx(float(abs(nonzero[-1])), rel=1e-13)
        smallest = float(abs(nonzero[0]))
        assert abs(condition.smallest / smallest - 1) <= condition.uncertainty
        error = oracle.relative_error(condition.value, abs(nonzero[-1] / nonzero[0]))
    assert error <= condition.uncertainty
    assert condition.uncertainty <= 1e-13 * condition.value + 1e-13
    assert condition.value == condition.largest / condition.smallest == float(condition)


#: Fifty digits take too long for the larger ones.
SMALL = [seed for seed in range(80) if problems.deep_integers(seed).network().num_parameters <= 26]


@each("seed", SMALL, quick=8)
def test_integers_against_fifty_digits(backend, seed):
    problem = problems.deep_integers(seed)
    kind = "sum" if problem.kind == "mean" else problem.kind  # whose factor has no exact float
    problem = dataclasses.replace(problem, kind=kind)
    truth = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, kind, problem.weight_decay).hessian
    bare = dataclasses.replace(problem, weight_decay=0.0)
    H = problem.loss().hessian(problem.network())
    check(H.condition(), truth)
    assert H.cond() == H.condition().value or math.isnan(H.cond())
    assert H.rank() == H.condition().rank
    if problem.weight_decay == 0:
        G = witness.exact_gauss_newton(bare)
        check(H.gauss_newton().condition(), G)
        check(H.functional().condition(), truth - G)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("decades", [0, 3, 6, 9])
def test_gauss_newton_keeps_the_digits_that_its_matrix_loses(backend, decades, depth):
    """Graded data: the condition number is the square of that of the Jacobian, whose singular values are used."""
    rng = np.random.default_rng(decades)
    X = np.linalg.qr(rng.standard_normal((6, 3)))[0] * 10.0 ** -np.linspace(0, decades, 3)
    widths = [3, 3, 2] if depth == 2 else [3, 2, 3, 2]
    weights = [rng.standard_normal((o, i)) for i, o in zip(widths[:-1], widths[1:], strict=True)]
    problem = problems.Problem(weights, [None] * depth, X, np.zeros((6, 2)))
    condition = problem.loss().hessian(problem.network()).gauss_newton().condition()
    with mpmath.workdps(60):
        maps = [mpmath.matrix(X.tolist())]
        for weight in weights:
            maps.append(maps[-1] * mpmath.matrix(weight.T.tolist()))
        gram = mpmath.zeros(12)  # J J.T = Σ_l B_l B_l.T ⊗ Z_l Z_l.T
        above = mpmath.eye(2)
        for layer in reversed(range(depth)):
            outer, inner = above * above.T, maps[layer] * maps[layer].T
            for p in range(2):
                for q in range(2):
                    for a in range(6):
                        for b in range(6):
                            gram[6 * p + a, 6 * q + b] += outer[p, q] * inner[a, b]
            above = above * mpmath.matrix(weights[layer].tolist())
        values = sorted(mpmath.eigsy(gram, eigvals_only=True), reverse=True)
        nonzero = [value for value in values if value > values[0] * mpmath.mpf(10) ** -40]
        error = oracle.relative_error(condition.value, nonzero[0] / nonzero[-1])
    assert condition.rank == len(nonzero)
    assert error <= min(condition.uncertainty, 1e-12)
    assert condition.uncertainty <= 1e-13 * math.sqrt(
        condition.value
    )  # the squares of singular values, not eigenvalues
    if decades == 9:
        assert condition.value > 1e16  # eigvalsh of the matrix would see rounding errors


def test_an_indefinite_hessian_says_so(backend):
    problem = problems.normal([4, 6, 3], 9)
    condition = problem.loss().hessian(problem.network()).condition()
    values = np.linalg.eigvalsh(witness.autograd(problem)[0])
    assert condition.negative == np.sum(values < -1e-9)
    assert condition.negative > 0
    assert f"indefinite: {condition.negative} negative eigenvalues" in condition.note
    assert "indefinite" in str(condition)
    assert problem.loss().hessian(problem.network()).gauss_newton().condition().negative == 0


def test_negative_eigenvalues_of_a_wide_network_are_counted_with_their_copies(backend):
    problem = problems.normal([3, 40, 2], 9)
    H = problem.loss().hessian(problem.network())
    values = np.linalg.eigvalsh(H.toarray())
    condition = H.condition()
    assert condition.negative == np.sum(values < -1e-12 * values[-1]) >= 2 * 35
    assert condition.rank == np.sum(np.abs(values) > 1e-12 * values[-1])


def test_a_rank_deficient_hessian_says_so(backend):
    problem = problems.normal([4, 2, 3], 2)
    condition = problem.loss().hessian(problem.network()).condition()
    rank = hk.predicted_rank([4, 2, 3], 2).full
    assert rank < 14
    assert f"{14 - rank} of 14 eigenvalues are zero and left out" in condition.note
    assert (condition.rank, condition.undecided, condition.gap) == (rank, 0, math.inf)
    assert f"(rank {rank} of 14," in str(condition)


def test_a_rank_deficiency_of_the_numbers_says_so(backend):
    """Two inputs are the same: the shapes leave their difference open, the numbers do not."""
    problem = problems.normal([4, 2, 3], 9)
    problem.X[:, 3] = problem.X[:, 0]
    condition = problem.loss().hessian(problem.network()).condition()
    rank = hk.predicted_rank([4, 2, 3], 3).full
    assert condition.rank == rank
    assert 0 < condition.undecided <= 14 - rank
    words = (
        f"{condition.undecided} of 14 eigenvalues cannot be told from zero at this precision (known only to be below "
    )
    assert words in condition.note
    assert condition.below == pytest.approx(condition.smallest / condition.gap)


def test_nothing_to_say_about_a_good_one(backend):
    problem = problems.normal([3, 2], 9)
    condition = problem.loss().hessian(problem.network()).condition()
    assert condition.note == ""
    assert condition.gap == math.inf
    assert str(condition) == f"{condition.value:.10g} (rank 6 of 6, relative uncertainty {condition.uncertainty:.1e})"


@pytest.mark.parametrize("entry", [0.0, 1.0])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_zero_matrix_is_undefined(backend, depth, entry):
    net = hk.LinearNetwork([np.zeros((3, 3))] * depth)
    H = hk.SquaredLoss(np.full((5, 3), entry), np.zeros((5, 3))).hessian(net)
    for operator in (H.functional(), *([H, H.gauss_newton()] if depth > 1 else [])):
        assert not operator.toarray().any()
        condition = operator.condition()
        assert math.isnan(condition.value)
        assert math.isnan(operator.cond())
        assert math.isnan(condition.uncertainty)
        assert (condition.largest, condition.smallest, condition.rank) == (0.0, 0.0, 0)
        assert condition.size == operator.shape[0]
        assert operator.rank() == 0
        assert condition.note == "the matrix is zero: its condition number is undefined"
        assert str(condition).startswith("undefined")
        spectrum = operator.spectrum()
        assert (spectrum.size, spectrum.max, spectrum.min) == (operator.shape[0], 0.0, 0.0)
        values, vectors = operator.eigh()
        assert not values.any()
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-14)
        with pytest.raises(np.linalg.LinAlgError, match=f"rank 0 of {len(values)}"):
            operator.solve(np.ones(len(values)))
        assert not operator.solve(np.ones(len(values)), rcond=0.0).any()
        assert operator.logdet(damping=2.0) == pytest.approx(len(values) * math.log(2))


def test_weight_decay_makes_it_regular(backend):
    problem = problems.normal([3, 2], 2, weight_decay=0.5)  # two samples, three inputs
    condition = problem.loss().hessian(problem.network()).condition()
    assert condition.rank == condition.size == 6
    assert condition.smallest == 0.5
    deep = problems.normal([3, 1, 2], 2, weight_decay=100.0)
    H = deep.loss().hessian(deep.network())
    assert H.condition().negative == 0
    assert H.rank() == H.shape[0] == 5
    values = np.linalg.eigvalsh(witness.autograd(deep)[0])
    assert H.cond() == pytest.approx(values[-1] / values[0], rel=1e-12)


def by_differences(weights, X, Y):
    """The Hessian of half the sum of squares, by differences of a hundred digits."""
    shapes = [weight.shape for weight in weights]
    theta = [mpmath.mpf(float(entry)) for weight in weights for entry in weight.ravel()]
    step = mpmath.mpf(10) ** -70

    def value(*moved):
        numbers = list(theta)
        for at, sign in moved:
            numbers[at] += sign * step
        numbers, hidden = iter(numbers), mpmath.matrix(X.T.tolist())
        for rows, columns in shapes:
            hidden = mpmath.matrix([[next(numbers) for _ in range(columns)] for _ in range(rows)]) * hidden
        residual = hidden - mpmath.matrix(Y.T.tolist())
        return mpmath.fsum(entry**2 for entry in residual) / 2

    found = mpmath.matrix(len(theta), len(theta))
    for i in range(len(theta)):
        for j in range(i + 1):
            four = [a * b * value((i, a), (j, b)) for a in (1, -1) for b in (1, -1)]
            found[i, j] = found[j, i] = mpmath.fsum(four) / (4 * step**2)
    return found


@pytest.mark.parametrize("layers", [2, 3])
def test_eigenvalues_below_the_rounding_errors_are_not_called_zero(backend, layers):
    """Features graded over thirty decades: what LAPACK cannot see is said to be unseen, and how large it may be."""
    rng = np.random.default_rng(layers)
    X = rng.integers(-4, 5, (4, 2)) * 10.0 ** np.array([0.0, -15.0])
    widths = [2] * layers + [1]
    weights = [rng.integers(1, 4, (o, i)).astype(float) for i, o in zip(widths[:-1], widths[1:], strict=True)]
    loss, net = hk.SquaredLoss(X, np.ones((4, 1))), hk.LinearNetwork(weights)
    condition = loss.hessian(net).condition()
    with mpmath.workdps(300):
        truth = by_differences(weights, X, np.ones((4, 1)))
        exact = sorted((abs(value) for value in mpmath.eigsy(truth, eigvals_only=True)), reverse=True)
        nonzero = [value for value in exact if value > exact[0] * mpmath.mpf(10) ** -100]
    assert condition.rank < len(nonzero) <= condition.rank + condition.undecided
    assert nonzero[condition.rank] <= condition.below
    assert condition.gap <= nonzero[condition.rank - 1] / nonzero[condition.rank] * (1 + condition.uncertainty)
    assert f"{condition.undecided} of {condition.size} eigenvalues cannot be told from zero" in condition.note
    assert condition.size - condition.rank - condition.undecided <= condition.size - len(nonzero)
