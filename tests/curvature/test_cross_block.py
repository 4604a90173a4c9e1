"""Blocks of the Hessian: Kronecker operators on the diagonal, rectangles beside it."""

from __future__ import annotations

import math

import numpy as np
import problems
import pytest
from looped import each
from scipy.sparse.linalg import LinearOperator
from witness import relative

import hesskern as hk
from hesskern.curvature.cross_block import CrossBlock

DEEP = [seed for seed in range(300) if seed % 5]  # depth 2 and more


def hessian(seed, dtype="float64"):
    problem = problems.general(seed)
    return problem, problem.loss(dtype).hessian(problem.network(dtype))


@each("seed", DEEP[::3], quick=16)
@pytest.mark.quick_in_cpp
def test_cross_blocks_multiply_as_their_dense_matrices(backend, seed):
    problem, H = hessian(seed)
    rng = np.random.default_rng(seed)
    last = len(problem.weights) - 1
    for row, column in {(0, last), (last, 0), (last - 1, last), (min(1, last), 0)} - {(0, 0)}:
        for block in (H.block(row, column), H.gauss_newton().block(row, column), H.functional().block(row, column)):
            if row == column:
                continue
            dense = block.toarray()
            V, U = rng.standard_normal((dense.shape[1], 3)), rng.standard_normal((dense.shape[0], 2))
            size = np.abs(dense).sum()
            for found, expected in [
                (block @ V, dense @ V),
                (block @ V[:, 0], dense @ V[:, 0]),
                (block.T @ U, dense.T @ U),
                (block.H @ U[:, 0], dense.T @ U[:, 0]),
                (block.rmatvec(U[:, 0]), dense.T @ U[:, 0]),
                (block.rmatmat(U), dense.T @ U),
                (block @ (V + 1j * V[::-1]), dense @ (V + 1j * V[::-1])),
                (block @ np.asfortranarray(V)[:, ::2], dense @ V[:, ::2]),
                (block.T.T @ V, dense @ V),
            ]:
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * size)
            np.testing.assert_array_equal(block.T.toarray(), dense.T)
            np.testing.assert_array_equal(block.diagonal(), np.diagonal(dense))
            assert block.trace() == pytest.approx(np.trace(dense), rel=1e-12, abs=1e-13 * size)


@each("seed", DEEP[::4])
def test_cross_blocks_have_singular_values(backend, seed):
    problem, H = hessian(seed)
    last = len(problem.weights) - 1
    block = H.block(last, 0)
    values = np.linalg.svd(block.toarray(), compute_uv=False)
    relative(block.svdvals(), values)
    relative(block.T.svdvals(), values)
    condition = block.condition()
    kept = values[values > 1e-12 * values[0]]
    assert condition.rank == block.rank() == len(kept)
    assert condition.size == min(block.shape)
    assert condition.largest == pytest.approx(values[0], rel=1e-12)
    assert condition.value == block.cond() == pytest.approx(kept[0] / kept[-1], rel=1e-11 * kept[0] / kept[-1])


def test_dtypes_of_cross_blocks(backend, dtype):
    problem = problems.normal([4, 5, 3], 9, bias=True)
    H = problem.loss(dtype).hessian(problem.network(dtype))
    block = H.block(0, 1)
    v = np.random.default_rng(0).standard_normal(block.shape[1])
    assert isinstance(block, LinearOperator)
    assert isinstance(block, CrossBlock)
    assert block.toarray().dtype == block.dtype == np.dtype(dtype)
    for given in (np.float32, np.float64, np.complex64, np.complex128, int):
        result = block @ v.astype(given)
        assert result.dtype == np.result_type(given, dtype)
        relative(result, block.toarray().astype(float) @ v.astype(given), 1e-5 if "32" in dtype else 1e-6)
    with pytest.raises(ValueError, match=r"^v has shape \(17,\); expected \(18,\) or"):
        block @ v[:-1]


@pytest.mark.parametrize("method", ["spectrum", "eigvalsh", "eigh", "solve", "logdet"])
def test_a_rectangle_has_no_eigenvalues(method):
    problem = problems.normal([4, 5, 3], 9)
    block = problem.loss().hessian(problem.network()).block(1, 0)
    arguments = [np.ones(15)] if method == "solve" else []
    with pytest.raises(ValueError, match=r"block of layers 1 and 0 has shape \(15, 20\) and is not symmetric.*svdvals"):
        getattr(block, method)(*arguments)


def test_a_cross_block_that_is_zero(backend):
    """Nothing passes a dead layer: layers 0 and 1 of three touch each other through the third only."""
    weights = [np.ones((2, 3)), np.ones((4, 2)), np.zeros((2, 4))]
    H = hk.SquaredLoss(np.ones((5, 3)), np.ones((5, 2))).hessian(hk.LinearNetwork(weights))
    block = H.block(0, 1)
    assert not block.toarray().any()
    condition = block.condition()
    assert condition.rank == 0
    assert np.isnan(condition.value)
    assert "zero" in condition.note
    assert H.block(1, 2).toarray().any()  # the residual passes there


