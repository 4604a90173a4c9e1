"""The group "grading": blocks of one layer with every side graded, against the exact numbers of `attack.gradings`."""

from __future__ import annotations

import mpmath
import numpy as np

import hesskern as hk
from attack import gradings
from attack.judge import Judge

BACKENDS = ("cpp", "cpp", "numba", "numpy")


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge the block of one layer; `everything`: of all layers."""
    judge, problem = Judge(), gradings.draw(seed)
    rng = np.random.default_rng([11, seed])
    drawn = BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    backend = backend or drawn
    layers = range(len(problem.weights)) if everything else [int(rng.integers(0, len(problem.weights)))]
    outputs = len(problem.weights[-1])
    loss = hk.SquaredLoss(
        problem.X, np.zeros((len(problem.X), outputs), problem.X.dtype), "half_sum", problem.weight_decay,
        backend=backend,
    )  # fmt: skip
    net = hk.LinearNetwork(problem.weights, problem.biases)
    for layer in layers:
        with judge.check(f"graded condition/{backend}"):
            _judge(loss.hessian(net, [layer]).condition(), problem, layer, judge)
            judge.wrong = [each if "[" in each else f"{each} [layer {layer} of {problem}]" for each in judge.wrong]
    return judge


def _judge(found: hk.Condition, problem: gradings.GradedProblem, layer: int, judge: Judge) -> None:
    into, out_of, size = gradings.factors(problem, layer)
    decay = mpmath.mpf(problem.weight_decay)
    rank = size if decay else len(into) * len(out_of)
    judge.true(found.rank <= rank <= found.rank + found.undecided, f"rank {found.rank} instead of {rank}: {found!r}")
    if found.rank == 0:
        return
    if not found.uncertainty < 1:  # no digit of it is known, which is said
        judge.true("not determine" in found.note, f"no word about the uncertainty: {found!r}")
        return
    with mpmath.workdps(60):
        # Where fewer values are counted, they are the largest of either factor.
        counted = [(i, found.rank // i) for i in range(1, len(into) + 1) if found.rank % i == 0]
        if decay:
            counted = [(len(into), len(out_of))]
        values = [_value(into[:i], out_of[:j], size, decay) for i, j in counted if j <= len(out_of)]
        if not np.isfinite(found.value):
            judge.true(max(values) > mpmath.mpf(10) ** 300 and found.note, f"value {found.value}: {found!r}")
            return
        off = min(float(abs(mpmath.mpf(found.value) / value - 1)) for value in values)
    judge.true(
        off <= 10 * found.uncertainty + 8 * float(np.finfo(problem.X.dtype).eps),
        f"value {found.value:.17g} instead of {[mpmath.nstr(each, 17) for each in values]}, off by {off:.2g}: "
        f"{found!r}",
    )


def _value(into: list[mpmath.mpf], out_of: list[mpmath.mpf], size: int, decay: mpmath.mpf) -> mpmath.mpf:
    rank = len(into) * len(out_of)
    largest = (into[0] * out_of[0]) ** 2 if rank else mpmath.mpf(0)
    smallest = (into[-1] * out_of[-1]) ** 2 if rank == size or not decay else mpmath.mpf(0)
    return (largest + decay) / (smallest + decay)
