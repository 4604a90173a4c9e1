"""An objective at one network: products with rows and columns of every part, and what a pickle keeps of it."""

from __future__ import annotations

import pickle

import numpy as np
import problems
import pytest
from witness import dense

from hesskern.curvature.point import Point


@pytest.fixture
def problem():
    return problems.normal([3, 4, 2], 9, bias=True, weight_decay=0.25)


@pytest.mark.parametrize("mode", ["full", "gauss_newton", "functional"])
def test_rows_and_columns_of_a_product(problem, mode):
    point = Point(problem.loss(), problem.network())
    H = dense(problem)[mode]
    assert point.decay(mode) == (0.25 if mode == "full" else 0.0)
    V = np.random.default_rng(0).standard_normal((len(H), 2))
    rows, columns = np.array([1, 4, 20]), np.array([0, 3, 17, 25])
    size = np.abs(H).max()
    for some, others in ((None, None), (rows, None), (None, columns), (rows, columns)):
        given = np.ascontiguousarray(V if others is None else V[others])
        block = H if some is None else H[some]
        wanted = (block if others is None else block[:, others]) @ given
        np.testing.assert_allclose(point.times(mode, given, some, others), wanted, rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(point.times(mode, V[:, 0].copy(), None, None), H @ V[:, 0], rtol=0, atol=1e-12 * size)


def test_float64_vectors_keep_their_digits_on_a_float32_network(problem):
    point = Point(problem.loss("float32"), problem.network("float32"))
    v = np.random.default_rng(1).standard_normal(26)
    found = point.times("full", v, None, None)
    assert found.dtype == np.float64
    narrow = problems.Problem(
        [w.astype("f4").astype(float) for w in problem.weights], [b.astype("f4").astype(float) for b in problem.biases],
        problem.X.astype("f4").astype(float), problem.Y.astype("f4").astype(float), weight_decay=0.25,
    )  # fmt: skip
    H = dense(narrow)["full"]
    np.testing.assert_allclose(found, H @ v, rtol=0, atol=1e-12 * np.abs(H).max())


def test_a_pickle_is_the_same_point(problem):
    point = Point(problem.loss(), problem.network())
    again = pickle.loads(pickle.dumps(point))
    v = np.ones(26)
    np.testing.assert_array_equal(again.times("full", v, None, None), point.times("full", v, None, None))
    np.testing.assert_array_equal(again.data.X, point.data.X)
    assert again.factors is again.factors
