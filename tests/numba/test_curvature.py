"""`hesskern.numba` from Python and from jitted code, against the oracle, on every kind of argument."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import oracle
import problems
import pytest
from checkout import ROOT
from looped import each

numba = pytest.importorskip("numba")

from jitted_arguments import arguments  # noqa: E402

import hesskern as hk  # noqa: E402
import hesskern.numba as nb  # noqa: E402


def against_exact_differences(seed, form):
    problem = problems.deep_integers(seed)
    exact = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    weights, X, Y, options = arguments(problem, "float64", form)
    size = 1e-13 * max(1.0, np.abs(exact.hessian).sum(axis=0).max(), np.abs(exact.gradient).max())
    assert nb.loss(weights, X, Y, **options) == pytest.approx(exact.loss, rel=1e-13)
    value, gradient = nb.value_and_gradient(weights, X, Y, **options)
    assert value == pytest.approx(exact.loss, rel=1e-13)
    np.testing.assert_allclose(gradient, exact.gradient, rtol=0, atol=size)
    np.testing.assert_array_equal(nb.gradient(weights, X, Y, **options), gradient)
    H = nb.full_hessian(weights, X, Y, **options)
    np.testing.assert_allclose(H, exact.hessian, rtol=0, atol=size)
    np.testing.assert_array_equal(H, H.T)
    V = np.random.default_rng(seed).standard_normal((len(H), 2))
    np.testing.assert_allclose(nb.hvp(weights, X, Y, V, **options), exact.hessian @ V, rtol=0, atol=20 * size)
    np.testing.assert_allclose(
        nb.hvp(weights, X, Y, V[:, 0], **options), exact.hessian @ V[:, 0], rtol=0, atol=20 * size
    )
    depth = len(problem.weights)
    for row, column in [(0, 0), (depth - 1, 0), (0, depth - 1), (depth - 1, depth - 1)]:
        block = nb.block_hessian(weights, X, Y, row, column, **options)
        np.testing.assert_allclose(block, exact.hessian[exact.layers[row], exact.layers[column]], rtol=0, atol=size)
    predicted = oracle.forward(problem.weights, problem.biases, problem.X)
    np.testing.assert_allclose(nb.forward(weights, X, options["biases"]), predicted, rtol=1e-13, atol=1e-12)


@each("seed", range(25))
def test_lists_against_exact_differences(seed):
    against_exact_differences(seed, "list")


# One depth, with biases and without: each is compiled anew. A typed list is compiled once for all depths.
@pytest.mark.long
@each("seed", [6, 16])
def test_tuples_against_exact_differences(seed):
    against_exact_differences(seed, "tuple")


@each("seed", range(0, 60, 4))
def test_gradients_and_products_in_single_precision(seed):
    problem = problems.general(seed)
    weights, X, Y, options = arguments(problem, "float32", "list")
    H = hk.SquaredLoss(X, Y, problem.kind, problem.weight_decay, backend="numpy").hessian(problem.network("float32"))
    expected, slope = oracle.loss_and_gradient(problem.network().flatten(), problem)
    value, gradient = nb.value_and_gradient(weights, X, Y, **options)
    assert value == pytest.approx(expected, rel=1e-5)
    product = nb.hvp(weights, X, Y, np.ones(len(gradient), np.float32), gauss_newton=True, functional=True, **options)
    assert gradient.dtype == product.dtype == np.float32
    size = float(np.abs(H.toarray()).sum(axis=0).max())
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-5 * max(np.abs(slope).max(), size))
    np.testing.assert_allclose(product, H.toarray().sum(axis=1), rtol=0, atol=1e-4 * size)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.long)])
@each("seed", range(0, 60, 4))
def test_parts_and_single_precision(seed, dtype):
    """The Gauss-Newton and the functional part add up, and agree with those of the operators, on normal problems."""
    problem = problems.general(seed)
    weights, X, Y, options = arguments(problem, dtype, "list")
    H = hk.SquaredLoss(X, Y, problem.kind, problem.weight_decay, backend="numpy").hessian(problem.network(dtype))
    size = float(np.abs(H.toarray()).sum(axis=0).max())
    tolerance = {"float64": 1e-13, "float32": 1e-5}[dtype] * size
    options["weight_decay"] = 0.0
    parts = {"gauss_newton": True, "functional": False}, {"gauss_newton": False, "functional": True}
    one, other = (nb.full_hessian(weights, X, Y, **part, **options) for part in parts)
    assert one.dtype == other.dtype == np.dtype(dtype)
    np.testing.assert_allclose(one, H.gauss_newton().toarray(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(other, H.functional().toarray(), rtol=0, atol=tolerance)
    v = np.ones(len(one), dtype)
    for part, dense in zip(parts, (one, other), strict=True):
        np.testing.assert_allclose(nb.hvp(weights, X, Y, v, **part, **options), dense @ v, rtol=0, atol=10 * tolerance)


def test_a_tuple_of_three():
    problem = problems.normal([3, 6, 4, 2], 9)
    weights = tuple(np.array(weight) for weight in problem.weights)
    expected, gradient = oracle.loss_and_gradient(problem.network().flatten(), problem)
    value, found = nb.value_and_gradient(weights, problem.X, problem.Y)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(found, gradient, rtol=1e-11)


W, V, X, Y = np.ones((4, 3)), np.ones((2, 4)), np.ones((5, 3)), np.ones((5, 2))


@pytest.mark.long
def test_the_example_of_the_docs(tmp_path):
    text = (ROOT / "docs" / "numba.md").read_text(encoding="utf-8")
    script = tmp_path / "example.py"
    script.write_text(text.split("```python\n")[1].split("```")[0], encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "10", "True", "True"]
