"""Coordinates in the reduced problem and back, for parts of layers, against the dense matrix."""

from __future__ import annotations

import numpy as np
import problems
import pytest

from hesskern.curvature.reduced_problem import ReducedProblem
from hesskern.reductions.deep_basis import DeepBasis


@pytest.mark.parametrize("params", [None, [0, 2], ["1.weight", "2.bias", "3.weight"]], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_vectors_and_coordinates(bias, params):
    if not bias and params and "2.bias" in params:
        params = ["1.weight", "3.weight"]
    problem = problems.normal([3, 8, 9, 7, 2], 5, bias=bias)
    H = problem.loss().hessian(problem.network(), params)
    basis = ReducedProblem(H._point, H.parts, "full", H._errors, lift=True).basis(lift=True)
    assert isinstance(basis, DeepBasis)
    size = H.shape[0]
    V, dense = basis.vectors(np.eye(size)), H.toarray()
    np.testing.assert_allclose(V.T @ V, np.eye(size), atol=1e-13)
    np.testing.assert_allclose(basis.coordinates(np.eye(size)), V.T, atol=1e-13)
    scale = np.abs(basis.values).max()
    np.testing.assert_allclose(V * basis.values @ V.T, dense, rtol=0, atol=1e-13 * scale)
    assert basis.groups.size == len(basis.values) == size
    rank = np.linalg.matrix_rank(dense, tol=1e-11 * scale)
    assert 0 < basis.structural_zeros <= size - rank
    zeros = basis.groups.multiplicities[basis.groups.values == 0]
    assert zeros >= basis.structural_zeros
