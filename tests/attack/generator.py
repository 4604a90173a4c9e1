"""Random problems, each made from its seed alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import hesskern as hk

KINDS = ("half_sum", "sum", "mean")
#: Families of problems, and how many of a hundred belong to each.
SHARES = {
    "normal": 30, "integers": 14, "scaled": 12, "graded": 12, "deficient": 12, "interpolating": 8, "zero": 4,
    "deep": 3, "wide": 5,
}  # fmt: skip
_FAMILIES = tuple(SHARES)
_ENDS = np.cumsum(list(SHARES.values()))


@dataclass(slots=True)
class RandomProblem:
    """A network, data and a loss, as arrays of one dtype."""

    family: str
    weights: list[np.ndarray]
    biases: list[np.ndarray | None]
    X: np.ndarray
    Y: np.ndarray
    kind: str
    weight_decay: float
    #: Layers or names of parameters that Hessians are taken of; None: all.
    params: list[int | str] | None = None
    #: Whether all numbers are integers so small that float64 holds every sum exactly.
    exact: bool = field(default=False)

    @property
    def widths(self) -> list[int]:
        """Widths of all layers, inputs first."""
        return [self.weights[0].shape[1], *(len(weight) for weight in self.weights)]

    def network(self) -> hk.LinearNetwork:
        """The network of the package."""
        return hk.LinearNetwork(self.weights, self.biases)

    def loss(self, backend: str | None = None) -> hk.SquaredLoss:
        """The loss of the package."""
        return hk.SquaredLoss(self.X, self.Y, self.kind, self.weight_decay, backend=backend)

    def __str__(self) -> str:
        biases = "".join("-" if bias is None else "b" for bias in self.biases)
        return (
            f"{self.family}, widths {'-'.join(map(str, self.widths))}, biases {biases}, N = {len(self.X)}, "
            f"{self.kind}, weight_decay {self.weight_decay:g}, {self.X.dtype}, params {self.params}"
        )


Rng = np.random.Generator


def draw(rng: Rng) -> RandomProblem:
    """Return the problem that this generator draws."""
    family = _FAMILIES[int(np.searchsorted(_ENDS, rng.integers(0, _ENDS[-1]), side="right"))]
    widths = _widths(rng, family)
    samples = _samples(rng, widths)
    with_biases = (0.0, 0.0, 1.0, 0.5)[rng.integers(0, 4)]
    weights, biases, X, Y = _MAKERS.get(family, _normal)(rng, widths, samples, with_biases)
    single = rng.random() < 0.25 and family != "integers"
    if family == "scaled":
        _scale(rng, weights, biases, X, Y, 15.0 if single else 145.0)
    elif family == "graded":
        _grade(rng, weights, biases, X, Y, 14.0 if single else 130.0)
    elif family == "deficient":
        for _ in range(int(rng.integers(1, 4))):
            _spoil(rng, weights, X, Y)
    dtype = np.float32 if single else np.float64
    weights = [weight.astype(dtype) for weight in weights]
    biases = [None if bias is None else bias.astype(dtype) for bias in biases]
    X, Y = X.astype(dtype), Y.astype(dtype)
    if family in ("interpolating", "zero"):
        Y = _predictions(weights, biases, X)
    kind, decay = KINDS[rng.integers(0, 3)], 0.0
    if rng.random() < 0.25:
        size = float(abs(weights[0]).max(initial=0.0)) if family == "scaled" else 1.0
        decay = float(10.0 ** rng.integers(-6, 2)) if size == 1.0 or family != "scaled" else 0.0
    problem = RandomProblem(family, weights, biases, X, Y, kind, decay)
    problem.exact = family in ("integers", "zero") and kind != "mean" and decay == 0.0
    if rng.random() < 0.5:
        problem.params = _params(rng, problem)
    return problem


def _widths(rng: Rng, family: str) -> list[int]:
    if family == "deep":
        depth = min(40, 4 + int(rng.geometric(0.15)))
        return [int(width) for width in rng.integers(1, 4, depth + 1)]
    if family == "wide":
        depth = int(rng.integers(2, 4))
        widths = [int(width) for width in rng.integers(1, 4, depth + 1)]
        widths[int(rng.integers(1, depth))] = int(rng.integers(9, 41))
        return widths
    depth = (1, 2, 2, 2, 2, 3, 3, 4)[rng.integers(0, 8)]
    top = (9, 7, 6, 5)[depth - 1]
    return [int(width) for width in rng.integers(1, top, depth + 1)]


def _samples(rng: Rng, widths: list[int]) -> int:
    how = rng.random()
    if how < 0.1:
        return 1
    if how < 0.15:
        return int(rng.integers(20, 200))
    return int(rng.integers(1, 2 * widths[0] + 4))


Arrays = tuple[list[np.ndarray], list[np.ndarray | None], np.ndarray, np.ndarray]


def _normal(rng: Rng, widths: list[int], samples: int, with_biases: float) -> Arrays:
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    deep = len(widths) > 6
    return (
        [rng.standard_normal((out, inner)) / (np.sqrt(inner) if deep else 1.0) for inner, out in pairs],
        [rng.standard_normal(out) if rng.random() < with_biases else None for _, out in pairs],
        rng.standard_normal((samples, widths[0])),
        rng.standard_normal((samples, widths[-1])),
    )


def _integers(rng: Rng, widths: list[int], samples: int, with_biases: float) -> Arrays:
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    return (
        [rng.integers(-3, 4, (out, inner)).astype(float) for inner, out in pairs],
        [rng.integers(-3, 4, out).astype(float) if rng.random() < with_biases else None for _, out in pairs],
        rng.integers(-4, 5, (samples, widths[0])).astype(float),
        rng.integers(-9, 10, (samples, widths[-1])).astype(float),
    )


_MAKERS: dict[str, Callable[[Rng, list[int], int, float], Arrays]] = {"integers": _integers, "zero": _integers}


def _scale(
    rng: Rng, weights: list[np.ndarray], biases: list[np.ndarray | None], X: np.ndarray, Y: np.ndarray, most: float
) -> None:
    """Scale every matrix as a whole, so that predictions and every block of the Hessian stay numbers of the dtype."""
    depth = len(weights)
    for _ in range(20):
        exponents = rng.uniform(-most, most, depth + 1)
        total = exponents.sum()
        if rng.random() < 0.7:  # predictions of order one
            exponents[0] -= total
            total = 0.0
        partial = np.cumsum(exponents)
        reach = [total - exponents[layer + 1] for layer in range(depth)]
        inside = [*exponents, *partial, total, *(total - partial)]
        pairs = [a + b for a in reach for b in [*reach, total]]
        if max(map(abs, inside)) <= most and max(map(abs, pairs)) <= 2 * most:
            break
    else:
        exponents = np.zeros(depth + 1)
        exponents[0] = rng.uniform(-most, most) / 2
        total = exponents.sum()
        partial = np.cumsum(exponents)
    X *= 10.0 ** exponents[0]
    for layer, weight in enumerate(weights):
        weight *= 10.0 ** exponents[layer + 1]
        if biases[layer] is not None:
            biases[layer] *= 10.0 ** partial[layer + 1]
    Y *= 10.0**total


def _grade(
    rng: Rng, weights: list[np.ndarray], biases: list[np.ndarray | None], X: np.ndarray, Y: np.ndarray, budget: float
) -> None:
    """Scale rows and columns of some of the matrices by powers of ten."""
    sides = rng.random(2 * len(weights) + 3) < 0.4
    each = min(40.0, budget / max(1, 2 * int(sides.sum()))) * rng.random()

    def powers(count: int) -> np.ndarray:
        return 10.0 ** rng.uniform(-each, each, count)

    if sides[0]:
        X *= powers(len(X))[:, None]
    if sides[1]:
        X *= powers(X.shape[1])
    if sides[2]:
        Y *= powers(Y.shape[1])
    for layer, weight in enumerate(weights):
        if sides[3 + 2 * layer]:
            weight *= powers(len(weight))[:, None]
        if sides[4 + 2 * layer]:
            weight *= powers(weight.shape[1])
    if sides.any() and len(weights) > 1 and rng.random() < 0.3:  # hidden units out of balance: the same predictions
        layer = int(rng.integers(0, len(weights) - 1))
        factors = powers(len(weights[layer]))
        weights[layer] *= factors[:, None]
        weights[layer + 1] /= factors
        if biases[layer] is not None:
            biases[layer] *= factors


def _spoil(rng: Rng, weights: list[np.ndarray], X: np.ndarray, Y: np.ndarray) -> None:
    """Take rank away from one matrix: zeros, copies, or a product of thin matrices."""
    matrices = [X, X, Y, *weights]
    matrix = matrices[int(rng.integers(0, len(matrices)))]
    how = int(rng.integers(0, 8))
    row, column = int(rng.integers(0, matrix.shape[0])), int(rng.integers(0, matrix.shape[1]))
    other, beside = int(rng.integers(0, matrix.shape[0])), int(rng.integers(0, matrix.shape[1]))
    match how:
        case 0:
            matrix[row] = 0.0
        case 1:
            matrix[:, column] = 0.0
        case 2:
            matrix[row] = matrix[other]
        case 3:
            matrix[:, column] = matrix[:, beside]
        case 4:
            matrix[:, column] = 1.0
        case 5:
            matrix[...] = np.outer(rng.standard_normal(matrix.shape[0]), rng.standard_normal(matrix.shape[1]))
        case 6:
            matrix[row] = -2.0 * matrix[other]
        case _:
            if rng.random() < 0.2:
                matrix[...] = 0.0
            else:
                matrix[:, column] = matrix[:, beside] + matrix.sum(axis=1)


def _predictions(weights: list[np.ndarray], biases: list[np.ndarray | None], X: np.ndarray) -> np.ndarray:
    values = X
    for weight, bias in zip(weights, biases, strict=True):
        values = values @ weight.T + (0 if bias is None else bias)
    return values.astype(X.dtype)


def _params(rng: Rng, problem: RandomProblem) -> list[int | str]:
    depth = len(problem.weights)
    if rng.random() < 0.6:
        return [int(rng.integers(0, depth))]
    if rng.random() < 0.5:
        chosen = [layer for layer in range(depth) if rng.random() < 0.5]
        return list(chosen or [depth - 1])
    names = [f"{layer}.weight" for layer in range(depth)]
    names += [f"{layer}.bias" for layer, bias in enumerate(problem.biases) if bias is not None]
    picked = [name for name in names if rng.random() < 0.5]
    return list(picked or [names[-1]])


def positions(problem: RandomProblem, params: list[int | str] | None) -> np.ndarray:
    """Return where the selected parameters stand in the flat vector."""
    chosen, at = [], 0
    for layer, (weight, bias) in enumerate(zip(problem.weights, problem.biases, strict=True)):
        for name, array in ((f"{layer}.weight", weight), (f"{layer}.bias", bias)):
            if array is None:
                continue
            if params is None or layer in params or name in params:
                chosen.append(np.arange(at, at + array.size))
            at += array.size
    return np.concatenate(chosen)
