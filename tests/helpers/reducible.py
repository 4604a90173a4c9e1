"""Problems that training reduces: inputs of a lower rank, and starts with orthogonal inner layers."""

from __future__ import annotations

import dataclasses

import numpy as np
import problems
from trainings import with_biases


def few_samples(widths: list[int], samples: int, **options: object) -> problems.Problem:
    """Return a problem with fewer samples than inputs."""
    assert samples < widths[0]
    return problems.normal(widths, samples, 3, bias=True, **options)


def dependent_columns(widths: list[int], samples: int, **options: object) -> problems.Problem:
    """Return a problem with two constant columns, one of zeros, and one twice another: the rank of X is i - 3."""
    problem = problems.normal(widths, samples, 4, bias=True, **options)
    X = problem.X
    X[:, 1], X[:, 2], X[:, 3], X[:, 4] = 0.5, -2.0, 0.0, 2.0 * X[:, 0]
    return problem


def orthogonal(size: int, seed: int) -> np.ndarray:
    """Return an orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng([8, seed]).standard_normal((size, size)))[0]


def orthogonal_start(widths: list[int], samples: int, *, identity: bool = False, **options: object) -> problems.Problem:
    """Return a problem whose inner layers are 1.1 and 0.8 times orthogonal matrices, in turn."""
    problem = problems.normal(widths, samples, 5, bias=True, **options)
    inner = [
        (0.8, 1.1)[layer % 2] * (np.eye(widths[1]) if identity else orthogonal(widths[1], layer))
        for layer in range(1, len(problem.weights) - 1)
    ]
    return dataclasses.replace(problem, weights=[problem.weights[0], *inner, problem.weights[-1]])


#: Name, problem and the sentence of `Reduction`. Those that are rotated are large enough for it.
PROBLEMS = {
    "few samples": (lambda **o: with_biases(few_samples([9, 4, 2], 3, **o), []), "inputs 9 to 3"),
    "few samples, wide": (
        lambda **o: with_biases(few_samples([9, 20, 2], 3, **o), [0, 1]),
        "inputs 9 to 3; widths 9-20-2 to 3-6-2",
    ),
    "dependent columns": (
        lambda **o: with_biases(dependent_columns([7, 5, 2], 12, **o), [0]),
        "12 samples to 5 rows; inputs 7 to 4",
    ),
    "dependent columns, wide": (
        lambda **o: with_biases(dependent_columns([7, 30, 2], 12, **o), []),
        "12 samples to 4 rows; inputs 7 to 4; widths 7-30-2 to 4-6-2",
    ),
    "rotated": (
        lambda **o: with_biases(problems.normal([18, 40, 6], 40, 6, bias=True, **o), [1]),
        "40 samples to 19 rows; widths 18-40-6 to 18-24-6; X diagonal",
    ),
    "few samples, wide, rotated": (
        lambda **o: with_biases(few_samples([24, 40, 6], 17, **o), []),
        "inputs 24 to 17; widths 24-40-6 to 17-23-6; X diagonal",
    ),
    "orthogonal": (
        lambda **o: with_biases(orthogonal_start([3, 12, 12, 12, 2], 8, **o), []),
        "8 samples to 3 rows; orthogonal start: widths 3-12-12-12-2 to 3-5-5-5-2",
    ),
    "identity": (
        lambda **o: with_biases(orthogonal_start([3, 12, 12, 2], 8, identity=True, **o), []),
        "8 samples to 3 rows; orthogonal start: widths 3-12-12-2 to 3-5-5-2",
    ),
    "orthogonal, biases": (
        lambda **o: with_biases(orthogonal_start([3, 12, 12, 2], 8, **o), [0, 1, 2]),
        "8 samples to 4 rows; orthogonal start: widths 3-12-12-2 to 3-7-7-2",
    ),
    "few samples, orthogonal": (
        lambda **o: with_biases(orthogonal_start([6, 12, 12, 2], 4, **o), [1]),
        "inputs 6 to 4; orthogonal start: widths 6-12-12-2 to 4-7-7-2",
    ),
}
