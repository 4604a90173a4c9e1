"""Ranks, condition numbers and solutions: nothing that the matrix shows clearly counts as zero, rounding noise does."""

from __future__ import annotations

import re

import numpy as np
import problems
import pytest

import hesskern as hk


@pytest.mark.parametrize(("dtype", "width", "depth"), [("float64", 4, 30), ("float64", 6, 12), ("float32", 5, 12)])
@pytest.mark.quick_in_cpp
def test_deep_hessians_are_not_called_zero(dtype, width, depth):
    rng = np.random.default_rng(0)
    net = hk.LinearNetwork.random([width] * (depth + 1), seed=1, dtype=np.dtype(dtype))
    X, Y = (rng.standard_normal((50, width)).astype(dtype) for _ in range(2))
    H = hk.SquaredLoss(X, Y).hessian(net)
    values = np.linalg.eigvalsh(H.toarray().astype(np.float64))
    largest = np.abs(values).max()
    clear = int(np.sum(np.abs(values) > (1e-9 if dtype == "float64" else 1e-3) * largest))
    assert H.rank() >= clear
    b = np.ones(H.shape[0], dtype)
    x = H.solve(b, damping=float(2 * largest))
    A = H.toarray().astype(np.float64) + 2 * largest * np.eye(len(b))
    assert np.linalg.norm(A @ x - b) <= (1e-12 if dtype == "float64" else 1e-4) * np.linalg.norm(b)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_an_interpolating_minimum_has_the_condition_number_of_the_gauss_newton_part(backend, dtype, decay):
    problem = problems.normal([5, 7, 4, 3], 20)
    net = problem.network(dtype)
    X = problem.X.astype(dtype)
    H = hk.SquaredLoss(X, net.forward(X), weight_decay=decay).hessian(net)
    found, true = H.condition(), np.linalg.eigvalsh(H.gauss_newton().toarray().astype(np.float64))
    nonzero = np.sort(true)[-H.gauss_newton().rank() :]
    largest, smallest = nonzero[-1] + decay, decay or nonzero[0]
    assert "rounding noise: this is the condition number of the Gauss-Newton part" in found.note
    assert found.value == pytest.approx(largest / smallest, rel=1e-3 if dtype == "float32" else 1e-9)
    assert found.rank == (H.shape[0] if decay else H.gauss_newton().rank())
    assert found.uncertainty < 1e-3


@pytest.mark.parametrize("damping", [1e-6, 1.33, 1e3])
def test_a_damping_above_what_is_unknown_makes_a_semidefinite_matrix_regular(damping):
    problem = problems.normal([6, 9, 8, 5], 30, seed=3)
    G = problem.loss().hessian(problem.network()).gauss_newton()
    dense = G.toarray() + damping * np.eye(G.shape[0])
    x = G.solve(np.ones(len(dense)), damping=damping)
    assert np.linalg.norm(dense @ x - 1) <= 1e-12 * np.linalg.norm(dense, 2) * np.linalg.norm(x)
    assert G.logdet(damping) == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-6)


def test_a_damping_that_meets_an_eigenvalue_is_named():
    problem = problems.normal([4, 5, 3], 9)
    H = problem.loss().hessian(problem.network())
    lowest = float(H.eigvalsh()[0])
    with pytest.raises(np.linalg.LinAlgError, match=r"takes an eigenvalue -.* to zero; pass damping > ") as caught:
        H.solve(np.ones(H.shape[0]), damping=-lowest)
    enough = float(re.search(r"pass damping > ([-+.e\d]+)", str(caught.value))[1])
    assert enough >= -lowest * (1 - 1e-3)
    H.solve(np.ones(H.shape[0]), damping=2 * enough)


def test_what_to_do_about_the_determinant_of_an_indefinite_matrix_is_said():
    """With an even number of negative eigenvalues it has a real logarithm."""
    problem = problems.normal([4, 5, 3], 9)
    H = problem.loss().hessian(problem.network())
    with pytest.raises(np.linalg.LinAlgError, match=r"not positive definite.*Pass damping > .*log\|det\|") as caught:
        H.logdet(1e-3)
    assert "no real logarithm" not in str(caught.value)
