"""Training with reductions against training without, of the group "reductions"."""

from __future__ import annotations

from typing import Any

import numpy as np

import hesskern as hk
from attack import reduced_problems
from attack.judge import LIMIT, Judge
from attack.oracle import Truth

#: What a stable run of at most a hundred steps may differ by, relative to the largest weight.
_STRICT = 1e-12
#: Runs in which a small change grows by more than this say nothing about digits.
_CHAOTIC = 1e3
#: Where values around the cut differ by less, another size of the matrix may decide otherwise.
_CLEAR = 1e3


def run(rng: np.random.Generator, backend: str, judge: Judge) -> None:
    """Judge one run, or an ensemble of two."""
    problem = reduced_problems.draw(rng)
    while problem.family in ("graded", "integers"):  # rates that are stable there take no steps at all
        problem = reduced_problems.draw(rng)
    problem.params = None
    truth = Truth(problem)
    sharpness = float(abs(np.linalg.eigvalsh(truth.hessian().astype(float))).max()) or 1.0
    options: dict[str, Any] = {
        "lr": float(rng.choice([0.05, 0.2, 0.5])) / sharpness,
        "max_steps": int(rng.choice([1, 20, 100])),
        "record": ("loss", "gradient_norm"),
        "record_every": int(rng.integers(1, 5)),
        "backend": backend,
    }
    if rng.random() < 0.4:
        options |= {"momentum": float(rng.choice([0.3, 0.9])), "nesterov": bool(rng.random() < 0.5)}
        options["lr"] *= 1 - options["momentum"]
    if rng.random() < 0.3:
        options |= {"batch_size": int(rng.integers(1, len(problem.X) + 1)), "seed": int(rng.integers(1000))}
    net, loss = problem.network(), problem.loss()
    before, growth = len(judge.wrong), np.inf
    with judge.check(f"reduced fit/{backend}"):
        reduced, plain = (hk.fit(net, loss, reduce=reduce, **options) for reduce in ("auto", "none"))
        judge.true(reduced.status == plain.status, f"{reduced.status} instead of {plain.status}")
        judge.true(reduced.steps == plain.steps, f"{reduced.steps} steps instead of {plain.steps}")
        growth = _growth(net, loss, plain, options)
        if growth <= _CHAOTIC:
            _same(reduced.network.flatten(), plain.network.flatten(), "weights", judge, growth)
            # Residuals are known to the rounding of predictions and targets.
            unit = truth.roundings * float(np.finfo(float).eps)
            noise = {"loss": truth.loss_size(unit), "gradient_norm": np.linalg.norm(truth.gradient[1].astype(float))}
            for name in options["record"]:
                limit = LIMIT * unit * float(noise[name])
                _same(reduced.history[name], plain.history[name], name, judge, growth, limit)
    if "batch_size" not in options and rng.random() < 0.3 and growth <= _CHAOTIC:
        with judge.check(f"reduced fit_ensemble/{backend}"):
            ends = [
                hk.fit_ensemble(
                    [net, net], loss, reduce=reduce, lr=options["lr"], max_steps=options["max_steps"], backend=backend
                )
                for reduce in ("auto", "none")
            ]
            for first, second in zip(ends[0].weights, ends[1].weights, strict=True):
                _same(first, second, "weights of the ensemble", judge, growth)
    with judge.check(f"recorded rank/{backend}"):
        rank = hk.fit(net, loss, lr=options["lr"], max_steps=1, record=("rank",), backend=backend).history["rank"][0]
        condition = loss.hessian(net).condition()
        if "noise" not in condition.note and condition.gap > _CLEAR:
            most = condition.rank + condition.undecided
            judge.true(condition.rank <= rank <= most, f"recorded rank {rank}, but {condition!r}")
        judge.true(0 <= rank <= net.num_parameters, f"recorded rank {rank} of {net.num_parameters}")
    what = f" [{problem}; {options}]"
    judge.wrong[before:] = [sentence + what for sentence in judge.wrong[before:]]


def _growth(net: hk.LinearNetwork, loss: hk.SquaredLoss, plain: hk.Run, options: dict[str, Any]) -> float:
    """Return how much larger a small change of the start becomes, at least 1: sharpness may rise during a run."""
    start = net.flatten()
    size = abs(start).max(initial=0.0) or 1.0
    change = 0.1 * np.sqrt(np.finfo(start.dtype).eps) * size * np.random.default_rng(0).standard_normal(len(start))
    moved = hk.fit(net.unflatten(start + change.astype(start.dtype)), loss, reduce="none", **options)
    return max(1.0, float(abs(moved.network.flatten() - plain.network.flatten()).max() / abs(change).max()))


def _same(reduced: np.ndarray, plain: np.ndarray, name: str, judge: Judge, growth: float, noise: float = 0.0) -> None:
    size = float(abs(plain).max(initial=0.0))
    off = float(abs(np.asarray(reduced) - np.asarray(plain)).max(initial=0.0))
    judge.true(off <= growth * _STRICT * size + noise, f"{name} differ by {off:.3g}, the largest is {size:.3g}")
