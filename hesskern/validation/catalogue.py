"""The built-in networks, for a call without a network: small ones of every shape, the case, and a large one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hesskern import datasets
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.validation.case import ValidationCase

#: name: widths, samples, options
_DRAWN: dict[str, tuple[Sequence[int], int, dict[str, Any]]] = {
    "depth 1": ([4, 3], 6, {"bias": [True], "kind": "sum"}),
    "two layers": ([3, 5, 2], 7, {}),
    "square": ([4, 4, 4], 4, {"kind": "mean"}),
    "wide, biases": ([3, 20, 2], 9, {"bias": [True, True], "kind": "mean", "decay": 0.05}),
    "few samples": ([6, 4, 3], 2, {"bias": [True, False], "kind": "sum"}),
    "one sample": ([2, 3, 2], 1, {}),
    "bottleneck": ([5, 2, 6], 11, {"decay": 0.1}),
    "depth 3": ([4, 5, 3, 4], 8, {"bias": [False, True, False]}),
    "depth 4": ([3, 4, 5, 4, 2], 10, {"bias": [True] * 4, "kind": "mean"}),
    "float32": ([3, 6, 2], 8, {"bias": [True, True], "dtype": np.float32}),
    "large": ([8, 80, 16, 5], 600, {"bias": [True, True, True], "kind": "mean"}),
}


def names() -> tuple[str, ...]:
    """Return the names of the built-in problems."""
    return (*_DRAWN, "the case")


def problem(name: str) -> ValidationCase:
    """Return a built-in problem, the same numbers each time."""
    if name == "the case":
        case = datasets.two_layer_case()
        return ValidationCase(name, case.network, SquaredLoss(case.X, case.Y))
    widths, samples, options = _DRAWN[name]
    rng = np.random.default_rng([86, list(_DRAWN).index(name)])
    dtype = options.get("dtype", np.float64)
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    biases = options.get("bias", [False] * len(pairs))
    net = LinearNetwork(
        [(rng.standard_normal((out, inner)) / np.sqrt(inner)).astype(dtype) for inner, out in pairs],
        [
            rng.standard_normal(out).astype(dtype) if bias else None
            for (_, out), bias in zip(pairs, biases, strict=True)
        ],
    )
    X, Y = (rng.standard_normal((samples, size)).astype(dtype) for size in (widths[0], widths[-1]))
    return ValidationCase(name, net, SquaredLoss(X, Y, options.get("kind", "half_sum"), options.get("decay", 0.0)))
