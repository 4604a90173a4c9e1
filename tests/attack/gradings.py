"""Problems whose data and weights are graded on every side, and the exact condition number of each layer's block.

`draw(seed)` makes one problem, `truth(problem, layer)` its condition number from the floats as they are: the product in
rational arithmetic, its rank by elimination there, its singular values by mpmath with as many digits as they need.
Nothing of the package is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np

#: What a problem may be besides graded.
KINDS = ("full rank", "dependent samples", "dependent features", "dependent weights", "zeros", "integers")


@dataclass(frozen=True)
class GradedProblem:
    """Data and weights (biases or None), and how they were made."""

    X: np.ndarray
    weights: list[np.ndarray]
    biases: list[np.ndarray | None]
    weight_decay: float
    kind: str
    decades: float

    def __str__(self) -> str:
        widths = "-".join(map(str, [self.X.shape[1], *map(len, self.weights)]))
        biases = ", biases" if self.biases[0] is not None else ""
        return f"{widths}, {len(self.X)} samples, {self.X.dtype}, {self.kind}, 10^±{self.decades}{biases}"


def _sides(rng: np.random.Generator, shape: tuple[int, int], decades: float) -> np.ndarray:
    """Scales of a matrix, each side graded or not, in any order; powers of two, so that dependencies stay exact."""
    rows, columns = (
        np.round(np.log2(10.0) * exponents) * (rng.random() < 0.5)
        for exponents in (
            rng.permutation(np.linspace(-decades, decades, size))
            if rng.random() < 0.5
            else rng.uniform(-decades, decades, size)
            for size in shape
        )
    )
    return 2.0 ** (rows[:, None] + columns)


def _core(rng: np.random.Generator, shape: tuple[int, int], kind: str) -> np.ndarray:
    if kind == "integers":
        return rng.integers(-3, 4, shape).astype(float)
    matrix = rng.standard_normal(shape)
    if kind == "zeros":
        matrix *= rng.random(shape) < 0.7
    return matrix


def _depend(rng: np.random.Generator, matrix: np.ndarray) -> np.ndarray:
    """Make one row a small-integer combination of two others, exactly."""
    matrix = np.round(matrix * 2**10) / 2**10
    if len(matrix) >= 3:
        first, second, third = rng.permutation(len(matrix))[:3]
        matrix[third] = rng.integers(1, 3) * matrix[first] - rng.integers(1, 3) * matrix[second]
    return matrix


def draw(seed: int, *, most: float = 40.0, largest: int = 5) -> GradedProblem:
    """One problem: 1 to 6 layers, widths up to `largest`, sides graded over up to 10^±most or not at all."""
    rng = np.random.default_rng([79, seed])
    dtype = np.float32 if rng.random() < 0.2 else np.float64
    decades = float(rng.choice([0.0, 1.0, 2.0, 4.0, 6.0, 10.0, 20.0, 40.0]))
    decades = min(decades, most, 10.0 if dtype == np.float32 else most)
    kind = str(rng.choice(KINDS, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]))
    depth = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.2, 0.3, 0.2, 0.1, 0.1, 0.1]))
    narrow = int(rng.integers(1, largest + 1))
    widths = [int(width) for width in rng.integers(min(narrow, 2), largest + 1, depth + 1)]
    if rng.random() < 0.3:
        widths = [narrow] * (depth + 1)
    samples = int(rng.choice([widths[0], max(1, widths[0] - 1), widths[0] + 1, 2 * widths[0] + 3]))
    chain = [_core(rng, (samples, widths[0]), kind)]
    chain += [_core(rng, (out, into), kind) for into, out in zip(widths[:-1], widths[1:], strict=True)]
    if kind == "dependent samples":
        chain[0] = _depend(rng, chain[0])
    if kind == "dependent features":
        chain[0] = _depend(rng, chain[0].T).T
    if kind == "dependent weights":
        at = int(rng.integers(1, depth + 1))
        chain[at] = _depend(rng, chain[at]) if rng.random() < 0.5 else _depend(rng, chain[at].T).T
    chain = [
        np.ascontiguousarray(matrix.astype(dtype) * _sides(rng, matrix.shape, decades), dtype=dtype) for matrix in chain
    ]
    biases: list[np.ndarray | None] = [None] * depth
    if rng.random() < 0.25:
        scale = 10.0 ** rng.uniform(-decades, decades, depth)
        biases = [(rng.standard_normal(len(w)) * s).astype(dtype) for w, s in zip(chain[1:], scale, strict=True)]
    weight_decay = float(10.0 ** rng.uniform(-decades, decades)) if rng.random() < 0.1 else 0.0
    return GradedProblem(chain[0], chain[1:], biases, weight_decay, kind, decades)


def _exact(matrix: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(entry)) for entry in row] for row in matrix]


def _times_transposed(a: list[list[Fraction]], b: list[list[Fraction]]) -> list[list[Fraction]]:
    return [[sum((x * y for x, y in zip(row, other, strict=True)), Fraction(0)) for other in b] for row in a]


def _rank(matrix: list[list[Fraction]]) -> int:
    rows, rank = [row[:] for row in matrix], 0
    for column in range(len(rows[0])):
        pivot = next((k for k in range(rank, len(rows)) if rows[k][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for k in range(rank + 1, len(rows)):
            if rows[k][column]:
                factor = rows[k][column] / rows[rank][column]
                rows[k] = [x - factor * y for x, y in zip(rows[k], rows[rank], strict=True)]
        rank += 1
    return rank


def _singular_values(matrix: list[list[Fraction]]) -> list[Any]:
    """The nonzero singular values, descending, exact to thirty digits and more."""
    rank = _rank(matrix)
    if rank == 0:
        return []
    digits = 60
    while True:
        with mpmath.workdps(digits):
            values = mpmath.svd_r(
                mpmath.matrix([[mpmath.mpf(x.numerator) / x.denominator for x in row] for row in matrix]),
                compute_uv=False,
            )
            values = sorted((abs(value) for value in values), reverse=True)
            if values[rank - 1] > values[0] * mpmath.mpf(10) ** (30 - digits):
                return [+value for value in values[:rank]]
        digits *= 2


def factors(problem: GradedProblem, layer: int) -> tuple[list[Any], list[Any], int]:
    """Nonzero singular values of what goes into a layer and of what follows it, and the size of its block."""
    rows = _exact(problem.X)
    for weight, bias in zip(problem.weights[:layer], problem.biases[:layer], strict=True):
        rows = _times_transposed(rows, _exact(weight))
        if bias is not None:
            rows = [[x + Fraction(float(b)) for x, b in zip(row, bias, strict=True)] for row in rows]
    if problem.biases[layer] is not None:
        rows = [[*row, Fraction(1)] for row in rows]
    outputs = len(problem.weights[layer])
    above = [[Fraction(int(i == j)) for j in range(outputs)] for i in range(outputs)]
    for weight in problem.weights[layer + 1 :]:
        above = _times_transposed(above, _exact(weight))
    return _singular_values(rows), _singular_values(above), outputs * len(rows[0])


def truth(problem: GradedProblem, layer: int) -> tuple[Any, Any, int]:
    """Largest and smallest nonzero eigenvalue of the block of one layer (weight and bias, half_sum), and its rank."""
    into, out_of, size = factors(problem, layer)
    rank = len(into) * len(out_of)
    with mpmath.workdps(50):
        largest = (into[0] * out_of[0]) ** 2 if rank else mpmath.mpf(0)
        smallest = (into[-1] * out_of[-1]) ** 2 if rank else mpmath.mpf(0)
        if problem.weight_decay:
            decay = mpmath.mpf(problem.weight_decay)
            return largest + decay, smallest + decay if rank == size else decay, size
        return largest, smallest, rank
