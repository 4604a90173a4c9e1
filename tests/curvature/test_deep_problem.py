"""How many eigenvalues are zero for any numbers of a shape, with some of the parameters, against numerical ranks."""

from __future__ import annotations

import numpy as np
import problems
from looped import each

from hesskern.curvature.deep_problem import structural_zeros


@each("seed", range(200), quick=60)
def test_no_more_zeros_than_there_are(seed):
    rng = np.random.default_rng([19, seed])
    widths = [int(width) for width in rng.integers(1, 7, int(rng.integers(2, 6)))]
    problem = problems.normal(widths, int(rng.integers(1, 9)), seed)
    problem.biases[:] = [rng.standard_normal(width) if rng.random() < 0.4 else None for width in widths[1:]]
    net = problem.network()
    names = [name for name in net.parameter_names if rng.random() < 0.6] or [net.parameter_names[-1]]
    H = problem.loss().hessian(net, names)
    for part in (H, H.gauss_newton(), H.functional()):
        rank = np.linalg.matrix_rank(part.toarray(), tol=1e-10 * max(np.abs(part.toarray()).max(), 1e-300))
        assert structural_zeros(part._factors, part.parts, part._mode) <= part.shape[0] - rank, names


@each("seed", range(60), quick=30)
def test_all_of_them_with_all_weights_and_biases(seed):
    """No layer is narrower than its neighbours: then the count is exact."""
    rng = np.random.default_rng([23, seed])
    depth, width = int(rng.integers(2, 5)), int(rng.integers(3, 7))
    ends = [int(number) for number in rng.integers(1, 4, 2)]
    problem = problems.normal([ends[0], *[width] * (depth - 1), ends[1]], 12, seed, bias=seed % 2 == 1)
    H = problem.loss().hessian(problem.network())
    rank = np.linalg.matrix_rank(H.toarray(), tol=1e-11 * np.abs(H.toarray()).max())
    assert structural_zeros(H._factors, H.parts, H._mode) == H.shape[0] - rank
