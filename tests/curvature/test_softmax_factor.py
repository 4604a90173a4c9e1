"""A factor of the Hessian of softmax cross-entropy: its square is the definition."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.curvature.softmax_factor import contrasts, factor, sticks


def test_contrasts_are_orthonormal_and_leave_out_a_common_shift():
    for classes in (2, 3, 10):
        B = contrasts(classes)
        np.testing.assert_allclose(B.T @ B, np.eye(classes - 1), atol=1e-15)
        np.testing.assert_allclose(B.sum(axis=0), 0, atol=1e-14)


@pytest.mark.parametrize("samples", [1, 3, 4, 40])
def test_its_square_is_the_definition(backend, samples):
    """Of fewer samples than features it is the Jacobian itself, otherwise its triangular factor."""
    rng = np.random.default_rng(0)
    F, logits, weights = rng.standard_normal((samples, 4)), rng.standard_normal((samples, 3)), rng.random(samples)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    B = contrasts(3)
    classes = [s * (np.diag(q) - np.outer(q, q)) for q, s in zip(p, weights, strict=True)]
    expected = sum(np.kron(B.T @ each @ B, np.outer(f, f)) for each, f in zip(classes, F, strict=True))
    parts = sticks(logits - logits.max(axis=1, keepdims=True), weights)
    A = np.ldexp(factor(parts, F, backend), parts.exponent)
    assert A.shape == (2 * min(samples, 4), 8)
    np.testing.assert_allclose(A.T @ A, expected, atol=1e-14 * samples)


def test_weights_of_zero_and_probabilities_below_the_smallest_float():
    behind = np.array([[0.0, -800.0], [0.0, -900.0]])
    parts = sticks(behind, np.array([1.0, 0.0]))
    assert parts.sizes[1, 0] == 0
    # 0.5 log(p (1 - p)) = -400, in powers of two
    assert parts.exponent + np.log2(parts.sizes[0, 0]) == pytest.approx(-400 / np.log(2), rel=1e-14)
    assert 0 < parts.error < 1e-12
