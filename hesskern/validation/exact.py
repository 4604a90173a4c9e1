"""Eigenvalues of one layer's Hessian in exact arithmetic: Python's integers, no rounding, no other package.

Floating-point numbers are integers times a power of two, so ``A.T A`` of a product A of weights and data can be
computed without any error. The number of its eigenvalues below x is the number of sign changes among the leading
principal minors of ``A.T A - x I`` (Sturm, Jacobi), also exact. Bisection then gives an eigenvalue to the last bit of
float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern.validation.case import Matrix, ValidationCase

#: Largest matrix whose minors, and most products whose factors, are affordable in integers.
_LARGEST, _MOST_PRODUCTS = 12, 200_000
#: Bits of float64 and a few more.
_BITS = 60


def block_condition(problem: ValidationCase, layer: int) -> tuple[float, int] | None:
    """Return condition number and rank of a layer's Hessian without decay, exact; None if that would take long.

    The rank takes the numbers as exact: a matrix that is singular up to rounding has full rank here.
    """
    chains = [_inputs(problem, layer)]
    if layer + 1 < problem.net.depth:
        chains.append(problem.weights[:layer:-1])
    if any(_takes_long(chain) for chain in chains):
        return None
    value, rank = Fraction(1), 1
    for gram in [_gram([_integers(factor) for factor in chain]) for chain in chains]:
        count = _rank(gram)
        if count == 0:
            return float("nan"), 0
        value *= _eigenvalue(gram, len(gram) - 1) / _eigenvalue(gram, len(gram) - count)
        rank *= count
    if layer == problem.net.depth - 1:
        rank *= problem.Y.shape[1]
    try:
        return float(value), rank
    except OverflowError:  # larger than any float64, so hesskern cannot return it either
        return None


def _inputs(problem: ValidationCase, layer: int) -> list[Matrix]:
    """Return factors whose product, samples in rows, is the layer's input."""
    bias = problem.net.has_bias
    factors = [np.column_stack([problem.X, np.ones(problem.samples)]) if bias else problem.X]
    for weight, shift in zip(problem.weights[:layer], problem.biases[:layer], strict=True):
        matrix = weight.T
        if bias:
            column = np.zeros(len(weight)) if shift is None else shift
            constant = np.append(np.zeros(weight.shape[1]), 1.0)[:, None]
            matrix = np.column_stack([np.vstack([weight.T, column]), constant])
        factors.append(matrix)
    if bias and problem.biases[layer] is None:
        factors[-1] = factors[-1][:, :-1]
    return factors


def _takes_long(chain: Sequence[Matrix]) -> bool:
    """Whether the Gram matrix of the product's shorter side takes more than tenths of a second."""
    dimensions = [len(chain[0]), *(factor.shape[1] for factor in chain)]
    products = sum(dimensions[0] * a * b for a, b in zip(dimensions[1:], dimensions[2:], strict=False))
    shorter = min(dimensions[0], dimensions[-1])
    entries = sum(factor.size for factor in chain)
    return bool(shorter > _LARGEST or products + entries + shorter * dimensions[0] * dimensions[-1] > _MOST_PRODUCTS)


def _integers(matrix: Matrix) -> NDArray[Any]:
    """Return the matrix times a power of two that makes its entries integers, with the same condition number."""
    ratios = [[float(entry).as_integer_ratio() for entry in row] for row in matrix]
    common = max(denominator for row in ratios for _, denominator in row)
    return np.array([[top * (common // bottom) for top, bottom in row] for row in ratios], dtype=object)


def _gram(factors: Sequence[NDArray[Any]]) -> list[list[int]]:
    """Return the Gram matrix of a product, over its shorter side."""
    product = factors[0]
    for factor in factors[1:]:
        product = product @ factor
    gram = product.T @ product if product.shape[1] <= len(product) else product @ product.T
    rows: list[list[int]] = gram.tolist()
    return rows


def _below(gram: list[list[int]], x: Fraction) -> int:
    """Return how many eigenvalues are less than x > 0, by the signs of the leading principal minors (Bareiss)."""
    top, bottom = x.numerator, x.denominator
    rows = [[bottom * entry - (top if i == j else 0) for j, entry in enumerate(row)] for i, row in enumerate(gram)]
    before, minor, changes = 1, 1, 0
    for k in range(len(rows)):
        pivot = rows[k][k]
        if pivot == 0:  # x is an eigenvalue of a leading part: a slightly smaller one is not
            return _below(gram, x * (1 - Fraction(1, 2**_BITS)))
        changes += (pivot > 0) != (minor > 0)
        for i in range(k + 1, len(rows)):
            for j in range(k + 1, len(rows)):
                rows[i][j] = (rows[i][j] * pivot - rows[i][k] * rows[k][j]) // before
        before = minor = pivot
    return changes


def _rank(gram: list[list[int]]) -> int:
    rows, rank = [list(row) for row in gram], 0
    before = 1
    for _ in range(len(rows)):
        # The diagonal of a positive semidefinite matrix is zero only if the whole matrix is.
        at = next((k for k in range(rank, len(rows)) if rows[k][k] != 0), None)
        if at is None:
            return rank
        rows[rank], rows[at] = rows[at], rows[rank]
        for row in rows:
            row[rank], row[at] = row[at], row[rank]
        pivot = rows[rank][rank]
        for i in range(rank + 1, len(rows)):
            for j in range(rank + 1, len(rows)):
                rows[i][j] = (rows[i][j] * pivot - rows[i][rank] * rows[rank][j]) // before
        before, rank = pivot, rank + 1
    return rank


def _eigenvalue(gram: list[list[int]], index: int) -> Fraction:
    """Return the eigenvalue number `index` (ascending, from 0), which is not zero, to the last bit of float64."""
    high = Fraction(sum(row[k] for k, row in enumerate(gram)) + 1)  # above the trace
    low = high / 2
    while _below(gram, low) > index:
        low, high = low / 2**8, low
    while high / low > 2:  # the exponent first
        middle = Fraction(2) ** round((_exponent(low) + _exponent(high)) / 2)
        if not low < middle < high:
            break
        low, high = (low, middle) if _below(gram, middle) > index else (middle, high)
    while high - low > low / 2 ** (_BITS - 4):
        middle = _short((low + high) / 2)
        if _below(gram, middle) > index:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def _exponent(x: Fraction) -> int:
    return x.numerator.bit_length() - x.denominator.bit_length()


def _short(x: Fraction) -> Fraction:
    """Return a number with few bits next to x: with long ones every step would be slower than the one before."""
    shift = 2 * _BITS - _exponent(x)
    power = Fraction(2) ** shift
    return Fraction(round(x * power)) / power
