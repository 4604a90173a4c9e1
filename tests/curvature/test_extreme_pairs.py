"""`eigsh` of networks against eigenvalues of a Hessian by autograd: repeated ones, either end, every backend."""

from __future__ import annotations

import dataclasses
import pickle

import mpmath
import numpy as np
import problems
import pytest
from looped import each
from witness import autograd, positions

import hesskern as hk
from hesskern.curvature import extreme_pairs, hessian
from hesskern.curvature.extreme_pairs import FewWanted, of_problem
from hesskern.linalg import extreme_pairs as few

WIDTHS = [[6, 9, 5], [4, 22, 3], [5, 6, 7, 4], [3, 15, 4, 5], [9, 4, 9]]


@pytest.fixture(autouse=True)
def _small_problems_too(monkeypatch):
    """Small enough for autograd, and yet by a Krylov method."""
    for module in (few, hessian):
        monkeypatch.setattr(module, "SMALL", 20)
    monkeypatch.setattr(extreme_pairs, "worthwhile", lambda size, length, k: True)
    monkeypatch.setattr(few, "most_vectors", lambda k, block: 24)
    monkeypatch.setattr("hesskern.linalg.krylov.most_vectors", lambda k, block: 24)


def extreme(values, k, which):
    order = np.argsort(np.abs(values) if which == "LM" else values, kind="stable")
    return np.sort(values[order[:k] if which == "SA" else order[len(order) - k :]])


def check(H, matrix, k, which):
    values = np.linalg.eigvalsh(matrix)
    scale = np.abs(values).max()
    pairs = H.eigsh(k, which)
    assert pairs.certified
    wanted = extreme(values, k, which)
    if which == "LM":
        np.testing.assert_allclose(np.sort(abs(pairs.values)), np.sort(abs(wanted)), rtol=0, atol=1e-12 * scale)
    else:
        np.testing.assert_allclose(pairs.values, wanted, rtol=0, atol=1e-12 * scale)
    vectors = pairs.vectors
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-12)
    assert np.linalg.norm(matrix @ vectors - vectors * pairs.values, axis=0).max() <= 1e-12 * scale
    return pairs


@each("widths", WIDTHS)
@each("which", ["LA", "SA", "LM"])
@each(("bias", "decay"), [(False, 0.0), (True, 0.0), (False, 0.4), (True, 0.4)])
def test_against_autograd(backend, widths, which, bias, decay):
    problem = problems.normal(widths, 11, bias=bias, kind="mean", weight_decay=decay)
    check(problem.loss().hessian(problem.network()), autograd(problem)[0], 3, which)


@each("widths", WIDTHS)
def test_parts_of_the_hessian(backend, widths):
    problem = problems.normal(widths, 30, 1, bias=True)
    full, gauss_newton = autograd(problem)
    H = problem.loss().hessian(problem.network())
    check(H.gauss_newton(), gauss_newton, 2, "LA")
    for names in (["0.weight", "1.weight"], ["0.bias", "1.weight"], ["0.weight", "1.bias"]):
        selected = positions(problem, names)
        H = problem.loss().hessian(problem.network(), names)
        check(H, full[np.ix_(selected, selected)], 2, "LA")


@pytest.mark.parametrize("which", ["LA", "LM", "SA"])
@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_every_copy_of_a_repeated_eigenvalue(backend, which, k):
    """Whitened inputs, identity layers and an interpolating fit: each eigenvalue many times."""
    weights = [np.eye(6), np.eye(6)]
    X = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 6)))[0]
    problem = dataclasses.replace(problems.normal([6, 6, 6], 20), weights=weights, X=X, Y=X.copy())
    matrix = autograd(problem)[0]
    values = np.linalg.eigvalsh(matrix)
    assert np.sum(values > values[-1] - 1e-12) == 36
    check(problem.loss().hessian(problem.network()), matrix, k, which)


