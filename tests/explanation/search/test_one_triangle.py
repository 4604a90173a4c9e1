"""Eigenvalues of matrices that are not symmetric, of which a solver reads one triangle."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk

N = 30


def problem(kind="mean", *, outputs=1, bias=True, decay=0.0, hidden=5, seed=0):
    """A network, its loss, and the two as the plain functions below take them."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((N, 4)) * [1, 2, 0.5, 1] + [0, 1, 0, 3], rng.standard_normal((N, outputs))
    net = hk.LinearNetwork.random([4, hidden, outputs], seed=seed, bias=bias)
    return net, hk.SquaredLoss(X, Y, kind, decay)


def causes(why):
    return [finding.cause for finding in why.findings]


@pytest.mark.parametrize("outputs", [3, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.long
def test_eigvalsh_of_what_is_not_symmetric(outputs):
    net, loss = problem("half_sum", outputs=outputs, bias=False, hidden=9)
    (A, B), C = net.weights, loss.X.T @ loss.X / N
    K = np.kron(B @ B.T, C) + np.kron(np.eye(outputs), A.T @ A @ C)
    for uplo in "LU":
        values = np.linalg.eigvalsh(K, UPLO=uplo)
        why = hk.explain(float(np.abs(values).max() / np.abs(values).min()), net, loss)
        assert causes(why)[0].startswith("eigvalsh[end-to-end"), str(why)
        assert hk.explain(N * values, net, loss).findings[0].cause.startswith("eigvalsh[end-to-end")
    assert hk.explain(float(np.linalg.cond(K)), net, loss).status == "unexplained"
