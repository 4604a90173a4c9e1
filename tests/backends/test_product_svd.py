"""Singular values of a product that is never formed, in every backend."""

from __future__ import annotations

import numpy as np
import pytest
from looped import each

from hesskern import backends

COMPILED = ["cpp", "numba"]


@pytest.mark.parametrize("name", COMPILED)
@each("seed", range(10))
def test_singular_values_agree(seed, name):
    compiled, reference = backends.get(name), backends.get("numpy")
    rng = np.random.default_rng([5, seed])
    sizes = [int(k) for k in rng.integers(1, 14, int(rng.integers(2, 6)))]
    first, *weights = (rng.standard_normal(pair) for pair in zip(sizes[:-1], sizes[1:], strict=True))
    weights = [np.ascontiguousarray(weight.T) for weight in weights]
    ours, theirs = compiled.product_svd(first, weights, 1e-14), reference.product_svd(first, weights, 1e-14)
    count = min(sizes)
    assert ours.rank == theirs.rank == count
    product = first
    for weight in weights:
        product = product @ weight.T
    expected = np.linalg.svd(product, compute_uv=False)[:count]
    for found in (ours, theirs):
        values = np.ldexp(found.values, found.exponents)
        np.testing.assert_allclose(values[:count], expected, rtol=0, atol=1e-13 * expected[0])
        assert np.all(np.diff(values) <= 0)
    transposed = compiled.product_svd(first.T, [], 1e-14)
    values = np.ldexp(transposed.values, transposed.exponents)
    np.testing.assert_allclose(values, np.linalg.svd(first, compute_uv=False), rtol=1e-12)
