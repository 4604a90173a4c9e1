"""Lanczos's method, jitted: its pieces against NumPy, the largest eigenvalue against the oracle's matrix."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

from hesskern.backends.data import Data
from hesskern.backends.protocol import Job, Update, Watch

pytest.importorskip("numba")
from hesskern.backends.numba_backend import BACKEND
from hesskern.backends.numba_kernels import sharpness

pytestmark = pytest.mark.long


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_largest_eigenvalue_of_a_tridiagonal_matrix(size):
    rng = np.random.default_rng(size)
    alpha, beta = rng.standard_normal(10), rng.random(10)
    T = np.diag(alpha[:size]) + np.diag(beta[: size - 1], 1) + np.diag(beta[: size - 1], -1)
    found = sharpness._largest_of_tridiagonal(alpha, beta, size)
    assert found == pytest.approx(np.linalg.eigvalsh(T)[-1], rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("seed", [1, 8, 22])
def test_along_a_step(seed):
    problem = problems.general(seed)
    problem = problems.Problem(problem.weights, problem.biases, problem.X, problem.Y)
    seen = np.full(1, np.nan)
    running = BACKEND.descent(
        problem.network(), Data(problem.X, None, problem.Y, 0.0), None, 0, scale=1.0, rtol=-1.0,
        update=Update(0.0, False, 0.0), watch=Watch(1, True, True, ()), ensemble=False,
    )  # fmt: skip
    BACKEND.advance([running], [Job(np.array([1e-3]), np.ones(1), None, None, np.empty(1), None, None, seen)], 1)
    H = oracle.hessian(oracle.flatten(problem.weights, problem.biases), problem)
    values = np.linalg.eigvalsh(H)
    assert seen[0] == pytest.approx(values[-1], rel=0, abs=1e-10 * np.abs(values).max())
