"""Random problems, made from a seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import hesskern as hk

KINDS = ("half_sum", "sum", "mean")


@dataclass(frozen=True)
class Problem:
    """Weights, biases and data, as integers or as floats."""

    weights: list[np.ndarray]
    biases: list[np.ndarray | None]
    X: np.ndarray
    Y: np.ndarray
    kind: str = "half_sum"
    weight_decay: float = 0.0

    def network(self, dtype: str = "float64") -> hk.LinearNetwork:
        """The network of the package."""
        return hk.LinearNetwork(
            [w.astype(dtype) for w in self.weights], [None if b is None else b.astype(dtype) for b in self.biases]
        )

    def loss(self, dtype: str = "float64") -> hk.SquaredLoss:
        """The loss of the package."""
        return hk.SquaredLoss(self.X.astype(dtype), self.Y.astype(dtype), self.kind, self.weight_decay)


def _special(rng: np.random.Generator, seed: int) -> tuple[int, list[int]]:
    """Number of samples and widths; each seed in a row gives another of the shapes that break things."""
    depth = int(rng.integers(1, 4))
    widths = [int(width) for width in rng.integers(1, 5, depth + 1)]
    samples = int(rng.integers(1, 9))
    match seed % 7:
        case 0:  # fewer samples than inputs
            widths[0] = 4
            samples = int(rng.integers(1, 4))
        case 1:
            samples = 1
        case 2:
            widths[0] = 1
        case 3:
            widths[-1] = 1
        case 4:
            widths = [widths[0], 1, 3]
        case 5:  # a bottleneck
            widths = [3, 2, 4]
    return samples, widths


def small(seed: int) -> Problem:
    """Return a small problem with integer entries, for exact answers."""
    rng = np.random.default_rng([2024, seed])
    samples, widths = _special(rng, seed)
    biases = [
        rng.integers(-3, 4, out) if seed % 3 == 1 or (seed % 3 == 2 and rng.random() < 0.5) else None
        for out in widths[1:]
    ]
    return Problem(
        [rng.integers(-3, 4, (out, inner)) for inner, out in zip(widths[:-1], widths[1:], strict=True)],
        biases,
        rng.integers(-3, 4, (samples, widths[0])),
        rng.integers(-9, 10, (samples, widths[-1])),
        KINDS[seed // 3 % 3],
        0.75 if seed % 4 == 3 else 0.0,
    )


def normal(widths: list[int], samples: int, seed: int = 0, *, bias: bool = False, **loss: object) -> Problem:
    """Return a problem with normal data and weights of variance 1/in: activations stay near one at any size."""
    rng = np.random.default_rng([4711, seed])
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    return Problem(
        [rng.standard_normal((out, inner)) / np.sqrt(inner) for inner, out in pairs],
        [rng.standard_normal(out) if bias else None for _, out in pairs],
        rng.standard_normal((samples, widths[0])),
        rng.standard_normal((samples, widths[-1])),
        **loss,  # type: ignore[arg-type]
    )


def _general_widths(rng: np.random.Generator, depth: int, shape: str) -> list[int]:
    widths = [int(width) for width in rng.integers(2, 6, depth + 1)]
    if shape == "one" and depth > 1:
        widths[int(rng.integers(1, depth))] = 1
    elif shape == "ends":
        widths[int(rng.integers(0, 2)) * depth] = 1
    elif shape == "wide" and depth > 1:
        layer = int(rng.integers(1, depth))
        widths[layer] = widths[layer - 1] + widths[layer + 1] + 1 + int(rng.integers(1, 5))
    elif shape == "wide twice" and depth > 1:  # reducible next to each other, or one behind the other
        widths = [2, *([3, 9, 2, 8, 3][: depth - 1] if rng.random() < 0.5 else [7, 13, 2, 7, 3][: depth - 1]), 2]
    return widths


#: Seeds of `general` that tests go through: every depth with every shape, and what else
#: tests/curvature/test_hessian.py asks for.
GENERAL = (*range(0, 300, 7), 51)
#: Seeds of `small` with every special shape, kind, decay and choice of biases.
SMALL = range(0, 200, 5)

SHAPES = ("plain", "one", "ends", "wide", "wide twice", "few samples")


def general(seed: int) -> Problem:
    """Return a normal problem of depth 1 to 5: each seed in a row another depth, each five another kind of shape."""
    rng = np.random.default_rng([31, seed])
    depth, shape = 1 + seed % 5, SHAPES[seed // 5 % 6]
    widths = _general_widths(rng, depth, shape)
    samples = int(rng.integers(1, widths[0])) if shape == "few samples" else int(rng.integers(widths[0], 12))
    chance = (0.0, 1.0, 0.5)[int(rng.integers(0, 3))]
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    return Problem(
        [rng.standard_normal((out, inner)) / np.sqrt(inner) for inner, out in pairs],
        [rng.standard_normal(out) if rng.random() < chance else None for _, out in pairs],
        rng.standard_normal((samples, widths[0])),
        rng.standard_normal((samples, widths[-1])),
        KINDS[int(rng.integers(0, 3))],
        (0.0, 0.375)[int(rng.integers(0, 2))],
    )


def deep_integers(seed: int) -> Problem:
    """Return a small problem of depth 1 to 5 with integer entries, for exact answers."""
    rng = np.random.default_rng([57, seed])
    depth = 1 + seed % 5
    widths = [int(width) for width in rng.integers(1, 4, depth + 1)]
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    samples = int(rng.integers(1, 6))
    chance = (0.0, 1.0, 0.5)[seed // 5 % 3]
    return Problem(
        [rng.integers(-2, 3, (out, inner)) for inner, out in pairs],
        [rng.integers(-2, 3, out) if rng.random() < chance else None for _, out in pairs],
        rng.integers(-3, 4, (samples, widths[0])),
        rng.integers(-9, 10, (samples, widths[-1])),
        KINDS[int(rng.integers(0, 3))],
        (0.0, 0.75)[int(rng.integers(0, 2))],
    )
