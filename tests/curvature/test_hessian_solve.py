"""Linear systems and determinants of the full Hessian, its parts and its blocks."""

from __future__ import annotations

import mpmath
import numpy as np
import oracle
import problems
import pytest
from looped import each
from witness import dense, relative

import hesskern as hk


def operators(problem):
    """Return operators, each with its dense matrix as the oracle has it."""
    H = problem.loss().hessian(problem.network())
    truth = dense(problem)
    slices = oracle.layer_slices(problem.weights, problem.biases)
    pairs = [(H, truth["full"]), (H.gauss_newton(), truth["gauss_newton"]), (H.functional(), truth["functional"])]
    for layer in (0, len(slices) - 1):
        pairs.append((H.block(layer, layer), truth["full"][slices[layer], slices[layer]]))
    return pairs


def size_of(matrix):
    return float(np.abs(np.linalg.eigvalsh(matrix)).max())


@each("seed", problems.GENERAL, quick=16)
@pytest.mark.quick_in_cpp
def test_damped_systems(backend, seed):
    problem = problems.general(seed)
    rng = np.random.default_rng(seed)
    for operator, matrix in operators(problem):
        damping = 2 * size_of(matrix) + 0.5
        shifted = matrix + damping * np.eye(len(matrix))
        B = rng.standard_normal((len(matrix), 3))
        relative(operator.solve(B, damping=damping), np.linalg.solve(shifted, B))
        x = operator.solve(B[:, 0], damping=damping)
        assert x.shape == (len(matrix),)
        relative(x, np.linalg.solve(shifted, B[:, 0]))
        assert operator.logdet(damping=damping) == pytest.approx(np.linalg.slogdet(shifted)[1], rel=1e-12, abs=1e-12)


@each("seed", problems.GENERAL, quick=16)
def test_small_damping_is_accurate_to_the_condition_number(backend, seed):
    _, gauss_newton, _, first, _ = operators(problems.general(seed))
    for operator, matrix in (gauss_newton, first):
        damping = 1e-4 * size_of(matrix)
        b = np.random.default_rng(seed).standard_normal(len(matrix))
        x = operator.solve(b, damping=damping)
        residual = matrix @ x + damping * x - b
        assert np.abs(residual).max() <= 1e-14 * size_of(matrix) * np.abs(x).max() * len(b)
        shifted = matrix + damping * np.eye(len(b))
        assert operator.logdet(damping) == pytest.approx(np.linalg.slogdet(shifted)[1], rel=1e-9, abs=1e-9)


@each("seed", problems.GENERAL, quick=16)
def test_undamped_systems_are_solved_or_refused(backend, seed):
    problem = problems.general(seed)
    for operator, matrix in operators(problem):
        size = len(matrix)
        values = np.abs(np.linalg.eigvalsh(matrix))
        rank = int(np.sum(values > 1e-11 * values.max()))
        b = np.random.default_rng(seed).standard_normal(size)
        if rank == size:
            x = operator.solve(b)
            relative(x, np.linalg.solve(matrix, b), 1e-14 * size * values.max() / values.min())
            assert np.abs(matrix @ x - b).max() <= 1e-14 * size * values.max() * np.abs(x).max()
        else:
            with pytest.raises(np.linalg.LinAlgError, match=rf"singular: rank {rank} of {size} .*damping.*rcond"):
                operator.solve(b)
            with pytest.raises(np.linalg.LinAlgError, match=rf"singular: rank {rank} of {size} "):
                operator.logdet()


@each("seed", problems.GENERAL, quick=16)
@pytest.mark.quick_in_cpp
def test_least_norm_solutions(backend, seed):
    problem = problems.general(seed)
    for operator, matrix in operators(problem):
        values = np.abs(np.linalg.eigvalsh(matrix))
        B = np.random.default_rng(seed).standard_normal((len(matrix), 2))
        for rcond in (1e-10, 0.05):
            cut = rcond * values.max()
            if np.any(np.abs(values - cut) < 1e-6 * cut):  # either side is right
                continue
            expected = np.linalg.pinv(matrix, rcond=rcond, hermitian=True) @ B
            kept = values[values > cut].min(initial=values.max())
            spread = values.max() / kept if kept else 1.0
            relative(operator.solve(B, rcond=rcond), expected, 1e-13 * len(matrix) * spread)
        relative(operator.solve(B[:, 0], rcond=0.05), np.linalg.lstsq(matrix, B[:, 0], rcond=0.05)[0], 1e-10)


def test_rcond_zero_never_gives_entries_of_1e15(backend):
    problem = problems.normal([5, 4, 3], 3)  # few samples: half of everything is flat
    for operator, matrix in operators(problem):
        b = np.ones(operator.shape[0])
        x = operator.solve(b, rcond=0.0)
        relative(x, np.linalg.pinv(matrix, rcond=1e-12, hermitian=True) @ b, 1e-9)
        assert np.abs(x).max() < 1e6


def test_damping_and_rcond_together(backend):
    problem = problems.normal([4, 6, 3], 9, bias=True, weight_decay=0.25)
    H = problem.loss().hessian(problem.network())
    shifted = dense(problem)["full"] + 0.75 * np.eye(H.shape[0])
    b = np.random.default_rng(0).standard_normal(len(shifted))
    relative(H.solve(b, 0.75, rcond=0.1), np.linalg.pinv(shifted, rcond=0.1, hermitian=True) @ b, 1e-11)


