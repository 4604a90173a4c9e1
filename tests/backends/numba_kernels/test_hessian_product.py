"""Products with the Hessian, jitted, against the dense matrix of the oracle."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from looped import each
from witness import dense

pytest.importorskip("numba")
from hesskern.backends.numba_kernels import hessian_product, layout


@each("seed", problems.GENERAL[::4])
def test_products_of_every_part(seed):
    problem = problems.general(seed)
    problem = problems.Problem(problem.weights, problem.biases, problem.X, problem.Y)
    widths = np.array([problem.X.shape[1], *map(len, problem.weights)])
    made = layout.make_layout(widths, np.array([bias is not None for bias in problem.biases]), 8)
    flat = oracle.flatten(problem.weights, problem.biases)
    memory, product = hessian_product.prepared(made, flat, problem.X, np.empty(0), problem.Y, 1.0, 0, 0)
    V = np.random.default_rng(seed).standard_normal((len(flat), 2))
    for name, wanted in dense(problem).items():
        out = np.empty(V.size)
        hessian_product.hessian_times(
            memory, made, len(problem.X), product, 1.0, 0.5, name != "functional", name != "gauss_newton",
            V.reshape(-1), 2, out,
        )  # fmt: skip
        size = max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(out.reshape(-1, 2), wanted @ V + 0.5 * V, rtol=0, atol=1e-12 * size)
