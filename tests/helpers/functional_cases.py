"""Samples and layers for functions of tensors, and how their Hessians are compared."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch.utils import _pytree as pytree  # noqa: E402

torch.manual_seed(0)
X, Y = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)


W1, W2 = torch.randn(4, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)


b1, b2 = torch.randn(4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)


SIDE = torch.randn(3, 4, dtype=torch.float64)


def same(found, expected, tolerance=1e-10):
    """The same structure of tensors, and numbers that agree."""
    one, spec = pytree.tree_flatten(found)
    other, expected_spec = pytree.tree_flatten(expected)
    assert spec == expected_spec
    largest = max(each.abs().max() for each in other)
    for left, right in zip(one, other, strict=True):
        assert (left.shape, left.dtype, left.device) == (right.shape, right.dtype, right.device)
        assert (left - right).abs().max() <= tolerance * largest


def product(error):
    return torch.sum(error * error)
