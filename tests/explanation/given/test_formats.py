"""Number formats: rounding to them against types that have them, and recognising them."""

from __future__ import annotations

import numpy as np
import pytest

from hesskern.explanation.given.formats import FORMATS, grid_of, on_grid, rounded, storages

VALUES = np.random.default_rng(0).standard_normal((20, 20))
STRIPS = [slice(0, 10), slice(10, 20)]


@pytest.mark.parametrize(("bits", "dtype"), [(24, np.float32), (11, np.float16)])
def test_rounding_is_that_of_the_type(bits, dtype):
    np.testing.assert_array_equal(rounded(VALUES, bits), VALUES.astype(dtype).astype(float))


def test_ties_go_to_even_and_any_exponent_is_kept():
    assert rounded(np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8]), 8).tolist() == [1.0, 1 + 2.0**-6]
    np.testing.assert_array_equal(rounded(VALUES * 2.0**600, 8), rounded(VALUES, 8) * 2.0**600)


@pytest.mark.parametrize("format_", FORMATS, ids=lambda format_: format_.name)
def test_a_rounded_matrix_is_known_by_its_grid(format_):
    stored = rounded(VALUES, format_.product_bits)
    assert on_grid(stored, format_.product_bits) and not on_grid(VALUES, format_.product_bits)
    assert grid_of(stored, STRIPS).product_bits == format_.product_bits
    assert grid_of(VALUES, STRIPS) is None


@pytest.mark.parametrize(
    ("stored", "keys"),
    [
        (rounded(VALUES, 8), {"bfloat16-stored"}),
        (np.round(VALUES, 3), {"decimals[3]"}),
        (np.array([[float(f"{value:.4e}") for value in row] for row in VALUES]), {"digits[5]"}),
        (VALUES, set()),
    ],
)
def test_how_a_matrix_was_stored(stored, keys):
    found = {storage.key: storage for storage in storages(stored, STRIPS)}
    assert keys <= set(found) and bool(keys) == bool(found)
    for key in keys:
        np.testing.assert_allclose(found[key].store(VALUES), stored, rtol=1e-15)
        assert (np.abs(stored - VALUES) <= found[key].half_unit(VALUES) * (1 + 1e-9)).all()
