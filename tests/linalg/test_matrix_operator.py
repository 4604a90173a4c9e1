"""Operators that have a dense matrix: NumPy gets it on request, products never make it."""

import numpy as np
import pytest

from hesskern.linalg.matrix_operator import MatrixOperator

A = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


class Rectangle(MatrixOperator):
    """The matrix A by products."""

    def __init__(self):
        super().__init__(np.dtype("float64"), A.shape)
        self.made = 0

    def toarray(self):
        self.made += 1
        return A.copy()

    def _matvec(self, v):
        return A @ v

    def _rmatvec(self, v):
        return A.T @ v

    def _matmat(self, V):
        return A @ V

    def _rmatmat(self, V):
        return A.T @ V


def test_numpy_asks_for_the_matrix():
    operator = Rectangle()
    np.testing.assert_array_equal(np.asarray(operator), A)
    assert np.array(operator, dtype="float32").dtype == np.float32
    assert operator.made == 2
    with pytest.raises(ValueError, match="the dense 2 x 3 matrix has to be computed into new memory"):
        operator.__array__(copy=False)


def test_products_do_not_make_it():
    operator = Rectangle()
    v, V = np.array([1.0, 0.5, -2.0]), np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(operator @ v, A @ v)
    np.testing.assert_array_equal(operator @ [1, 0, 0], A[:, 0])
    np.testing.assert_array_equal(operator @ V, A @ V)
    np.testing.assert_array_equal(V.T[:, :2] @ operator, V.T[:, :2] @ A)
    np.testing.assert_array_equal(np.array([1.0, -1.0]) @ operator, [-3.0, -3.0, -3.0])
    np.testing.assert_array_equal((operator @ operator.T).matmat(np.eye(2)), A @ A.T)
    assert operator.made == 0


def test_shapes_that_do_not_fit_are_named():
    operator = Rectangle()
    with pytest.raises(ValueError, match=r"^v has shape \(2,\); expected \(3,\) or \(3, k\)\.$"):
        operator @ np.ones(2)
    with pytest.raises(ValueError, match=r"^v has shape \(3,\); expected \(2,\) or \(k, 2\)\.$"):
        np.ones(3) @ operator
    with pytest.raises(TypeError, match="expected numbers"):
        operator @ ["a", "b", "c"]
