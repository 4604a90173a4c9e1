"""The group "own": a loss with a weight for each sample, against the plain loss of repeated samples; and its misuses.

Weights are 1, 4 or 16: their roots round nothing, so the rows of the loss are as exact as the samples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import hesskern as hk
from attack import generator
from attack.judge import Judge
from attack.methods import CHECKS, DENSE, AttackCase
from attack.problems import BACKENDS
from hesskern.backends.data import Data
from hesskern.losses.least_squares import LeastSquaresLoss

#: Most samples after repetition.
_SAMPLES = 400
#: Methods that go through the loss.
_METHODS = (
    "loss", "gradient", "value_and_gradient", "product", "products", "toarray", "diagonal", "trace", "spectrum",
    "eigh", "condition", "solve", "logdet", "kfac",
)  # fmt: skip


class OwnLoss(LeastSquaresLoss):
    """``scale/2 Σ_n s_n ‖e_n‖²``, as a user would write it."""

    def __init__(self, X: Any, Y: Any, sample_weight: Any, factor: float, decay: float, backend: str | None) -> None:
        super().__init__(X, Y, decay, backend=backend)
        self.sample_weight, self.factor = sample_weight, factor

    @property
    def scale(self) -> float:
        return self.factor

    def rows(self) -> Data:
        root = np.sqrt(self.sample_weight)
        return Data(self.X * root[:, None], root, self.Y * root[:, None], 0.0)

    def cpu(self) -> OwnLoss:
        return self


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge one loss of this seed: its numbers, an ensemble with two scales, and another loss's checkpoint."""
    rng = np.random.default_rng([19, seed])
    judge = Judge()
    problem = generator.draw(rng)
    name = backend or BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    weights = rng.choice([1, 4, 16], len(problem.X))
    weights[np.cumsum(weights) > _SAMPLES] = 1
    copies = replace(
        problem,
        X=np.repeat(problem.X, weights, axis=0),
        Y=np.repeat(problem.Y, weights, axis=0),
        kind=str(rng.choice(["half_sum", "sum"])),
        exact=False,
    )
    case = AttackCase(copies, name, rng)
    factor = float(case.truth.scale)
    own = OwnLoss(problem.X, problem.Y, weights.astype(problem.X.dtype), factor, problem.weight_decay, name)
    case.loss = own
    dice = rng.integers(0, 100, len(_METHODS))
    for die, method in zip(dice, _METHODS, strict=True):
        check, share = CHECKS[method]
        if (everything or die < 2 * share) and (case.truth.count <= DENSE or method in _METHODS[:3]):
            with judge.check(f"own {method}/{name}"):
                check(case, judge)
    with judge.check(f"own misuse/{name}"):
        other = OwnLoss(own.X, own.Y, own.sample_weight, 2 * factor, problem.weight_decay, name)
        refused = ""
        try:
            hk.fit_ensemble([case.net] * 2, [own, other], lr=1e-300, max_steps=1, batch_size=1)
        except ValueError as error:
            refused = str(error)
        judge.true("loss[1] is" in refused or "batch_size is" in refused, f"two scales in an ensemble: {refused!r}")
    judge.wrong = [f"{sentence} [own loss of {copies}]" for sentence in judge.wrong]
    return judge