def test_a_cross_block_that_cancels_is_known_to_no_digit(backend):
    """Between a weight and a bias above, features are summed up: of centred ones rounding errors are left."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((1000, 3))
    weights = [rng.standard_normal((4, 3)), rng.standard_normal((2, 4))]
    net = hk.LinearNetwork(weights, [None, np.zeros(2)])
    for moved in (0.0, 1e-9, 1.0):
        features = X - X.mean(axis=0) + moved
        H = hk.SquaredLoss(features, rng.standard_normal((1000, 2))).hessian(net, params=["0.weight", "1.bias"])
        sums = np.array([math.fsum(column) for column in features.T])
        values = np.linalg.svd(np.kron(weights[1].T, sums[:, None]), compute_uv=False)
        condition = H.block(0, 1).condition()
        assert condition.rank == (2 if moved else 0)
        assert condition.rank + condition.undecided == 2
        if condition.rank:
            assert condition.largest == pytest.approx(values[0], rel=10 * condition.uncertainty)
            assert condition.uncertainty < 1e-2
        else:
            assert "cannot be told from zero" in condition.note
            assert values[0] < condition.below < 1e-9


def test_a_cross_block_that_underflows_is_not_called_zero(backend):
    for k in (1.0, 2.0**-530, 1e-170):
        X = k * np.diag([3.0, 1.0])
        net = hk.LinearNetwork([2.0**-6 * np.diag([1.0, 0.7]), 2.0**-6 * np.diag([1.0, 0.3])])
        condition = hk.SquaredLoss(X, np.zeros((2, 2)), "half_sum").hessian(net).block(0, 1).gauss_newton().condition()
        if k == 1:
            assert condition.value == pytest.approx(3 / 0.07, rel=1e-12)
        else:
            assert condition.rank == 0 and condition.undecided == 4
            assert "cannot be told from zero" in condition.note


def test_the_condition_of_a_cross_block_has_the_errors_of_float32():
    problem = problems.normal([4, 5, 3], 30, bias=True)
    single = problem.loss("float32").hessian(problem.network("float32")).block(0, 1).condition()
    double = problem.loss().hessian(problem.network()).block(0, 1).condition()
    assert single.rank == double.rank == double.size
    assert abs(single.value / double.value - 1) < single.uncertainty < 1e-2
    assert double.uncertainty < 1e-10


def test_blocks_of_a_selection_and_of_parts(backend):
    problem = problems.normal([4, 5, 6, 3], 9, bias=True, weight_decay=0.25)
    loss, net = problem.loss(), problem.network()
    full = loss.hessian(net).toarray()
    names = list(net.parameter_names)
    sizes = [20, 5, 30, 6, 18, 3]
    start = dict(zip(names, np.cumsum([0, *sizes]), strict=False))
    H = loss.hessian(net, ["0.bias", "2.weight", "2.bias"])

    def at(*chosen):
        return np.concatenate([np.arange(start[n], start[n] + sizes[names.index(n)]) for n in chosen])

    first, second = at("0.bias"), at("2.weight", "2.bias")
    relative(H.block(0, 0).toarray(), full[np.ix_(first, first)])
    relative(H.block(0, 2).toarray(), full[np.ix_(first, second)])
    relative(H.block(2, 0) @ np.eye(5), full[np.ix_(second, first)])
    # Weight decay belongs to the whole, not to its parts.
    relative(H.gauss_newton().block(2, 2).toarray(), full[np.ix_(second, second)] - 0.25 * np.eye(21))
    assert not H.functional().block(2, 2).toarray().any()
    assert H.functional().block(2, 2).rank() == 0
    with pytest.raises(ValueError, match=r"column is layer 1; this Hessian is over the layers \[0, 2\]"):
        H.block(0, 1)


@pytest.mark.parametrize(
    ("row", "column", "error", "message"),
    [
        (2, 0, ValueError, r"row is layer 2; this Hessian is over the layers \[0, 1\]"),
        (0, -1, ValueError, "column is -1; expected at least 0"),
        (0, 1.0, TypeError, r"column is 1\.0 .*expected an integer"),
        ("0.weight", 0, TypeError, r"row is '0\.weight' .*expected an integer"),
    ],
)
def test_bad_blocks_are_named(row, column, error, message):
    problem = problems.normal([4, 5, 3], 9)
    with pytest.raises(error, match=message):
        problem.loss().hessian(problem.network()).block(row, column)


def test_repr_says_what_it_is():
    problem = problems.normal([4, 5, 3], 9)
    H = problem.loss().hessian(problem.network())
    assert "20x15 Hessian block of layers 0 and 1" in repr(H.block(0, 1))
    assert "35x35 Hessian of layers 0, 1" in repr(H)
    assert "35x35 Gauss-Newton part" in repr(H.gauss_newton())
    assert "35x35 functional part" in repr(H.functional())
