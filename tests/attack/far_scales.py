"""The group "far": samples whose squares leave float64, and a first weight that brings the numbers back.

Powers of two round nothing, so that every answer is that of the ordinary network, which the group "problem" holds
against an oracle of its own. The gradient of the first weight alone is measured in another unit.
"""

from __future__ import annotations

import numpy as np

import hesskern as hk
from attack.judge import Judge

BACKENDS = ("cpp", "cpp", "numba", "numpy")


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge the block of the last layer, the loss, and the first losses of a run; `everything` adds none."""
    del everything
    rng = np.random.default_rng([14, seed])
    drawn = BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    backend = backend or drawn
    widths = [int(width) for width in rng.integers(1, 6, int(rng.integers(3, 5)))]
    if rng.random() < 0.5:
        widths[1] = int(rng.integers(8, 15))  # wide: training reduces it
    samples, power = int(rng.integers(1, 30)), int(rng.integers(380, 590)) * int(rng.choice([-1, 1]))
    X, Y = rng.standard_normal((samples, widths[0])), rng.standard_normal((samples, widths[-1]))
    weights = [rng.standard_normal((out, inner)) for inner, out in zip(widths[:-1], widths[1:], strict=True)]
    judge = Judge()
    with judge.check(f"far scales/{backend}"):
        near, far = (_answers(X, Y, weights, by, backend) for by in (0, power))
        for name, truth in near.items():
            size = float(np.abs(truth).max(initial=0.0))
            judge.ratio(float(np.abs(far[name] - truth).max(initial=0.0)), 1e-12 * size, name)
    judge.wrong = [f"{sentence} [widths {widths}, N = {samples}, X times 2^{power}]" for sentence in judge.wrong]
    return judge


def _answers(
    X: np.ndarray, Y: np.ndarray, weights: list[np.ndarray], power: int, backend: str
) -> dict[str, np.ndarray]:
    net = hk.LinearNetwork([np.ldexp(weights[0], -power), *weights[1:]])
    loss = hk.SquaredLoss(np.ldexp(X, power), Y, backend=backend)
    block = loss.hessian(net, [len(weights) - 1])
    condition = block.condition()
    run = hk.fit(net, loss, lr=5e-324, max_steps=2, backend=backend)
    return {
        "loss": np.array([loss(net)]),
        "first training loss": run.history["loss"][:1],
        "product": block @ np.ones(block.shape[1]),
        "dense": block.toarray(),
        "trace": np.array([block.trace()]),
        "condition": np.array([condition.value, condition.rank]) if condition.value < 1e8 else np.zeros(2),
    }
