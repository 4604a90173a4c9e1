"""The eigenbasis of a last layer: orthogonal, in the order of the parameters, and its two directions are inverse."""

from __future__ import annotations

import numpy as np
from looped import each

from hesskern.curvature.dense_blocks import interleaved
from hesskern.curvature.softmax_basis import SoftmaxBasis
from hesskern.network.parameters import Part
from hesskern.reductions.feature_span import FeatureSpan


@each(("samples", "bias"), [(3, False), (3, True), (9, True)])
def test_vectors_are_those_of_the_matrix(samples, bias):
    rng = np.random.default_rng(0)
    classes, width = 3, 6
    features = rng.standard_normal((samples, width))
    span = FeatureSpan(features)
    inner = rng.standard_normal((2 * span.kept, 2 * span.kept))
    values, vectors = np.linalg.eigh(inner @ inner.T)
    order = interleaved(width, classes, Part(0, weight=True, bias=bias))
    basis = SoftmaxBasis(values, vectors, span, classes, order, 7)
    V = basis.vectors(np.eye(18))
    np.testing.assert_allclose(V.T @ V, np.eye(18), atol=1e-13)
    np.testing.assert_allclose(basis.coordinates(V), np.eye(18), atol=1e-13)
    assert (basis.dense_size, basis.structural_zeros) == (7, 18 - len(values))
    assert basis.groups.size == len(basis.values) == 18
    np.testing.assert_allclose(basis.groups.expand(), np.sort(basis.values))
    # Eigenvectors that are not zero change neither all classes alike, nor along what no sample has.
    matrix = np.empty((18, len(values)))
    matrix[order] = V[:, : len(values)]
    cube = matrix.reshape(classes, width, -1)
    np.testing.assert_allclose(cube.sum(axis=0), 0, atol=1e-13)
    if samples < width:
        outside = np.linalg.svd(features)[2][samples:]
        np.testing.assert_allclose(np.einsum("of,cfk->ock", outside, cube), 0, atol=1e-13)