def test_eigenvalues_of_left_over_units_join(backend):
    """Of units beyond those that a reduction keeps: their eigenvalues ± σ are as many times as there are such units."""
    problem = problems.normal([4, 17, 3], 9)
    problem = dataclasses.replace(problem, weights=[w * 0.05 for w in problem.weights])
    H, matrix = problem.loss().hessian(problem.network()), autograd(problem)[0]
    assert np.diff(np.linalg.eigvalsh(matrix)[-9:]).min() < 1e-12
    for which in ("LA", "SA", "LM"):
        check(H, matrix, 9, which)


def test_neighbours_closer_than_any_gap(backend):
    X = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 6)))[0]
    problem = problems.normal([6, 6, 6], 20)
    weights = [np.diag(1.0 + 1e-10 * np.arange(6)), np.eye(6)]
    problem = dataclasses.replace(problem, weights=weights, X=X, Y=X @ weights[0].T)
    check(problem.loss().hessian(problem.network()), autograd(problem)[0], 4, "LA")


def test_float32_networks(backend):
    problem = problems.normal([6, 9, 5], 11)
    rounded = dataclasses.replace(
        problem,
        weights=[w.astype("float32").astype(float) for w in problem.weights],
        X=problem.X.astype("float32").astype(float),
        Y=problem.Y.astype("float32").astype(float),
    )
    check(problem.loss("float32").hessian(problem.network("float32")), autograd(rounded)[0], 2, "LA")


def test_the_result_without_dense_vectors_and_pickled():
    problem = problems.normal([4, 22, 3], 11)
    H = problem.loss().hessian(problem.network())
    pairs, lazy = H.eigsh(3), H.eigsh(3, dense=False)
    np.testing.assert_allclose(lazy.vectors.toarray(), pairs.vectors, atol=1e-14)
    np.testing.assert_allclose(lazy.vectors.T @ pairs.vectors, np.eye(3), atol=1e-12)
    assert pairs.residuals.max() < 1e-12 and lazy.residuals.max() < 1e-12
    again = pickle.loads(pickle.dumps(pairs))
    np.testing.assert_array_equal(again.vectors, pairs.vectors)
    assert again.note == pairs.note == "certified by a Cholesky factorisation of 21 rows: no other eigenvalue is larger"
    unsure = H.eigsh(3, certify=False)
    np.testing.assert_allclose(unsure.values, pairs.values, rtol=1e-13)
    assert not unsure.certified and unsure.note == "not certified: nobody asked for it"
    values, dense = H.eigh(3)
    assert dense.shape == (154, 3)
    np.testing.assert_allclose(values, pairs.values, rtol=1e-13)
    assert H.eigh(3, "SM").note == "all 154 eigenvalues were computed"


def test_what_cannot_be_certified_is_computed_in_full_or_said(monkeypatch):
    problem = problems.normal([6, 9, 5], 11)
    H = problem.loss().hessian(problem.network())
    exact = problem.loss().hessian(problem.network()).eigvalsh()[-2:]
    monkeypatch.setattr("hesskern.curvature.shifted.TwoLayers.is_definite", lambda *arguments: False)
    for pairs in (H.eigsh(2), H.eigh(2)):
        assert pairs.certified and pairs.note == "all 99 eigenvalues were computed"
        np.testing.assert_allclose(pairs.values, exact, rtol=1e-13)
    monkeypatch.setattr(few, "_MOST_FACTORISED", 10)
    H = problem.loss().hessian(problem.network())
    assert not H.eigsh(2).certified
    with pytest.warns(UserWarning, match=r"^eigh\(2\) may have missed copies .* 45 rows, more than 10$"):
        np.testing.assert_allclose(H.eigh(2).values, exact, rtol=1e-13)


def test_a_residual_that_is_no_rounding_error_is_noticed(monkeypatch):
    """Of the given network, not of the reduced one: whatever the reductions may lose."""
    problem = problems.normal([4, 22, 3], 11)
    H = problem.loss().hessian(problem.network())
    product = type(H)._apply
    monkeypatch.setattr(type(H), "_apply", lambda self, v: product(self, v) * (1.0 + 1e-9))
    few_pairs = H._few_pairs(2, "LA", sure=True)
    assert few_pairs.certified
    pairs = H._chosen(few_pairs, 2, "LA", dense=True)
    assert not pairs.certified and "a reduction lost digits" in pairs.note
    assert H.eigsh(2).note == H.eigh(2).note == "all 154 eigenvalues were computed"


