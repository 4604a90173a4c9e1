"""The group "exact": condition numbers and ranks against mpmath, from the exact values of the floats.

The block of one layer from singular values of its two factors, the full Hessian of very small networks from the
eigenvalues of the exact matrix: the value must lie within ten times the stated uncertainty, and the rank must be right
or said to be doubtful.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

import hesskern as hk
from attack import generator
from attack.generator import RandomProblem
from attack.judge import Judge

BACKENDS = ("cpp", "cpp", "numba", "numpy")
_DIGITS = 400
#: Eigenvalues below this fraction of the largest are zeros: floats of the generator's range cannot make them so small.
_ZERO = mpmath.mpf(10) ** -320


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge one condition number."""
    rng = np.random.default_rng([7, seed])
    judge = Judge()
    drawn = BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    backend = backend or drawn
    whole = bool(rng.random() < 0.3)
    problem = generator.draw(rng)
    while not _small(problem, whole):
        problem = generator.draw(rng)
    net, loss = problem.network(), problem.loss(backend)
    layer = int(rng.integers(0, len(problem.weights)))
    part = ("full", "gauss_newton")[rng.integers(0, 2)]
    if whole and problem.family == "interpolating":
        part = "gauss_newton"  # the exact residual is the rounding error of the targets: it decides the exact rank
    with judge.check(f"condition in high precision/{backend}"):
        hessian = loss.hessian(net, None if whole else [layer])
        found = (hessian if part == "full" else hessian.gauss_newton()).condition()
        decay = problem.weight_decay if part == "full" else 0.0
        values = _whole(problem, part) if whole else _block(problem, layer)
        _judge(found, values, decay, problem, judge, whole=whole)
    judge.wrong = [
        f"{sentence} [{problem}; {'whole ' + part if whole else f'layer {layer}'}]" for sentence in judge.wrong
    ]
    return judge


def _small(problem: RandomProblem, whole: bool) -> bool:
    if whole:
        return sum(weight.size for weight in problem.weights) <= 10 and len(problem.weights) <= 4
    return max(problem.widths) <= 5 and len(problem.weights) <= 4 and len(problem.X) <= 12


def _judge(
    found: hk.Condition, values: list[Any], decay: float, problem: RandomProblem, judge: Judge, *, whole: bool
) -> None:
    with mpmath.workdps(_DIGITS):
        largest = max((abs(value) for value in values), default=mpmath.mpf(0))
        nonzero = [value for value in values if abs(value) > _ZERO * largest and value != 0]
        if decay:
            values = [value + mpmath.mpf(decay) for value in values]
            nonzero = [value for value in values if value != 0]
        sizes = sorted((abs(value) for value in nonzero), reverse=True)
    doubtful = found.gap < 1e3 or not found.uncertainty < 1e-3 or "doubt" in found.note or "uncertain" in found.note
    if not decay and (whole or problem.family == "deficient"):  # deficient up to rounding: see `generator`
        sizes = _counted(found, sizes, judge)
    if not decay:
        right = found.rank == len(sizes) or (found.rank < len(sizes) and doubtful)
        judge.true(right, f"rank {found.rank} instead of {len(sizes)}: {found!r}")
    if found.rank != len(sizes) or not sizes:
        return
    with mpmath.workdps(_DIGITS):
        value = sizes[0] / sizes[-1]
        if not np.isfinite(found.value):
            judge.true(
                value > mpmath.mpf(10) ** 300 and found.note, f"value {found.value} instead of {mpmath.nstr(value, 17)}"
            )
            return
        off = float(abs(mpmath.mpf(found.value) / value - 1))
    eps = float(np.finfo(problem.X.dtype).eps)
    judge.true(
        off <= 10 * found.uncertainty + 8 * eps,
        f"value {found.value:.17g} instead of {mpmath.nstr(value, 17)}, "
        f"off by {off:.2g} with uncertainty {found.uncertainty:.2g}",
    )


def _counted(found: hk.Condition, sizes: list[Any], judge: Judge) -> list[Any]:
    """Return the eigenvalues that the condition number speaks of, descending; judge what it says of the others.

    Eigenvalues of several layers come from one matrix, so those of a graded problem may be lost in its rounding errors;
    and sums of features that were rounded are no longer exactly dependent. Then the answer must say how many they are
    and what they are smaller than, and state no wider gap than there is.
    """
    kept, left_out = sizes[: found.rank], sizes[found.rank :]
    judge.true(found.rank + found.undecided <= found.size, f"{found.undecided} undecided ones: {found!r}")
    if not left_out or len(left_out) > found.undecided:
        return sizes
    judge.true("cannot be told from zero" in found.note, f"the note says nothing of {len(left_out)}: {found}")
    if np.isfinite(found.below):  # of a block's factors no eigenvalue is stated
        below = mpmath.mpf(found.below)
        judge.true(left_out[0] <= below, f"{mpmath.nstr(left_out[0], 5)} left out, below {found.below:.5g}")
    if kept:
        gap = kept[-1] / left_out[0] * (1 + 10 * mpmath.mpf(found.uncertainty))
        judge.true(found.gap <= gap, f"gap {found.gap:.5g} instead of {mpmath.nstr(gap, 5)}")
    return kept


