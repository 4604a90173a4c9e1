"""Eigenvectors in full coordinates: residual, orthogonality, and the operator that stands for them."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import problems
import pytest
from looped import each, few_quick
from scipy.sparse.linalg import LinearOperator
from witness import relative

import hesskern as hk

WHICH = ("LA", "SA", "LM", "SM")


def operators(problem, dtype="float64"):
    H = problem.loss(dtype).hessian(problem.network(dtype))
    return [H, H.gauss_newton(), H.functional(), H.block(0, 0)]


def check_pairs(operator, values, vectors, norm=None):
    """Residual and orthogonality to 1e-12 of the norm (default: that of the operator itself)."""
    if norm is None:
        norm = max(abs(operator.spectrum().max), abs(operator.spectrum().min))
    residual = operator @ vectors - vectors * values
    assert np.linalg.norm(residual, axis=0).max(initial=0.0) <= 1e-12 * norm
    assert np.abs(vectors.T @ vectors - np.eye(len(values))).max() <= 1e-12


@each("seed", problems.GENERAL, quick=15)
def test_all_eigenvectors(backend, seed):
    problem = problems.general(seed)
    for operator in operators(problem):
        values, vectors = operator.eigh()
        assert vectors.shape == operator.shape
        assert (np.diff(values) >= 0).all()
        np.testing.assert_allclose(values, operator.eigvalsh(), rtol=0, atol=1e-12 * np.abs(values).max(initial=0.0))
        check_pairs(operator, values, vectors)


@each("seed", problems.GENERAL[::2], quick=8)
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.quick_in_cpp
def test_the_ones_asked_for(backend, which, seed):
    problem = problems.general(seed)
    for operator in operators(problem):
        size = operator.shape[0]
        every = np.linalg.eigvalsh(operator.toarray())
        norm = np.abs(every).max(initial=0.0)
        for k in sorted({1, min(3, size), size}):
            order = every if which in ("LA", "SA") else every[np.argsort(np.abs(every), kind="stable")]
            expected = order[-k:] if which in ("LA", "LM") else order[:k]
            values, vectors = operator.eigh(k, which)
            assert vectors.shape == (size, k)
            assert (np.diff(values) >= 0).all()
            check_pairs(operator, values, vectors)
            if which in ("LM", "SM"):  # +v and -v are equally large
                values, expected = np.sort(np.abs(values)), np.sort(np.abs(expected))
            np.testing.assert_allclose(values, np.sort(expected), rtol=0, atol=1e-12 * norm)


@each("seed", problems.GENERAL, quick=12)
def test_eigenvectors_as_an_operator(backend, seed):
    problem = problems.general(seed)
    rng = np.random.default_rng(seed)
    for operator in operators(problem):
        k = min(4, operator.shape[0])
        for which in WHICH:
            values, dense = operator.eigh(k, which)
            again, lazy = operator.eigh(k, which, dense=False)
            assert isinstance(lazy, LinearOperator)
            assert lazy.shape == dense.shape
            np.testing.assert_array_equal(again, values)
            np.testing.assert_array_equal(lazy.toarray(), dense)
            c, V = rng.standard_normal(k), rng.standard_normal((len(dense), 2))
            relative(lazy @ c, dense @ c, 1e-13)
            relative(lazy @ np.diag(c), dense * c, 1e-13)
            np.testing.assert_allclose(lazy.T @ V, dense.T @ V, rtol=0, atol=1e-12)
            np.testing.assert_allclose(lazy.H @ V[:, 0], dense.T @ V[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("widths", [[4, 2000, 3], [3, 300, 2, 250, 3], [2, 20, 300, 2]])
@pytest.mark.quick_in_cpp
def test_lifted_from_reduced_layers(backend, widths, bias):
    """Far too large for a dense eigenproblem."""
    problem = problems.normal(widths, 30, bias=bias, weight_decay=0.5)
    H = problem.loss().hessian(problem.network())
    for operator in (H, H.gauss_newton(), H.functional()):
        for which in WHICH:
            check_pairs(operator, *operator.eigh(5, which))
    # One from the middle of a repeated eigenvalue, all of it at once.
    spectrum = H.spectrum()
    k = int(spectrum.multiplicities[spectrum.values > 0.5][-1:].sum()) + 3
    check_pairs(H, *H.eigh(min(k, 300), "LA"))


def test_the_basis_is_the_identity_in_other_coordinates(backend):
    problem = problems.normal([3, 14, 3, 11, 2], 9, bias=True)
    H = problem.loss().hessian(problem.network())
    values, vectors = H.eigh()
    relative(vectors @ vectors.T, np.eye(len(values)), 1e-12)
    relative((vectors * values) @ vectors.T, H.toarray(), 1e-12)


def saddle():
    """All weights zero: ±σ thirty times each, and nothing to reduce."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((60, 15)), rng.standard_normal((60, 15)), [np.zeros((30, 15)), np.zeros((15, 30))]


