"""Spectra as values: eigenvalues with multiplicities."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk


def test_spectrum_objects():
    spectrum = hk.Spectrum([3.0, -1.0, 0.0, 2.0, 0.0], [1, 2, 3, 0, 4])
    np.testing.assert_array_equal(spectrum.values, [-1.0, 0.0, 3.0])
    np.testing.assert_array_equal(spectrum.multiplicities, [2, 7, 1])
    np.testing.assert_array_equal(spectrum.expand(), [-1.0, -1.0, *[0.0] * 7, 3.0])
    assert (spectrum.size, spectrum.max, spectrum.min, spectrum.trace) == (10, 3.0, -1.0, 1.0)
    assert spectrum.count(0.5) == 3
    assert spectrum.count(1.0) == 1  # above, not at
    np.testing.assert_array_equal(spectrum.shifted(0.5).values, [-0.5, 0.5, 3.5])
    np.testing.assert_array_equal(spectrum.shifted(0.5).multiplicities, [2, 7, 1])
    for bins in (4, [-1.0, 0.5, 3.0]):
        counts, edges = spectrum.histogram(bins)
        wanted = np.histogram(spectrum.expand(), bins)
        np.testing.assert_array_equal(counts, wanted[0])
        np.testing.assert_array_equal(edges, wanted[1])
    assert repr(spectrum) == "Spectrum(10 eigenvalues in [-1, 3], 3 distinct)"
    for values, counts in [([1.0, 2.0], [1]), ([[1.0]], [[1]])]:
        with pytest.raises(ValueError, match=r"values .* and multiplicities .*; expected two lists of one length"):
            hk.Spectrum(values, counts)
