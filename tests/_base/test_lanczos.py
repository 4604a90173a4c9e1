"""Lanczos steps in NumPy: an orthonormal basis, the images of its vectors, and what happens where a space ends."""

import numpy as np
import pytest

from hesskern._base.lanczos import orthonormalise, steps

RNG = np.random.default_rng(0)
MATRIX = RNG.standard_normal((30, 30))
MATRIX += MATRIX.T


def start(block, size=30, most=20):
    vectors, images = np.full((most + block, size), np.nan), np.full((most, size), np.nan)
    vectors[:block] = np.linalg.qr(np.random.default_rng(1).standard_normal((size, block)))[0].T
    return vectors, images


def multiply(matrix):
    def apply(v, out):
        out[...] = matrix @ v

    return apply


@pytest.mark.parametrize("block", [1, 3])
def test_steps_make_a_krylov_space(block):
    vectors, images = start(block)
    assert steps(multiply(MATRIX), None, vectors, images, 0, 7, block) == -1
    assert steps(multiply(MATRIX), None, vectors, images, 7, 20, block) == -1
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(20 + block), atol=1e-14)
    np.testing.assert_allclose(images, vectors[:20] @ MATRIX, atol=1e-13)
    band = images @ vectors.T  # the image of vector j is in the span of the first j + block + 1
    assert np.abs(np.triu(band, block + 1)).max() < 1e-13 < np.abs(np.diag(band[:, block:])).min()


def test_a_space_that_ends_is_said():
    matrix = np.diag([1.0, 2.0, 3.0] * 10)  # a vector reaches three dimensions
    vectors, images = start(1)
    assert steps(multiply(matrix), None, vectors, images, 0, 20, 1) == 3
    np.testing.assert_allclose(images[:3] @ vectors[:3].T, vectors[:3] @ matrix @ vectors[:3].T, atol=1e-14)
    vectors, images = start(1)
    assert steps(multiply(np.zeros((30, 30))), None, vectors, images, 0, 20, 1) == 1


def test_entries_outside_stay_zero():
    inside = (np.arange(30) % 3 > 0).astype(float)
    vectors, images = start(2)
    vectors[:2] = np.linalg.qr((vectors[:2] * inside).T)[0].T * inside
    assert steps(multiply(MATRIX), inside, vectors, images, 0, 10, 2) == -1
    assert not vectors[:12, inside == 0].any() and not images[:10, inside == 0].any()


def test_a_vector_inside_the_span_is_refused():
    rows, out = np.eye(3, 6), np.full(6, np.nan)
    assert not orthonormalise(rows, np.array([1.0, 2.0, 3.0, 1e-15, 0.0, 0.0]), out)
    assert orthonormalise(rows, np.array([1.0, 2.0, 3.0, 1e-10, 0.0, 0.0]), out)
    np.testing.assert_allclose(out, [0, 0, 0, 1, 0, 0], atol=1e-15)
