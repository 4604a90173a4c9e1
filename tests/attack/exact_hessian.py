"""The Hessian of a small network from the exact values of its floats, in mpmath, by arrays of its numbers.

With P the selected parameters it costs O(P² N o) operations of some microseconds.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from attack.generator import RandomProblem

Numbers = Any  # an array of mpmath's numbers


def hessian(problem: RandomProblem, mode: str) -> Numbers:
    """Return the whole matrix of "full", "gauss_newton" or "functional", without weight decay."""
    weights = [_numbers(weight) for weight in problem.weights]
    biases = [None if bias is None else _numbers(bias) for bias in problem.biases]
    inputs = [_numbers(problem.X)]
    for weight, bias in zip(weights, biases, strict=True):
        inputs.append(inputs[-1] @ weight.T + (0 if bias is None else bias))
    residual = inputs.pop() - _numbers(problem.Y)
    above = [_eye(len(weights[-1]))]
    for weight in weights[:0:-1]:
        above.insert(0, above[0] @ weight)
    joined = [_with_constant(given, bias) for given, bias in zip(inputs, biases, strict=True)]
    sizes = [len(weight) * given.shape[1] for weight, given in zip(weights, joined, strict=True)]
    ends = np.cumsum([0, *sizes])
    whole = np.full((ends[-1], ends[-1]), mpmath.mpf(0), dtype=object)
    if mode != "functional":
        J = np.hstack([np.kron(top, given) for top, given in zip(above, joined, strict=True)])
        whole = whole + J.T @ J
    for upper in range(len(weights)) if mode != "gauss_newton" else ():
        between: Numbers = None
        for lower in range(upper - 1, -1, -1):
            between = _eye(len(weights[lower])) if between is None else between @ weights[lower + 1]
            gradient = (residual @ above[upper]).T @ joined[lower]  # (rows of upper, columns of lower)
            cube = np.einsum("sp,rq->rspq", _padded(between, joined[upper].shape[1]), gradient)
            block = cube.reshape(sizes[upper], sizes[lower])
            rows, columns = slice(ends[upper], ends[upper + 1]), slice(ends[lower], ends[lower + 1])
            whole[rows, columns] = whole[rows, columns] + block
            whole[columns, rows] = whole[columns, rows] + block.T
    order = []
    for weight, given, start in zip(weights, joined, ends, strict=False):
        place = start + np.arange(len(weight) * given.shape[1]).reshape(len(weight), -1)
        order += [place[:, : weight.shape[1]].ravel(), place[:, weight.shape[1] :].ravel()]
    at = np.concatenate(order)
    return _scale(problem) * whole[np.ix_(at, at)]


def _scale(problem: RandomProblem) -> Any:
    return {"half_sum": mpmath.mpf(1), "sum": mpmath.mpf(2), "mean": mpmath.mpf(2) / problem.Y.size}[problem.kind]


def _numbers(array: np.ndarray) -> Numbers:
    return np.vectorize(mpmath.mpf, otypes=[object])(array.astype(float))


def _eye(size: int) -> Numbers:
    return _numbers(np.eye(size))


def _with_constant(given: Numbers, bias: Numbers | None) -> Numbers:
    return given if bias is None else np.hstack([given, _numbers(np.ones((len(given), 1)))])


def _padded(between: Numbers, rows: int) -> Numbers:
    """Return the map to the inputs of the upper layer, of which the constant one depends on nothing."""
    return np.vstack([between, _numbers(np.zeros((rows - len(between), between.shape[1])))])