def test_where_all_eigenvalues_are_cheaper():
    problem = problems.normal([6, 9, 5], 11)
    H = problem.loss().hessian(problem.network())
    for which, mode in (("SM", "full"), ("LA", "functional"), ("SA", "gauss_newton")):
        wanted = FewWanted(H.parts, mode, H._backend, 1, which, 0.0, True)
        assert of_problem(H._problem(lift=True), wanted, H._errors) is None
    assert H.block(0, 0).eigsh(1).note == "all 54 eigenvalues were computed"


def test_arguments():
    H = problems.normal([3, 2], 4).loss().hessian(problems.normal([3, 2], 4).network())
    with pytest.raises(ValueError, match=r"^k is 7; expected at most 6"):
        H.eigsh(7)
    with pytest.raises(ValueError, match=r"^which is 'XX'"):
        H.eigsh(1, "XX")
    with pytest.raises(TypeError, match=r"^certify is"):
        H.eigsh(1, certify="yes")


def test_backends_agree():
    problem = problems.normal([5, 6, 7, 4], 11, bias=True)
    values = []
    for name in ("cpp", "numpy"):
        with hk.use_backend(name):
            values.append(problem.loss().hessian(problem.network()).eigsh(4).values)
    np.testing.assert_allclose(*values, rtol=1e-12)


def test_the_error_of_a_certified_value_has_the_rounding_of_the_factors():
    """A map through the middle layer that cancels: the eigenvalues are known to few digits, and it says so."""
    rng = np.random.default_rng(0)
    u, v = (vector / np.linalg.norm(vector) for vector in rng.standard_normal((2, 12)))
    first, last = rng.standard_normal((12, 10)), rng.standard_normal((8, 12))
    first, last = first - np.outer(v, v @ first), last - np.outer(last @ u, u)
    for size in (1e3, 1e5):
        weights = [first, size * np.outer(u, v) + rng.standard_normal((12, 12)), last]
        X = rng.standard_normal((40, 10))
        net = hk.LinearNetwork(weights)
        Y = X @ weights[0].T @ weights[1].T @ weights[2].T
        H = hk.SquaredLoss(X, Y).hessian(net)
        pairs = H.eigsh(2, "SA")
        with mpmath.workdps(40):
            exact = exact_smallest(weights, X, Y)
        assert pairs.error >= np.abs(pairs.values - exact).max()


def exact_smallest(weights, X, Y):
    """The two smallest eigenvalues of the exact Hessian, from products in 40 digits."""
    mp = [mpmath.matrix(weight.tolist()) for weight in weights]
    data, targets = mpmath.matrix(X.tolist()), mpmath.matrix(Y.tolist())
    first, second, third = mp
    A = [data, data * first.T, data * first.T * second.T]
    B = [third * second, third, mpmath.eye(third.rows)]
    E = A[2] * third.T - targets
    between = {(0, 1): mpmath.eye(first.rows), (1, 2): mpmath.eye(second.rows), (0, 2): second}
    grams = np.empty((3, 3), object)
    for low in range(3):
        for high in range(low, 3):
            outer = np.array((B[high].T * B[low]).tolist(), object)
            inner = np.array((A[high].T * A[low]).tolist(), object)
            block = np.einsum("rp,sq->rspq", outer, inner)
            if low < high:
                gradient = np.array(((E * B[high]).T * A[low]).tolist(), object)
                block = block + np.einsum("sp,rq->rspq", np.array(between[low, high].tolist(), object), gradient)
            size = outer.shape[0] * inner.shape[0], outer.shape[1] * inner.shape[1]
            grams[high, low] = block.reshape(size)
            grams[low, high] = grams[high, low].T
    dense = np.block(grams.tolist()).astype(float)
    return np.linalg.eigvalsh(dense)[:2]
