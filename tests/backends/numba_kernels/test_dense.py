"""The dense Hessian, jitted, against exact differences on integers."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from jitted_arguments import arguments
from looped import each

nb = pytest.importorskip("hesskern.numba", exc_type=ImportError)


@pytest.mark.long
@each("seed", range(0, 30, 2))
def test_every_entry_is_exact_on_integers(seed):
    problem = problems.deep_integers(seed)
    weights, X, Y, options = arguments(problem, "float64", "list")
    exact = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    found = nb.full_hessian(weights, X, Y, **options)
    np.testing.assert_allclose(found, exact.hessian, rtol=0, atol=1e-12 * max(1.0, np.abs(exact.hessian).max()))
    np.testing.assert_array_equal(found, found.T)
