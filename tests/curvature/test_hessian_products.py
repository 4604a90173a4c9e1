"""Products with the full Hessian and its parts: every kind of vector, SciPy's solvers, no memory of any size."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import problems
import pytest
from looped import each
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, eigsh, lobpcg, lsmr, minres, svds
from witness import relative

import hesskern as hk
from hesskern import backends


def operators(problem, dtype="float64"):
    H = problem.loss(dtype).hessian(problem.network(dtype))
    return [H, H.gauss_newton(), H.functional()]


@each("seed", problems.GENERAL, quick=16)
def test_products_are_those_of_the_dense_matrix(backend, seed):
    problem = problems.general(seed)
    rng = np.random.default_rng(seed)
    for operator in operators(problem):
        dense = operator.toarray()
        V = rng.standard_normal((len(dense), 3))
        size = np.abs(dense).sum(axis=0).max()
        for found, expected in ((operator @ V, dense @ V), (operator @ V[:, 0], dense @ V[:, 0])):
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * size)


SIZES = [
    ([100, 130, 90], 150),  # every product above the BLAS threshold
    ([64, 64, 64], 65),  # around it
    ([2, 500, 3], 4000),  # the product form: inputs and outputs are few
    ([90, 3, 2, 80], 700),
    ([17, 33, 9, 33, 17], 21),  # no multiple of any vector length, fewer samples than inputs need
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("widths", "samples"), SIZES)
def test_large_products_agree_between_backends(dtype, close, backend, widths, samples, bias):
    """At sizes where the dense matrix is out of reach, against differences of the reference gradient's formula."""
    problem = problems.normal(widths, samples, bias=bias, kind="mean", weight_decay=0.125)
    V = np.random.default_rng(0).standard_normal((problem.network().num_parameters, 2))
    with hk.use_backend("numpy"):
        expected = [operator @ V for operator in operators(problem)]
    for found, truth in zip(operators(problem, dtype), expected, strict=True):
        close(found @ V.astype(dtype), truth, dtype, factor=10)


def test_the_product_is_the_derivative_of_the_gradient():
    """Where no dense matrix is at hand: five points of a polynomial of degree 9 along the direction."""
    problem = problems.normal([40, 60, 50, 60, 30, 20], 45, bias=True, kind="sum", weight_decay=0.25)
    loss, net = problem.loss(), problem.network()
    theta, v = net.flatten(), np.random.default_rng(1).standard_normal(net.num_parameters) * 0.1
    k = np.arange(1, 6)
    weights = np.linalg.solve(2.0 * k[None, :] ** (2 * np.arange(5)[:, None] + 1), np.eye(5)[0])
    slope = sum(
        weight * (loss.gradient(net.unflatten(theta + j * v)) - loss.gradient(net.unflatten(theta - j * v)))
        for j, weight in zip(k, weights, strict=True)
    )
    relative(loss.hessian(net) @ v, slope, 1e-11)


