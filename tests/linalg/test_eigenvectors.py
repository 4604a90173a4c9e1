"""Eigenvectors as an operator: of a whole basis, and of a few vectors."""

import numpy as np
import pytest

from hesskern._base import memory
from hesskern.linalg import eigenvectors
from hesskern.linalg.eigenbasis import ChosenBasis, DenseBasis
from hesskern.linalg.eigenvectors import Eigenvectors, changed, moved_bytes, pieces

Q = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 7)))[0]
CHOSEN = np.array([5, 0, 2])


@pytest.mark.parametrize(
    ("basis", "wanted"),
    [(DenseBasis(np.arange(7.0), Q), Q[:, CHOSEN]), (ChosenBasis(np.zeros(6), Q[:, 1:]), Q[:, CHOSEN + 1])],
)
def test_chosen_vectors(basis, wanted):
    vectors = Eigenvectors(basis, CHOSEN, 7)
    assert vectors.shape == (7, 3)
    np.testing.assert_allclose(vectors.toarray(), wanted, atol=1e-15)
    np.testing.assert_allclose(vectors @ np.array([1.0, 2.0, 3.0]), wanted @ [1.0, 2.0, 3.0], atol=1e-14)
    np.testing.assert_allclose(vectors.T @ np.eye(7), wanted.T, atol=1e-15)
    np.testing.assert_allclose(vectors.T @ np.arange(7.0), wanted.T @ np.arange(7.0), atol=1e-14)


def test_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(eigenvectors, "_NUMBERS_AT_ONCE", 14)
    assert pieces(1, 30) == [slice(0, 14), slice(14, 28), slice(28, 30)]
    assert pieces(7, 20) == [slice(0, 8), slice(8, 16), slice(16, 20)]
    assert moved_bytes(7, 20) == 64 * 7 * 8 and moved_bytes(7, 0) == 0
    basis = DenseBasis(np.arange(7.0), Q)
    np.testing.assert_allclose(changed(basis.coordinates, Q, basis), np.eye(7), atol=1e-15)


def test_what_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(eigenvectors, "_FEW_BYTES", 0)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Free", (), {"available": 100}))
    with pytest.raises(MemoryError, match=r"a dense array of 3 eigenvectors of length 7 takes .*dense=False"):
        Eigenvectors(DenseBasis(np.arange(7.0), Q), CHOSEN, 7).toarray()
