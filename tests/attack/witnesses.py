"""The group "autograd": what the package says about itself, `explain` of the true Hessian and `validate`."""

from __future__ import annotations

import numpy as np

import hesskern as hk
from attack import generator
from attack.judge import Judge
from attack.oracle import Truth


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """`explain` of the true matrix, spectrum or condition number must say so; `validate` must find nothing."""
    rng = np.random.default_rng([10, seed])
    judge = Judge()
    problem = generator.draw(rng)
    while problem.family not in ("normal", "integers", "wide", "deep") or sum(w.size for w in problem.weights) > 150:
        problem = generator.draw(rng)
    net, loss = problem.network(), problem.loss()
    chosen = generator.positions(problem, problem.params)
    dense = Truth(problem).hessian()[np.ix_(chosen, chosen)].astype(np.float64)
    with judge.check("explain of a matrix"):
        why = hk.explain(dense, net, loss, problem.params)
        judge.true(why.status == "match", f"{why.status}: {why.verdict}")
    with judge.check("explain of a spectrum"):
        if len(chosen) > 1 and problem.X.dtype == np.float64 and abs(dense).max() > 0:
            why = hk.explain(np.linalg.eigvalsh(dense), net, loss, problem.params)
            judge.true(why.status == "match", f"{why.status}: {why.verdict}")
    if everything or rng.random() < 0.3:
        with judge.check("validate"):
            report = hk.validate(net, loss)
            judge.true(report.ok, str(report)[-600:])
    judge.wrong = [f"{sentence} [{problem}]" for sentence in judge.wrong]
    return judge
