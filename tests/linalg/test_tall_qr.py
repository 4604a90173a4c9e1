"""The full orthogonal factor of a tall QR, never formed, against the one that NumPy forms."""

import numpy as np
import pytest

from hesskern.linalg.tall_qr import TallQR


@pytest.mark.parametrize(("height", "rank"), [(1, 1), (5, 1), (7, 7), (40, 6)])
def test_it_is_the_decomposition(height, rank):
    rng = np.random.default_rng([height, rank])
    tall = rng.standard_normal((height, rank))
    qr = TallQR(tall.copy(order="F"))
    Q = qr.rotate(np.eye(height), back=True)
    np.testing.assert_allclose(Q.T @ Q, np.eye(height), atol=1e-14)
    np.testing.assert_array_equal(qr.R, np.triu(qr.R))
    np.testing.assert_allclose(Q[:, :rank] @ qr.R, tall, atol=1e-14)
    vectors = rng.standard_normal((height, 3))
    np.testing.assert_allclose(qr.rotate(vectors, back=False), Q.T @ vectors, atol=1e-14)
    np.testing.assert_allclose(qr.rotate(vectors, back=True), Q @ vectors, atol=1e-14)


def test_no_vectors():
    qr = TallQR(np.eye(4, 2))
    assert qr.rotate(np.empty((4, 0)), back=True).shape == (4, 0)
