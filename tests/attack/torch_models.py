"""The group "torch": `hesskern.torch` on the same numbers as PyTorch modules."""

from __future__ import annotations

import numpy as np
import torch

import hesskern.torch
from attack import generator
from attack.judge import Judge
from attack.methods import DENSE
from attack.oracle import LONG, Truth


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge the Hessian, a product and the spectrum of one model."""
    rng = np.random.default_rng([9, seed])
    judge = Judge()
    problem = generator.draw(rng)
    while problem.family in ("scaled", "graded") or sum(weight.size for weight in problem.weights) > DENSE // 3:
        problem = generator.draw(rng)
    problem.weight_decay = 0.0
    problem.kind = ("sum", "mean")[rng.integers(0, 2)]
    truth = Truth(problem)
    eps = float(np.finfo(problem.X.dtype).eps)
    unit = eps * truth.roundings
    model = problem.network().to_torch()
    loss = torch.nn.MSELoss(reduction=problem.kind)
    data = torch.from_numpy(np.array(problem.X)), torch.from_numpy(np.array(problem.Y))
    with judge.check("torch hessian"):
        found = hesskern.torch.hessian(model, loss, data).numpy()
        judge.close(found, truth.hessian(), truth.hessian_size(), unit)
    with judge.check("torch hvp"):
        v = rng.standard_normal(truth.count).astype(problem.X.dtype)
        found = hesskern.torch.hvp(model, loss, data, torch.from_numpy(v)).numpy()
        judge.close(found, truth.hessian() @ v.astype(LONG), truth.hessian_size() @ abs(v.astype(LONG)), unit)
    with judge.check("torch spectrum"):
        found = np.sort(hesskern.torch.spectrum(model, loss, data).numpy().astype(np.float64))
        values = np.linalg.eigvalsh(truth.hessian().astype(np.float64))
        norm = float(np.linalg.norm(truth.hessian_size().astype(np.float64)))
        judge.ratio(abs(found - values).max(), eps * (truth.count + truth.roundings) * norm)
    judge.wrong = [f"{sentence} [{problem}]" for sentence in judge.wrong]
    return judge