@pytest.mark.parametrize(("widths", "bias"), [([5, 3000, 4], False), ([3, 900, 4, 700, 2], True)])
def test_systems_too_large_to_be_dense(backend, widths, bias):
    """27000 and 7600 parameters, through the reductions."""
    problem = problems.normal(widths, 40, bias=bias, weight_decay=0.125)
    H = problem.loss().hessian(problem.network())
    damping = 1.0 - H.spectrum().min
    B = np.random.default_rng(0).standard_normal((H.shape[0], 2))
    X = H.solve(B, damping=damping)
    relative(H @ X + damping * X, B, 1e-12 * (H.spectrum().max + damping))
    values = H.spectrum().values + damping
    assert H.logdet(damping) == pytest.approx(np.log(values) @ H.spectrum().multiplicities, rel=1e-12)


def test_determinants_of_indefinite_matrices_are_refused(backend):
    problem = problems.normal([4, 6, 3], 9, weight_decay=0.25)
    H = problem.loss().hessian(problem.network())
    matrix = dense(problem)["full"]
    values = np.linalg.eigvalsh(matrix)
    negative = int(np.sum(values < 0))
    assert 0 < negative < len(values)
    expected = rf"{negative} of its 42 eigenvalues are negative, the lowest -.*damping > "
    with pytest.raises(np.linalg.LinAlgError, match=expected) as e:
        H.logdet()
    enough = float(str(e.value).split("damping > ")[1].split(",")[0])
    assert enough == pytest.approx(-values[0], rel=1e-5)
    shifted = matrix + 1.001 * enough * np.eye(len(values))
    assert H.logdet(1.001 * enough) == pytest.approx(np.linalg.slogdet(shifted)[1], rel=1e-9)


def test_ill_conditioned_blocks_against_fifty_digits(backend):
    """The eigenvalues of a block are squares of singular values: they keep digits that the dense matrix has lost."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8, 4)) * [1.0, 1e-3, 1e-5, 1e-6]
    W1, W2 = rng.standard_normal((4, 4)), np.eye(2, 4)
    block = hk.SquaredLoss(X, np.ones((8, 2))).hessian(hk.LinearNetwork([W1, W2]), params=["1.weight"])
    first = hk.SquaredLoss(X, np.ones((8, 2))).hessian(hk.LinearNetwork([W1, np.linalg.qr(W1)[0][:2]]), params=[0])
    with mpmath.workdps(50):
        values = [value for value in oracle.singular_values(X, W1.T)]
        expected = float(2 * sum(2 * mpmath.log(value) for value in values))
    assert block.cond() > 1e11
    assert block.logdet() == pytest.approx(expected, rel=1e-10)
    with pytest.raises(np.linalg.LinAlgError, match="rank 8 of 16"):
        first.logdet()
    b = rng.standard_normal(8)
    with mpmath.workdps(50):
        Z = mpmath.matrix(X.tolist()) * mpmath.matrix(W1.T.tolist())
        exact = [mpmath.lu_solve(Z.T * Z, mpmath.matrix(half.tolist())) for half in (b[:4], b[4:])]
    truth = np.array([float(value) for half in exact for value in half])
    relative(block.solve(b), truth, 1e-9)  # eps * sqrt(cond) instead of eps * cond = 1e-4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((15,),), ValueError, r"b has shape \(15,\); expected \(14,\) or \(14, k\)"),
        (((2, 14),), ValueError, r"b has shape \(2, 14\); expected \(14,\)"),
        (((14, 2, 1),), ValueError, "b has shape"),
        (((14,), -1.0), ValueError, r"damping is -1\.0; expected"),
        (((14,), np.nan), ValueError, "damping is nan; expected a finite number"),
        (((14,), "1"), TypeError, "damping is '1'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    problem = problems.normal([4, 2, 3], 9)
    H = problem.loss().hessian(problem.network())
    with pytest.raises(error, match=message):
        H.solve(np.ones(arguments[0]), *arguments[1:])
    if len(arguments) > 1:
        with pytest.raises(error, match=message):
            H.logdet(*arguments[1:])


def test_bad_right_hand_sides_are_named():
    problem = problems.normal([4, 2, 3], 9)
    H = problem.loss().hessian(problem.network())
    with pytest.raises(TypeError, match="b has dtype complex128"):
        H.solve(np.ones(14, complex), 1.0)
    with pytest.raises(ValueError, match="b holds 1 value that is NaN or infinite"):
        H.solve(np.r_[np.nan, np.ones(13)], 1.0)
    with pytest.raises(ValueError, match=r"rcond is -0\.5; expected"):
        H.solve(np.ones(14), rcond=-0.5)


def test_the_type_of_b_is_kept(backend, dtype):
    problem = problems.normal([4, 2, 3], 9)
    H = problem.loss(dtype).hessian(problem.network(dtype))
    matrix = dense(problem)["full"]
    damping = 2 * size_of(matrix)
    for given in ("float32", "float64"):
        B = np.asfortranarray(np.random.default_rng(0).standard_normal((14, 4)).astype(given))[:, ::2]
        found = H.solve(B, damping=damping)
        assert found.dtype == np.dtype(given)
        expected = np.linalg.solve(matrix + damping * np.eye(14), B.astype(float))
        relative(found, expected, 1e-12 if dtype == given == "float64" else 1e-5)


def test_a_solution_that_does_not_fit_is_refused(backend):
    net = hk.LinearNetwork([np.ones((2, 1), np.float32)])
    H = hk.SquaredLoss(np.full((3, 1), 1e-15, np.float32), np.ones((3, 2), np.float32)).hessian(net)
    with pytest.raises(OverflowError, match="larger than float32 can hold; scale b down, or pass it in float64"):
        H.solve(np.full(2, 1e12, np.float32))
    # 3 * float32(1e-15)**2 is the matrix
    relative(H.solve(np.full(2, 1e12)), np.full(2, 1e12 / (3 * float(np.float32(1e-15)) ** 2)))
