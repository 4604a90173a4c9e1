"""Linear operators on tensors, flat or in the shapes of parameters, against the matrix that they are."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hesskern.compat.tensor_lists import TensorOperator  # noqa: E402

SHAPES = [(2, 2), (3,)]


class Written(TensorOperator):
    """Of a matrix that is written down."""

    def __init__(self, matrix, rows=SHAPES, columns=SHAPES):
        super().__init__(rows, columns, torch.float64, torch.device("cpu"))
        self.matrix = matrix

    def _matmat(self, X):
        flat = self.matrix @ torch.cat([part.reshape(-1, part.shape[-1]) for part in X])
        parts = torch.split(flat, self._out_shape_flat)
        return [part.reshape(*shape, -1) for part, shape in zip(parts, self._out_shape, strict=True)]

    def _adjoint(self):
        return Written(self.matrix.T, self._in_shape, self._out_shape)


@pytest.fixture
def matrices():
    made = torch.Generator().manual_seed(0)
    return [torch.randn(7, 7, generator=made, dtype=torch.float64) for _ in range(2)]


def in_shapes(flat):
    one, other = flat[:4], flat[4:]
    return [one.reshape(2, 2, *flat.shape[1:]), other]


def test_vectors_and_matrices_in_every_form(matrices):
    A, operator = matrices[0], Written(matrices[0])
    assert operator.shape == (7, 7)
    for X in (torch.randn(7, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)):
        torch.testing.assert_close(operator @ X, A @ X)
        found = operator @ in_shapes(X)
        for part, wanted in zip(found, in_shapes(A @ X), strict=True):
            torch.testing.assert_close(part, wanted)
        rows = X if X.ndim == 1 else X.mT
        torch.testing.assert_close(rows @ operator, rows @ A)
    rows = torch.randn(3, 7, dtype=torch.float64)
    found = [rows[:, :4].reshape(3, 2, 2), rows[:, 4:]] @ operator
    torch.testing.assert_close(found[0], (rows @ A)[:, :4].reshape(3, 2, 2))
    torch.testing.assert_close(found[1], (rows @ A)[:, 4:])


def test_arithmetic_is_that_of_the_matrices(matrices):
    A, B = matrices
    one, other, v = Written(A), Written(B), torch.randn(7, dtype=torch.float64)
    for operator, wanted in (
        (one + other, A + B), (one - other, A - B), (2.0 * one, 2.0 * A), (one / 4, A / 4.0), (one @ other, A @ B),
        ((one @ other + one).adjoint(), (A @ B + A).T), ((3 * one).adjoint(), 3 * A.T),
    ):  # fmt: skip
        torch.testing.assert_close(operator @ v, wanted @ v)


def test_scipy_gets_arrays(matrices):
    A = matrices[0].numpy()
    found = Written(matrices[0]).to_scipy()
    v, V = np.arange(7.0), np.arange(14.0).reshape(7, 2)
    np.testing.assert_allclose(found @ v, A @ v)
    np.testing.assert_allclose(found.T @ V, A.T @ V)
    assert found.dtype == np.float64 and Written(matrices[0]).to_scipy(np.float32).dtype == np.float32


def test_what_does_not_fit_is_refused(matrices):
    operator = Written(matrices[0])
    refused = [
        (torch.zeros(6, dtype=torch.float64), ValueError, r"X has shape \(6,\); expected \(7,\) or \(7, K\)"),
        (torch.zeros(7), TypeError, "X is torch.float32 on cpu; expected torch.float64 on cpu"),
        ([torch.zeros(7)], ValueError, r"X has the shapes \[\(7,\)\]; expected \[\(2, 2\), \(3,\)\]"),
        ([torch.zeros(2, 2), torch.zeros(3)], TypeError, r"X\[0\] is torch.float32"),
        (np.zeros(7), TypeError, "X is a ndarray; expected a tensor or a list of tensors"),
    ]
    for X, error, message in refused:
        with pytest.raises(error, match=message):
            operator @ X
    with pytest.raises(ValueError, match="add"):
        operator + Written(matrices[0], rows=[(7,)])
    with pytest.raises(ValueError, match="multiply"):
        operator @ Written(matrices[0], rows=[(7,)])
