"""A problem's weights, samples and options as arguments of jitted functions."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")
import hesskern.numba as nb  # noqa: E402

KINDS = {"half_sum": nb.HALF_SUM, "sum": nb.SUM, "mean": nb.MEAN}


def listed(arrays, like):
    """A typed list; no bias is an empty array."""
    found = numba.typed.List()
    for array in arrays:
        found.append(np.empty(0, like.dtype) if array is None else array.copy())
    return found


def arguments(problem, dtype, form):
    """Weights, biases and the rest, as a tuple or as a typed list."""
    net = problem.network(dtype)
    weights, biases = [w.copy() for w in net.weights], [None if b is None else b.copy() for b in net.biases]
    options = {"kind": KINDS[problem.kind], "weight_decay": problem.weight_decay}
    X, Y = problem.X.astype(dtype), problem.Y.astype(dtype)
    if form == "list":
        return listed(weights, X), X, Y, {"biases": listed(biases, X), **options}
    return tuple(weights), X, Y, {"biases": tuple(biases) if any(b is not None for b in biases) else None, **options}
