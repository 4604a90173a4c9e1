"""Eigenvalues of matrices that are not symmetric, of which a solver reads one triangle."""

from __future__ import annotations

import numpy as np
import pytest
from explained import N, causes, problem

import hesskern as hk


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
