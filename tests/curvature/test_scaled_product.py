"""Products with Hessians of networks whose squares leave the dtype, against the oracle in a wider one."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracle
import problems
import pytest

from hesskern import backends
from hesskern.backends.data import Data
from hesskern.curvature.scaled_product import hessian_product


def product(problem, dtype, v, **parts):
    """``H v`` by the numpy backend, in a dtype."""
    net = problem.network(dtype)
    data = Data(problem.X.astype(dtype), None, problem.Y.astype(dtype), 0.0)
    options = {"gauss_newton": True, "functional": True} | parts
    out = np.empty_like(v)
    hessian_product(backends.get("numpy"), net, data, scale=1.0, decay=problem.weight_decay, **options).apply(v, out)
    return out


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("power", [0, 40, -40])
def test_float32_against_float64(power, bias):
    """X times ``2**-power`` and a weight times ``2**power``: float64 still holds every square, float32 does not."""
    plain = problems.normal([3, 4, 2], 6, bias=bias, weight_decay=0.5)
    problem = dataclasses.replace(
        plain, X=np.ldexp(plain.X, -power), weights=[np.ldexp(plain.weights[0], power), plain.weights[1]]
    )
    problem = dataclasses.replace(
        problem,
        weights=[w.astype("float32").astype(float) for w in problem.weights],
        biases=[b if b is None else b.astype("float32").astype(float) for b in problem.biases],
        X=problem.X.astype("float32").astype(float), Y=problem.Y.astype("float32").astype(float),
    )  # fmt: skip
    H = oracle.hessian(oracle.flatten(problem.weights, problem.biases), problem)
    v = np.random.default_rng(0).standard_normal(len(H)).astype("float32")
    found = product(problem, "float32", v)
    wanted = H @ v.astype(float)
    # Rows are measured in units that differ by 2**power: each is right relative to its own terms.
    terms = np.abs(H) @ np.abs(v.astype(float))
    assert np.isfinite(found).all()
    np.testing.assert_array_less(np.abs(found - wanted), 3e-5 * terms + 1e-37)


def test_several_vectors_and_parts():
    problem = problems.normal([3, 4, 2], 6)
    far = dataclasses.replace(
        problem, X=np.ldexp(problem.X, -520), weights=[np.ldexp(problem.weights[0], 520), problem.weights[1]]
    )
    units = np.concatenate([np.full(12, 2.0**-520), np.ones(8)])  # what a parameter is measured in
    V = np.random.default_rng(1).standard_normal((20, 3))
    for parts in ({"functional": False}, {"gauss_newton": False}):
        wanted = product(problem, "float64", V, **parts)
        found = product(far, "float64", np.ascontiguousarray(V / units[:, None]), **parts)
        np.testing.assert_allclose(found / units[:, None], wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
