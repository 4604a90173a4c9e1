"""Bases of eigenvectors: orthogonal, and the matrix they belong to is diagonal in them."""

import numpy as np
import pytest

from hesskern.linalg.eigenbasis import DenseBasis, FactorBasis, IdentityBasis, KroneckerBasis, ValuesOnly


def matrix_of(basis, size):
    """The matrix whose eigenbasis it is, and its eigenvectors, which must be orthonormal."""
    V = basis.vectors(np.eye(size))
    np.testing.assert_allclose(V.T @ V, np.eye(size), atol=1e-13)
    np.testing.assert_allclose(basis.coordinates(np.eye(size)), V.T, atol=1e-13)
    return V * basis.values @ V.T


def expanded(basis):
    return np.sort(np.repeat(basis.groups.values, basis.groups.multiplicities))


def test_of_a_dense_matrix():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((5, 5))
    A = A + A.T
    basis = DenseBasis(*np.linalg.eigh(A))
    np.testing.assert_allclose(matrix_of(basis, 5), A, atol=1e-13)
    np.testing.assert_array_equal(expanded(basis), np.linalg.eigh(A)[0])
    assert (basis.dense_size, basis.structural_zeros) == (5, 0)


def test_values_and_zeros_beside_them():
    basis = ValuesOnly(np.array([3.0, -1.0]), zeros=2)
    np.testing.assert_array_equal(np.sort(basis.values), [-1.0, 0.0, 0.0, 3.0])
    assert basis.structural_zeros == 2
    with pytest.raises(AssertionError, match="eigenvectors were not computed"):
        basis.vectors(np.eye(4))


@pytest.mark.parametrize(("rows", "columns"), [(6, 4), (4, 4), (2, 9), (1, 1)])  # 2 x 9 is kept as reflectors
def test_of_a_factor(rows, columns):
    F = np.random.default_rng([rows, columns]).standard_normal((rows, columns))
    basis = FactorBasis(F, 0.25, lift=True)
    V = basis.change(np.eye(columns), back=True)
    np.testing.assert_allclose(V * basis.values @ V.T, 0.25 * F.T @ F, atol=1e-13)
    np.testing.assert_allclose(basis.change(V, back=False), np.eye(columns), atol=1e-13)
    assert basis.computed == min(rows, columns)
    np.testing.assert_allclose(FactorBasis(F, 0.25, lift=False).values, basis.values, atol=1e-13)


@pytest.mark.parametrize("outer", ["factor", "identity"])
@pytest.mark.parametrize("ordered", [False, True])
def test_of_a_kronecker_product(outer, ordered):
    rng = np.random.default_rng(4)
    F, G = rng.standard_normal((2, 3)), rng.standard_normal((7, 4))
    order = rng.permutation(12) if ordered else None
    U, left = (2.0 * F.T @ F, FactorBasis(F, 2.0, lift=True)) if outer == "factor" else (
        2.0 * np.eye(3), IdentityBasis(3, 2.0)
    )  # fmt: skip
    basis = KroneckerBasis(left, FactorBasis(G, 1.0, lift=True), order)
    wanted = np.kron(U, G.T @ G)
    if ordered:
        wanted = wanted[np.ix_(order, order)]
    np.testing.assert_allclose(matrix_of(basis, 12), wanted, atol=1e-12)
    np.testing.assert_allclose(expanded(basis), np.linalg.eigvalsh(wanted), atol=1e-12)
    assert basis.structural_zeros == (4 if outer == "factor" else 0)
