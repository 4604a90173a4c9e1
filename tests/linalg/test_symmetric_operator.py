"""What every symmetric operator has once it can multiply and diagonalise, on a matrix that is written down."""

import numpy as np
import pytest
from scipy.sparse.linalg import eigsh

from hesskern.linalg.eigenbasis import DenseBasis
from hesskern.linalg.symmetric_operator import CurvatureOperator

EIGENVALUES = np.array([-3.0, 0.0, 0.5, 1.0, 4.0])
SHIFT = 0.25
Q = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
MATRIX = Q * (EIGENVALUES + SHIFT) @ Q.T


class Written(CurvatureOperator):
    """Of known eigenvalues and eigenvectors."""

    _shift = SHIFT

    def __init__(self):
        super().__init__(np.dtype("float64"), (5, 5))

    def _apply(self, V):
        return MATRIX @ V

    def _eigenbasis(self, *, lift):
        return DenseBasis(EIGENVALUES, Q)

    def _tolerances(self, basis):
        return 1e-14, 1e-14


@pytest.fixture
def operator():
    return Written()


def test_products(operator):
    v = np.arange(5.0)
    np.testing.assert_array_equal(operator @ v, MATRIX @ v)
    np.testing.assert_array_equal(operator @ list(v), MATRIX @ v)
    np.testing.assert_allclose(operator @ (v + 1j), MATRIX @ (v + 1j))
    assert operator.T is operator and operator.H is operator
    with pytest.raises(ValueError, match=r"^v has shape \(4,\); expected \(5,\) or \(5, k\)\.$"):
        operator @ np.ones(4)
    np.testing.assert_allclose(eigsh(operator, 1, which="LA")[0], [4.25])


def test_eigenvalues_have_the_shift(operator):
    np.testing.assert_allclose(operator.eigvalsh(), EIGENVALUES + SHIFT, atol=1e-15)
    assert operator.spectrum().max == 4.25 and operator.spectrum().min == -2.75


@pytest.mark.parametrize(
    ("which", "wanted"), [("LA", [1.25, 4.25]), ("SA", [-2.75, 0.25]), ("LM", [-2.75, 4.25]), ("SM", [0.25, 0.75])]
)
def test_the_eigenpairs_asked_for(operator, which, wanted):
    values, vectors = operator.eigh(2, which)
    np.testing.assert_allclose(values, wanted)
    np.testing.assert_allclose(MATRIX @ vectors, vectors * values, atol=1e-13)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(2), atol=1e-13)
    values, lazy = operator.eigh(2, which, dense=False)
    np.testing.assert_allclose(lazy @ np.eye(2), vectors, atol=1e-13)
    np.testing.assert_allclose(lazy.T @ np.eye(5), vectors.T, atol=1e-13)


def test_condition_rank_and_solutions(operator):
    assert operator.rank() == 5  # what is zero without the shift is the shift
    assert operator.cond() == pytest.approx(4.25 / 0.25, rel=1e-12)
    condition = operator.condition()
    assert (condition.rank, condition.size) == (5, 5)
    b = np.arange(5.0)
    np.testing.assert_allclose(MATRIX @ operator.solve(b), b, atol=1e-12)
    np.testing.assert_allclose(operator.solve(b, damping=4.0), np.linalg.solve(MATRIX + 4.0 * np.eye(5), b), atol=1e-12)
    assert operator.logdet(damping=4.0) == pytest.approx(np.sum(np.log(EIGENVALUES + SHIFT + 4.0)), rel=1e-12)
    with pytest.raises(ValueError, match="damping"):
        operator.logdet()
