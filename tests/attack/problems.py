"""The group "problem": a random problem, a random backend and a random third of all methods."""

from __future__ import annotations

import numpy as np

from attack import generator
from attack.judge import Judge
from attack.methods import CHECKS, DENSE, AttackCase

BACKENDS = ("cpp", "cpp", "cpp", "numba", "numpy")
#: What may be asked of a problem whose dense matrix would be too large.
_LIGHT = ("forward", "loss", "gradient", "value_and_gradient", "flatten", "save_and_load")


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Make the problem of this seed and judge the answers to it; `everything`: every method, whatever the dice say."""
    rng = np.random.default_rng([1, seed])
    judge = Judge()
    problem = generator.draw(rng)
    drawn = BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    case = AttackCase(problem, backend or drawn, rng)
    dice = rng.integers(0, 100, len(CHECKS))
    for die, (name, (check, share)) in zip(dice, CHECKS.items(), strict=True):
        if not everything and die >= share:
            continue
        if case.truth.count > DENSE and name not in _LIGHT:
            continue
        with judge.check(f"{name}/{case.backend}"):
            check(case, judge)
    judge.wrong = [f"{sentence} [{problem}]" for sentence in judge.wrong]
    return judge