def whitened():
    """Sums of squares of singular values, many zeros."""
    rng = np.random.default_rng(1)
    X = np.linalg.qr(rng.standard_normal((60, 15)))[0]
    weights = [rng.standard_normal((30, 15)), rng.standard_normal((15, 30)) / 5]
    return X, X @ (weights[1] @ weights[0]).T, weights


def identities():
    rng = np.random.default_rng(2)
    X = np.linalg.qr(rng.standard_normal((60, 17)))[0]
    return X, 2 * X, [np.eye(17)] * 3


def single():
    """One layer, I ⊗ X.T X: each eigenvalue twenty times."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((60, 50)), rng.standard_normal((60, 20)), [rng.standard_normal((20, 50))]


def generic():
    rng = np.random.default_rng(4)
    weights = [rng.standard_normal(shape) / 4 for shape in [(20, 10), (20, 20), (10, 20)]]
    return rng.standard_normal((60, 10)), rng.standard_normal((60, 10)), weights


@pytest.mark.parametrize("made", few_quick([single, generic, saddle, whitened, identities], 1))
@pytest.mark.quick_in_cpp
def test_a_few_of_a_thousand(backend, made):
    """With every copy of those that repeat, of which an iteration from one vector may see one only."""
    X, Y, weights = made()
    H = hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork(weights))
    assert H.shape[0] >= 800
    last = H.block(len(weights) - 1, len(weights) - 1)
    norm = np.abs(np.linalg.eigvalsh(H.toarray())).max()  # beside which a functional part may be rounding errors
    for operator in (H, H.gauss_newton(), H.functional(), last):
        every = np.linalg.eigvalsh(operator.toarray())
        for k, which in product((1, 5, 16), ("LA", "SA", "LM")):
            values, vectors = operator.eigh(k, which)
            check_pairs(operator, values, vectors, norm)
            order = every if which != "LM" else every[np.argsort(np.abs(every), kind="stable")]
            expected = order[:k] if which == "SA" else order[-k:]
            if which == "LM":
                values, expected = np.sort(np.abs(values)), np.sort(np.abs(expected))
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12 * norm)


def test_factors_only():
    """The operator of all eigenvectors of a wide network keeps no P x P matrix."""
    problem = problems.normal([4, 2000, 3], 30)
    H = problem.loss().hessian(problem.network())
    P = H.shape[0]
    v = np.random.default_rng(0).standard_normal(P)
    tracemalloc.start()
    try:
        values, vectors = H.eigh(dense=False)
        product = vectors @ (values * (vectors.T @ v))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert vectors.shape == (P, P)
    relative(product, H @ v, 1e-12)
    assert peak < 60 * 8 * P  # the dense matrix: 14000


def test_eigenvectors_of_float32_networks_are_float64(backend):
    problem = problems.normal([4, 30, 3], 9)
    for operator in operators(problem, "float32"):
        values, vectors = operator.eigh(3)
        assert values.dtype == vectors.dtype == np.float64
        check_pairs(operator, values, vectors)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "k is 0; expected at least 1"),
        ((15,), ValueError, "k is 15; expected at most 14, the size of the Hessian"),
        ((2.0,), TypeError, r"k is 2\.0 .*expected an integer"),
        ((2, "BE"), ValueError, "which is 'BE'; expected one of 'LA', 'SA', 'LM', 'SM'"),
        ((2, None), ValueError, "which is None"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    problem = problems.normal([4, 2, 3], 9)
    with pytest.raises(error, match=message):
        problem.loss().hessian(problem.network()).eigh(*arguments)


def test_every_copy_of_a_repeated_eigenvalue_of_a_large_block():
    # Linear regression: each eigenvalue of X.T X once for every output.
    rng = np.random.default_rng(19)
    X = rng.standard_normal((300, 100))
    H = hk.SquaredLoss(X, rng.standard_normal((300, 10))).hessian(hk.LinearNetwork.random([100, 10], seed=0))
    values, vectors = H.eigh(15)
    top = np.linalg.eigvalsh(X.T @ X)[-2:]
    np.testing.assert_allclose(values, np.repeat(top, [5, 10]), rtol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(15), atol=1e-12)
