"""The span of the features: an orthogonal change of coordinates after which few are left."""

from __future__ import annotations

import numpy as np
from looped import each

from hesskern.reductions.feature_span import FeatureSpan


@each("shape", [(1, 1), (1, 7), (3, 7), (7, 7), (7, 3)])
def test_the_features_are_in_the_first_coordinates(shape):
    size = shape[1]
    F = np.random.default_rng(0).standard_normal(shape)
    span = FeatureSpan(F)
    assert (span.size, span.kept) == (size, min(shape))
    rotated = span.rotate(F.T, back=False)
    np.testing.assert_allclose(rotated[: span.kept].T, span.coordinates, atol=1e-14)
    np.testing.assert_allclose(rotated[span.kept :], 0, atol=1e-14)
    np.testing.assert_allclose(span.rotate(rotated, back=True), F.T, atol=1e-14)
    Q = span.rotate(np.eye(size), back=True)
    np.testing.assert_allclose(Q.T @ Q, np.eye(size), atol=1e-14)
    np.testing.assert_allclose(span.coordinates @ span.coordinates.T, F @ F.T, atol=1e-13)


def test_samples_of_any_size_keep_their_digits():
    """Each to a few units of rounding of its own length, also where squares of its numbers overflow or vanish."""
    F = np.random.default_rng(1).standard_normal((4, 9))
    sizes = np.array([[1e-300], [1.0], [1e300], [1e-8]])
    lengths = np.linalg.norm(FeatureSpan(F * sizes).coordinates / sizes, axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(F, axis=1), rtol=1e-14)


def test_zeros_and_repeated_samples_stay_what_they_are():
    F = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 0.0, 2.0], [1.0, 2.0, 0.0, 2.0]])
    R = FeatureSpan(F).coordinates
    assert (R[0] == 0).all()
    np.testing.assert_allclose(R @ R.T, F @ F.T, atol=1e-14)
