"""Random networks that exact reductions make small: of depth 1 to 6, with widths from 1 to 40.

Hidden layers are equal, bottlenecks or wide; layers and samples may lack rank; there may be fewer samples than inputs,
repeated and constant columns, more outputs than inputs, biases, weight decay; graded and unbalanced numbers; residuals
of order one, small ones, and those that are rounding errors.
"""

from __future__ import annotations

import numpy as np

from attack.generator import KINDS, RandomProblem

Rng = np.random.Generator
SHAPES = ("equal", "bottleneck", "wide", "any", "any")
#: Most parameters: their dense eigenproblem is the judge.
MOST = 300
#: Most rows of the Jacobian, samples times outputs: it is multiplied in long double.
MOST_ROWS = 120
#: Most parameters of a network of integers: its rank is found by elimination in exact arithmetic.
MOST_EXACT = 110


def draw(rng: Rng) -> RandomProblem:
    """Return the problem that this generator draws."""
    family = str(
        rng.choice(["normal", "integers", "deficient", "interpolating", "small residual", "graded", "orthogonal"])
    )
    most = MOST_EXACT if family == "integers" else MOST
    while True:
        widths = _widths(rng)
        if sum(a * b + b for a, b in zip(widths[:-1], widths[1:], strict=True)) <= most:
            break
    samples = int(rng.integers(1, 3 * widths[0] + 3)) if rng.random() < 0.5 else int(rng.integers(1, widths[0] + 1))
    samples = min(samples, max(2, MOST_ROWS // widths[-1]))
    with_biases = float(rng.choice([0.0, 0.0, 0.5, 1.0]))
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    if family == "integers":
        weights = [rng.integers(-2, 3, (out, inner)).astype(float) for inner, out in pairs]
        biases = [rng.integers(-2, 3, out).astype(float) if rng.random() < with_biases else None for _, out in pairs]
        X = rng.integers(-2, 3, (samples, widths[0])).astype(float)
        Y = rng.integers(-3, 4, (samples, widths[-1])).astype(float)
    else:
        weights = [rng.standard_normal((out, inner)) / np.sqrt(inner) for inner, out in pairs]
        biases = [rng.standard_normal(out) if rng.random() < with_biases else None for _, out in pairs]
        X, Y = rng.standard_normal((samples, widths[0])), rng.standard_normal((samples, widths[-1]))
    if family == "orthogonal":
        for layer in range(1, len(weights) - 1):
            weights[layer] = float(10.0 ** rng.uniform(-0.2, 0.2)) * _orthogonal(rng, weights[layer])
    if family in ("deficient", "integers"):
        for _ in range(int(rng.integers(1, 4))):
            _spoil(rng, weights, X, integers=family == "integers")
    if family == "graded":
        _grade(rng, weights, biases, X)
    if family in ("interpolating", "small residual"):
        noise = 0.0 if family == "interpolating" else float(10.0 ** rng.uniform(-12, -2))
        Y = predictions(weights, biases, X) + noise * Y
    kind = KINDS[int(rng.integers(0, 2 if family == "integers" else 3))]
    decay = float(10.0 ** rng.integers(-6, 1)) if rng.random() < 0.2 and family != "integers" else 0.0
    problem = RandomProblem(family, weights, biases, X, Y, kind, decay, exact=family == "integers")
    if rng.random() < 0.25:
        chosen = [layer for layer in range(len(weights)) if rng.random() < 0.6]
        problem.params = list(chosen or [0])
    return problem


def predictions(weights: list[np.ndarray], biases: list[np.ndarray | None], X: np.ndarray) -> np.ndarray:
    """Return the network's outputs."""
    for weight, bias in zip(weights, biases, strict=True):
        X = X @ weight.T + (0 if bias is None else bias)
    return X


def _widths(rng: Rng) -> list[int]:
    depth, shape = int(rng.integers(1, 7)), SHAPES[int(rng.integers(0, len(SHAPES)))]
    ends = [int(width) for width in rng.integers(1, (41, 9)[rng.random() < 0.8], 2)]
    match shape:
        case "equal":
            hidden = [int(rng.integers(2, 13))] * (depth - 1)
        case "bottleneck":
            hidden = [int(width) for width in rng.integers(3, 13, depth - 1)]
            if hidden:
                hidden[int(rng.integers(len(hidden)))] = int(rng.integers(1, 3))
        case "wide":
            hidden = [int(width) for width in rng.integers(2, 9, depth - 1)]
            if hidden:
                hidden[int(rng.integers(len(hidden)))] = int(rng.integers(13, 41))
        case _:
            hidden = [int(width) for width in rng.integers(1, 11, depth - 1)]
    return [ends[0], *hidden, ends[1]]


def _orthogonal(rng: Rng, weight: np.ndarray) -> np.ndarray:
    if weight.shape[0] == weight.shape[1] and rng.random() < 0.3:
        return np.eye(len(weight))
    left, _, right = np.linalg.svd(weight, full_matrices=False)
    return left @ right


def _spoil(rng: Rng, weights: list[np.ndarray], X: np.ndarray, *, integers: bool) -> None:
    """Take rank away from one matrix."""
    matrices = [X, *weights]
    matrix = matrices[int(rng.integers(len(matrices)))]
    (m, n), how = matrix.shape, int(rng.integers(7))
    match how:
        case 0:
            matrix[:, int(rng.integers(n))] = 1.0
        case 1:
            matrix[:, int(rng.integers(n))] = matrix[:, int(rng.integers(n))]
        case 2:
            matrix[int(rng.integers(m))] = -2.0 * matrix[int(rng.integers(m))]
        case 3:
            matrix[:, int(rng.integers(n))] = 0.0
        case 4:
            matrix[int(rng.integers(m))] = 0.0
        case 5:
            rank = int(rng.integers(1, max(2, min(m, n))))
            if integers:
                matrix[...] = rng.integers(-1, 2, (m, rank)) @ rng.integers(-1, 2, (rank, n))
            else:
                matrix[...] = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n)) / np.sqrt(n)
        case _:
            matrix[:, int(rng.integers(n))] = matrix.sum(axis=1)


def _grade(rng: Rng, weights: list[np.ndarray], biases: list[np.ndarray | None], X: np.ndarray) -> None:
    """Put columns of X into other units, which the weights undo or not, and hidden units out of balance."""
    most = float(rng.choice([1, 3, 6, 9]))
    if rng.random() < 0.5:
        units = 10.0 ** rng.uniform(-most, most, X.shape[1])
        X *= units
        if rng.random() < 0.6:
            weights[0] /= units
    if rng.random() < 0.3:
        X *= 10.0 ** rng.uniform(-most, most, (len(X), 1))
    for layer in range(len(weights) - 1):
        if rng.random() < 0.4:
            units = 10.0 ** rng.uniform(-most, most, len(weights[layer]))
            weights[layer] *= units[:, None]
            weights[layer + 1] /= units
            if biases[layer] is not None:
                biases[layer] *= units