def _matrix(array: np.ndarray) -> Any:
    return mpmath.matrix(array.astype(float).tolist())


def _chain(problem: RandomProblem, layer: int) -> Any:
    """Inputs of the layer, the constant one last where the layer has a bias."""
    ones = [[1.0]] * len(problem.X)
    current = _matrix(problem.X)
    for weight, bias in zip(problem.weights[:layer], problem.biases[:layer], strict=True):
        current = current * _matrix(weight).T
        if bias is not None:
            current = current + mpmath.matrix(ones) * _matrix(bias[None, :])
    if problem.biases[layer] is not None:
        wider = mpmath.matrix(current.rows, current.cols + 1)
        for row in range(current.rows):
            for column in range(current.cols):
                wider[row, column] = current[row, column]
            wider[row, current.cols] = 1
        current = wider
    return current


def _squares(matrix: Any) -> list[Any]:
    """All squared singular values that belong to columns of the matrix."""
    gram = matrix.T * matrix
    values = [abs(value) for value in mpmath.eigsy(gram, eigvals_only=True)]
    largest = max(values)
    return [value if value > _ZERO * largest else mpmath.mpf(0) for value in values]


def _block(problem: RandomProblem, layer: int) -> list[Any]:
    with mpmath.workdps(_DIGITS):
        into = _squares(_chain(problem, layer))
        top = mpmath.eye(len(problem.weights[-1]))
        for weight in problem.weights[:layer:-1]:
            top = top * _matrix(weight)
        out_of = _squares(top)
        scale = {"half_sum": mpmath.mpf(1), "sum": mpmath.mpf(2), "mean": mpmath.mpf(2) / problem.Y.size}[problem.kind]
        return [scale * a * b for a in into for b in out_of]


def _whole(problem: RandomProblem, part: str) -> list[Any]:
    """Eigenvalues of the exact dense matrix, entry by entry from the definition."""
    with mpmath.workdps(_DIGITS):
        hessian = _dense(problem, part)
        values = list(mpmath.eigsy(hessian, eigvals_only=True))
        largest = max(abs(value) for value in values)
        return [value if abs(value) > _ZERO * largest else mpmath.mpf(0) for value in values]


def _dense(problem: RandomProblem, part: str) -> Any:
    places = []
    for layer, (weight, bias) in enumerate(zip(problem.weights, problem.biases, strict=True)):
        places += [(layer, row, column) for row in range(weight.shape[0]) for column in range(weight.shape[1])]
        places += [] if bias is None else [(layer, row, -1) for row in range(len(bias))]
    count, samples = len(places), len(problem.X)
    inputs = [_chain(problem, layer) for layer in range(len(problem.weights))]
    tops = [mpmath.eye(len(problem.weights[-1]))]
    for weight in problem.weights[:0:-1]:
        tops.insert(0, tops[0] * _matrix(weight))
    last = inputs[-1][:, : problem.weights[-1].shape[1]] * _matrix(problem.weights[-1]).T
    if problem.biases[-1] is not None:
        last = last + mpmath.matrix([[1.0]] * samples) * _matrix(problem.biases[-1][None, :])
    residual = last - _matrix(problem.Y)
    found = mpmath.matrix(count, count)
    for i, (upper, r, s) in enumerate(places):
        for j, (lower, p, q) in enumerate(places):
            if j > i:
                continue
            s_at, q_at = (inputs[layer].cols - 1 if at < 0 else at for layer, at in ((upper, s), (lower, q)))
            total = mpmath.fdot(tops[upper][:, r], tops[lower][:, p]) * mpmath.fdot(
                inputs[upper][:, s_at], inputs[lower][:, q_at]
            )
            if part == "full" and upper > lower and s >= 0:
                between = mpmath.eye(len(problem.weights[lower]))
                for weight in problem.weights[lower + 1 : upper]:
                    between = _matrix(weight) * between
                total += between[s, p] * mpmath.fdot(residual * tops[upper][:, r], inputs[lower][:, q_at])
            found[i, j] = found[j, i] = total
    scale = {"half_sum": mpmath.mpf(1), "sum": mpmath.mpf(2), "mean": mpmath.mpf(2) / problem.Y.size}[problem.kind]
    return found * scale