VECTORS = {
    "int": (lambda v: (10 * v).astype(int), "float64", "float64"),
    "bool": (lambda v: v > 0, "float32", "float64"),
    "float16": (lambda v: v.astype(np.float16), "float32", "float64"),
    "float32": (lambda v: v.astype(np.float32), "float32", "float64"),
    "float64": (lambda v: v, "float64", "float64"),
    "complex64": (lambda v: (v + 2j * v[::-1]).astype(np.complex64), "complex64", "complex128"),
    "complex128": (lambda v: v + 2j * v[::-1], "complex128", "complex128"),
    "long double": (lambda v: v.astype(np.longdouble), "float64", "float64"),
    "big-endian": (lambda v: v.astype(">f8"), "float64", "float64"),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_vectors_of_any_type(backend, dtype, kind):
    """The result has the precision of both together: float64 vectors are not rounded for a float32 network."""
    make, with_float32, with_float64 = VECTORS[kind]
    problem = problems.normal([4, 6, 5, 3], 9, bias=True)
    H = problem.loss(dtype).hessian(problem.network(dtype))
    V = make(np.random.default_rng(0).standard_normal((H.shape[0], 2)))
    wanted = np.dtype({"float32": with_float32, "float64": with_float64}[dtype])
    # What is exact for the (rounded) network: products in float64.
    rounded = problems.Problem(
        [w.astype(dtype).astype(float) for w in problem.weights],
        [b.astype(dtype).astype(float) for b in problem.biases],
        problem.X.astype(dtype).astype(float),
        problem.Y.astype(dtype).astype(float),
    )
    expected = rounded.loss().hessian(rounded.network()).toarray() @ V.astype(np.result_type(V.dtype, np.float64))
    for found, truth in ((H @ V, expected), (H @ V[:, 0], expected[:, 0])):
        assert found.dtype == wanted
        single = wanted in (np.dtype(np.float32), np.dtype(np.complex64))
        # The reduced samples of a float32 network are float32 as well.
        relative(found, truth, 2e-6 if single or dtype == "float32" else 1e-13)


def test_float64_vectors_keep_their_digits_on_a_float32_network(backend):
    """Few samples are not reduced, hence not rounded: then nothing is."""
    rng = np.random.default_rng(0)
    weights = [rng.integers(-3, 4, shape) for shape in [(4, 5), (3, 4), (2, 3)]]
    problem = problems.Problem(weights, [None] * 3, rng.integers(-3, 4, (3, 5)), rng.integers(-9, 10, (3, 2)))
    H = problem.loss("float32").hessian(problem.network("float32"))
    v = 1 + 2.0**-40 * np.arange(H.shape[0])
    relative(H @ v, problem.loss().hessian(problem.network()).toarray() @ v, 1e-14)


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other": lambda V: np.repeat(np.repeat(V, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda V: V[::-1, ::-1].copy()[::-1, ::-1],
    "transposed": lambda V: V.T.copy().T,
    "read-only": lambda V: np.frombuffer(V.tobytes(), V.dtype).reshape(V.shape),
    "misaligned": lambda V: np.frombuffer(b"?" + V.tobytes(), V.dtype, offset=1).reshape(V.shape),
    "broadcast": lambda V: np.broadcast_to(V[:, :1], V.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.quick_in_cpp
def test_vectors_of_any_layout(backend, dtype, layout):
    problem = problems.normal([4, 6, 3], 9, bias=True)
    for operator in operators(problem, dtype):
        V = LAYOUTS[layout](np.random.default_rng(0).standard_normal((operator.shape[0], 4)).astype(dtype))
        before = V.copy()
        expected = operator @ before
        np.testing.assert_array_equal(operator @ V, expected)
        np.testing.assert_array_equal(operator @ V[:, 1], operator @ np.ascontiguousarray(before[:, 1]))
        np.testing.assert_array_equal(V, before)


def test_shapes_of_products(backend):
    problem = problems.normal([4, 6, 3], 9)
    H = problem.loss().hessian(problem.network())
    v = np.random.default_rng(0).standard_normal(H.shape[0])
    assert (H @ v).shape == H.matvec(v).shape == (H.dot(v)).shape == H.shape[:1]
    assert (H @ v[:, None]).shape == H.matvec(v[:, None]).shape == (len(v), 1)
    assert (H @ np.empty((len(v), 0))).shape == (len(v), 0)
    np.testing.assert_array_equal(H @ list(v), H @ v)
    for wrong in (v[:-1], np.ones((len(v) + 1, 2)), np.ones((1, len(v)))):
        with pytest.raises(ValueError, match=rf"^v has shape {re.escape(str(wrong.shape))}; expected \({len(v)},\) or"):
            H @ wrong
    with pytest.raises(ValueError, match=rf"^v has shape \({len(v)}, 2, 2\); expected"):
        H @ np.ones((len(v), 2, 2))
    with pytest.raises(ValueError, match=r"^v has shape \(\); expected"):
        H @ np.float64(1)


def test_transpose_and_adjoint_are_the_operator_itself(backend):
    problem = problems.general(3)
    for operator in operators(problem):
        v = np.random.default_rng(0).standard_normal(operator.shape[0])
        expected = operator @ v
        for other in (operator.T, operator.H, operator.adjoint(), operator.transpose()):
            np.testing.assert_array_equal(other @ v, expected)
        np.testing.assert_array_equal(operator.rmatvec(v), expected)
        np.testing.assert_array_equal(operator.rmatmat(v[:, None])[:, 0], expected)
        np.testing.assert_array_equal(v @ operator, expected)
        np.testing.assert_allclose((2.0 * operator - operator) @ v, expected, rtol=1e-12)


def test_scipy_takes_the_hessian_as_it_is(backend):
    problem = problems.normal([4, 7, 5, 3], 9, bias=True)
    H = problem.loss().hessian(problem.network())
    assert isinstance(H, LinearOperator)
    assert aslinearoperator(H) is H
    dense = H.toarray()
    values = np.linalg.eigvalsh(dense)
    rng = np.random.default_rng(0)
    b = rng.standard_normal(len(dense))
    relative(np.sort(eigsh(H, k=4, which="LA", v0=b, return_eigenvectors=False)), values[-4:], 1e-10)
    relative(np.sort(eigsh(H, k=3, which="SA", v0=b, return_eigenvectors=False)), values[:3], 1e-10)
    found, vectors = lobpcg(H, rng.standard_normal((len(dense), 3)), largest=True, tol=1e-9, maxiter=200)
    relative(np.sort(found), values[-3:], 1e-10)
    assert np.abs(dense @ vectors - vectors * found).max() < 1e-6 * values[-1]


def test_scipy_solves_with_the_hessian_as_it_is(backend):
    problem = problems.normal([4, 7, 3], 9, weight_decay=0.5)
    H = problem.loss().hessian(problem.network())
    b = np.random.default_rng(0).standard_normal(H.shape[0])
    G = problem.loss().hessian(problem.network()).block(1, 1)
    x, info = cg(G, b[: G.shape[0]], rtol=1e-13, maxiter=1000)
    assert info == 0
    relative(x, np.linalg.solve(G.toarray(), b[: G.shape[0]]), 1e-9)
    assert np.linalg.eigvalsh(H.toarray())[0] < 0  # minres does not mind
    x, info = minres(H, b, rtol=1e-13, maxiter=1000)
    assert info == 0
    relative(H.toarray() @ x, b, 1e-9)
    cross = H.block(1, 0)
    sigma = svds(cross, k=2, return_singular_vectors=False, v0=b[: min(cross.shape)])
    relative(np.sort(sigma)[::-1], np.linalg.svd(cross.toarray(), compute_uv=False)[:2], 1e-10)
    x = lsmr(cross, b[: cross.shape[0]], damp=2.0, atol=1e-13, btol=1e-13, maxiter=500)[0]
    A = cross.toarray()
    relative(x, np.linalg.solve(A.T @ A + 4.0 * np.eye(A.shape[1]), A.T @ b[: len(A)]), 1e-9)


def test_no_memory_but_the_result(dtype):
    """Nothing of size P², and in the hot path nothing at all but what is returned."""
    with hk.use_backend("cpp"):
        net = hk.LinearNetwork.random([20, 500, 400, 20], seed=0, dtype=np.dtype(dtype).type)
        rng = np.random.default_rng(0)
        loss = hk.SquaredLoss(rng.standard_normal((3000, 20)).astype(dtype), np.ones((3000, 20), dtype))
        H = loss.hessian(net)
        v = rng.standard_normal(H.shape[0]).astype(dtype)
        tracemalloc.start()
        try:
            H @ v
            prepared = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            H @ v
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert peak <= v.nbytes + 4096
    assert prepared <= 12 * v.nbytes


@pytest.mark.parametrize("bias", [False, True])
def test_products_never_see_the_samples_again(backend, monkeypatch, bias):
    problem = problems.normal([5, 9, 4], 5000, bias=bias)
    seen = []
    made = type(backend).hessian_product
    monkeypatch.setattr(
        type(backend),
        "hessian_product",
        lambda self, net, data, **options: seen.append(len(data.X)) or made(self, net, data, **options),
    )
    assert backends.get(backend.name) is backend
    H = problem.loss().hessian(problem.network())
    v = np.ones(H.shape[0])
    first = H @ v
    for _ in range(3):
        np.testing.assert_array_equal(H @ v, first)
    H.gauss_newton() @ v
    H.block(0, 0) @ v[: H.block(0, 0).shape[0]]
    H.block(1, 0) @ v[: H.block(0, 0).shape[0]]
    assert seen == [5 + bias] * 2  # of the Hessian and of its Gauss-Newton part; blocks share them
