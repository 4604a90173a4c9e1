"""The Numba backend as a whole: its kernels against the definitions, and the sentence where Numba is missing."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from witness import relative

from hesskern.backends.data import Data
from hesskern.backends.protocol import Softmax

pytest.importorskip("numba")
from hesskern.backends.numba_backend import BACKEND


@pytest.mark.parametrize("seed", [3, 10])
def test_values_and_gradients_are_the_oracles(seed):
    problem = problems.general(seed)
    plain = problems.Problem(problem.weights, problem.biases, problem.X, problem.Y)
    net, data = plain.network(), Data(plain.X, None, plain.Y, 0.0)
    value, gradient = oracle.loss_and_gradient(oracle.flatten(plain.weights, plain.biases), plain)
    relative(BACKEND.forward(net, plain.X), oracle.forward(plain.weights, plain.biases, plain.X).astype(float))
    assert BACKEND.squared_residual(net, data) == pytest.approx(2 * value, rel=1e-12)
    relative(BACKEND.gradient(net, data, 1.0)[1], gradient)


def test_what_numpy_does_for_it():
    rng = np.random.default_rng(0)
    f, logits, scale = rng.standard_normal((5, 2)), rng.standard_normal((5, 3)), rng.random(5)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    out, v, image = np.empty((6, 6)), rng.standard_normal(6), np.empty(6)
    wanted = sum(s * np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for s, q, x in zip(scale, p, f, strict=True))
    BACKEND.softmax_dense(Softmax(f, p, scale, False), out)
    BACKEND.softmax_product(Softmax(f, p, scale, False), v, image)
    relative(out, wanted, 1e-13)
    relative(image, wanted @ v, 1e-13)
    A = rng.standard_normal((20000, 3))
    R = BACKEND.triangular_factor([A[:, :1], A[:, 1:]])
    relative(R.T @ R, A.T @ A, 1e-12)
    assert not BACKEND.mixes_units(rng.standard_normal((5, 40)), 2)


def test_without_numba_it_says_what_to_install(python):
    done = python("import sys; sys.modules['numba'] = None; import hesskern.backends.numba_backend")
    assert done.returncode == 1
    assert "the backend 'numba' needs Numba, which cannot be imported" in done.stderr
    assert 'pip install "hesskern[numba]"' in done.stderr
