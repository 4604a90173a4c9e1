"""Lanczos steps in C++: what NumPy's definition gives, and exceptions for arguments that do not fit."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from looped import each

from hesskern import _core, backends
from hesskern._base.lanczos import steps


def product_of(widths, samples=9, *, bias=False, dtype="float64"):
    problem = problems.normal(list(widths), samples, bias=bias)
    net, data = problem.network(dtype), problem.loss(dtype).reduction(bias=bias).astype(np.dtype(dtype))
    cpp = backends.get("cpp")
    return net.num_parameters, cpp.hessian_product(net, data, scale=1.0, decay=0.25, gauss_newton=True, functional=True)


def start(size, block, most, dtype="float64"):
    vectors, images = np.zeros((most + block, size), dtype), np.zeros((most, size), dtype)
    vectors[:block] = np.linalg.qr(np.random.default_rng(0).standard_normal((size, block)))[0].T
    return vectors, images


@each("widths", [(5, 7, 3), (3, 9, 8, 2), (20, 50, 10), (1, 1, 2), (40, 60)])
@each("block", [1, 3])
@each("bias", [False, True])
def test_steps_are_those_of_the_definition(widths, block, bias):
    size, product = product_of(widths, bias=bias)
    most = min(12, size - block)
    if most < 1:
        pytest.skip("too few parameters")
    inside = (np.arange(size) % 5 > 0).astype(float) if size > 60 else None
    found, wanted = start(size, block, most), start(size, block, most)
    for vectors, _ in (found, wanted):
        if inside is not None:
            vectors[:block] = np.linalg.qr((vectors[:block] * inside).T)[0].T * inside
    ended = product.extend(*found, 0, most, block, inside)
    assert ended == steps(product.apply, inside, *wanted, 0, most, block)
    stop = most if ended < 0 else ended
    short = min(stop, 4)  # later vectors amplify the rounding errors of earlier ones
    np.testing.assert_allclose(found[0][: short + block], wanted[0][: short + block], atol=1e-9)
    vectors = found[0][: stop + block - (ended >= 0)]
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-13)
    images = np.empty_like(found[1][:stop])
    for vector, image in zip(vectors, images, strict=False):
        product.apply(vector, image)
    np.testing.assert_allclose(found[1][:stop], images if inside is None else images * inside, atol=1e-12)


def test_float32_and_a_space_that_ends():
    size, product = product_of((5, 7, 3), dtype="float32")
    vectors, images = start(size, 2, 10, "float32")
    assert product.extend(vectors, images, 0, 10, 2, None) == -1
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(12), atol=1e-5)
    net = problems.normal([1, 1], 1).network()
    product = _core.HessianProduct(
        net.weights, net.biases, np.zeros((1, 1)), None, np.zeros((1, 1)), 1.0, 0.0, True, True
    )
    assert product.extend(np.ones((2, 1)), np.zeros((1, 1)), 0, 1, 1, None) == 1


def test_wrong_arguments():
    size, product = product_of((5, 7, 3))
    vectors, images = start(size, 2, 10)
    for arguments in (
        (vectors, images, -1, 5, 2, None),
        (vectors, images, 6, 5, 2, None),
        (vectors, images, 0, 11, 2, None),
        (vectors, images, 0, 10, 3, None),
        (vectors, images, 0, 10, 0, None),
        (vectors, images, 0, 10, 2, np.ones(size + 1)),
        (vectors, images, 0, 10, 2, np.ones(size, "float32")),
        (vectors[:, ::2], images, 0, 5, 2, None),
        (vectors.astype("float32"), images, 0, 5, 2, None),
        (vectors, images[0], 0, 5, 2, None),
    ):
        with pytest.raises(ValueError):
            product.extend(*arguments)
    vectors.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        product.extend(vectors, images, 0, 5, 2, None)
