"""What `numpy.asarray` gets from an object that computes its matrix."""

from types import SimpleNamespace

import numpy as np
import pytest

from hesskern._base import memory
from hesskern._base.numpy_protocol import as_numpy

MADE = np.array([[1.0, 0.1]])


def test_the_array_itself_where_no_other_dtype_is_asked_for():
    for dtype in (None, float, "float64"):
        assert as_numpy(lambda: MADE, "it", dtype, None) is MADE


def test_another_dtype_is_a_conversion():
    found = as_numpy(lambda: MADE, "it", np.float32, True)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32([[1.0, 0.1]]))


def test_without_a_copy_nothing_is_computed():
    def make():
        raise AssertionError("computed")

    with pytest.raises(ValueError, match=r"^copy is False, but the matrix has to be computed into new memory"):
        as_numpy(make, "the matrix", None, False)


def test_a_conversion_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=7))
    with pytest.raises(MemoryError, match="the matrix as float32"):
        as_numpy(lambda: MADE, "the matrix", "float32", None)
