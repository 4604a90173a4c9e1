"""The group "grading": blocks of one layer with every side graded, against the exact numbers of `attack.gradings`."""

from __future__ import annotations

import mpmath
import numpy as np

import hesskern as hk
from attack.judge import Judge

BACKENDS = ("cpp", "cpp", "numba", "numpy")


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge the block of one layer; `everything`: of all layers."""
    from attack import gradings

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
            _judge(loss.hessian(net, [layer]).condition(), gradings.truth(problem, layer), problem.X.dtype, judge)
            judge.wrong = [each if "[" in each else f"{each} [layer {layer} of {problem}]" for each in judge.wrong]
    return judge


def _judge(found: hk.Condition, truth: tuple[mpmath.mpf, mpmath.mpf, int], dtype: np.dtype, judge: Judge) -> None:
    largest, smallest, rank = truth
    judge.true(found.rank <= rank <= found.rank + found.undecided, f"rank {found.rank} instead of {rank}: {found!r}")
    if found.rank != rank or rank == 0:
        return
    if not found.uncertainty < 1:  # no digit of it is known, which is said
        judge.true("not determine" in found.note, f"no word about the uncertainty: {found!r}")
        return
    with mpmath.workdps(60):
        value = largest / smallest
        if not np.isfinite(found.value):
            judge.true(value > mpmath.mpf(10) ** 300 and found.note, f"value {found.value}: {found!r}")
            return
        off = float(abs(mpmath.mpf(found.value) / value - 1))
    judge.true(
        off <= 10 * found.uncertainty + 8 * float(np.finfo(dtype).eps),
        f"value {found.value:.17g} instead of {mpmath.nstr(value, 17)}, off by {off:.2g}: {found!r}",
    )
