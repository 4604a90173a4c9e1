"""The group "resume": a run that is stopped at any step, saved and resumed is the run that was not stopped."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import hesskern as hk
from attack import training
from attack.judge import Judge

BACKENDS = ("cpp", "cpp", "numba", "numpy")


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Stop a run after each of some steps and resume it there."""
    rng = np.random.default_rng([3, seed])
    judge = Judge()
    problem, plan = training.draw(rng)
    while plan.steps < 2:
        problem, plan = training.draw(rng)
    if rng.random() < 0.3:  # a run that ends in overflow, the sooner the nearer
        plan.rates = [plan.rates[0] * float(10.0 ** rng.uniform(1, 160))] * plan.steps
    drawn = BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    backend = backend or drawn
    several = bool(rng.random() < 0.4)
    arguments: dict[str, Any] = plan.arguments() | {
        "backend": backend, "reduce": ("auto", "none")[rng.integers(0, 2)], "record_every": int(rng.integers(1, 4)),
        "record": training.records(problem, plan, rng),
    }  # fmt: skip
    if np.ndim(arguments["lr"]):  # its length is that of the whole run
        rates = arguments["lr"]
        arguments["lr"] = lambda step: float(rates[step])
    name = f"resume {'fit_ensemble' if several else 'fit'}/{backend}"
    nets = [problem.network()]
    if several:
        nets += [hk.LinearNetwork([w * w.dtype.type(0.7) for w in problem.weights], problem.biases)]
    with judge.check(name), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.npz"

        def trained(**changed: Any) -> Any:
            options = arguments | changed
            if several:
                return hk.fit_ensemble(nets, problem.loss(), threads=1, **options)
            return hk.fit(nets[0], problem.loss(), **options)

        whole = trained()
        longest = int(np.max(whole.steps))
        steps = {int(step) for step in rng.integers(1, plan.steps + 1, 2)}
        steps |= {
            step for step in (longest - 1, longest, longest + 1) if 1 <= step <= plan.steps and rng.random() < 0.5
        }
        for step in range(1, plan.steps + 1) if everything else sorted(steps):
            trained(max_steps=step, checkpoint=path)
            _same(trained(resume=path), whole, f"stopped after {step} of {longest} steps", judge)
            os.unlink(path)
    judge.wrong = [
        f"{sentence} [{problem}; {dataclasses.replace(plan, rates=plan.rates[:1])}]" for sentence in judge.wrong
    ]
    return judge


def _same(found: Any, whole: Any, what: str, judge: Judge) -> None:
    judge.same(found.steps, whole.steps, f"{what}: steps {found.steps} instead of {whole.steps},")
    judge.true(np.array_equal(found.status, whole.status), f"{what}: status {found.status} instead of {whole.status}")
    if isinstance(found, hk.Ensemble):
        for one, other in zip(found.weights, whole.weights, strict=True):
            judge.same(one, other, f"{what}: weights")
    else:
        judge.same(found.network.flatten(), whole.network.flatten(), f"{what}: network")
    for name, column in whole.history.items():
        judge.same(found.history[name], column, f"{what}: history of {name}")
