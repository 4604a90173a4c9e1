"""The group "cuda": the CUDA backend's own code on tensors in main memory, its kernels compiled for the host.

The same stand-ins as in the tests (`device_place`): the launch of a kernel, and the answer to "is this on a GPU?".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch

import hesskern as hk
from attack import generator, loops
from attack.judge import Judge
from attack.loops import RunPlan
from attack.methods import DENSE, AttackCase
from attack.oracle import LONG
from hesskern import backends
from hesskern._base import devices


@contextmanager
def _stand_in() -> Iterator[None]:
    def place(array: object) -> str:
        return "cuda:0" if isinstance(array, torch.Tensor) else "cpu"

    with (
        mock.patch.dict(backends._MODULES, cuda="cuda_stand_in"),
        mock.patch.object(devices, "on_device", lambda value: isinstance(value, torch.Tensor)),
        mock.patch.object(devices, "place", place),
    ):
        backends._load.cache_clear()
        try:
            yield
        finally:
            backends._load.cache_clear()


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Judge losses, gradients, products, dense matrices and a few steps of one problem."""
    rng = np.random.default_rng([13, seed])
    judge, problem = Judge(), generator.draw(rng)
    while problem.family == "scaled" or sum(weight.size for weight in problem.weights) > DENSE // 2:
        problem = generator.draw(rng)
    case = AttackCase(problem, "cpp", rng)
    case.mode = "full"
    truth = case.truth
    with _stand_in():
        net = hk.LinearNetwork(
            [torch.tensor(weight) for weight in problem.weights],
            [None if bias is None else torch.tensor(bias) for bias in problem.biases],
        )
        loss = hk.SquaredLoss(torch.tensor(problem.X), torch.tensor(problem.Y), problem.kind, problem.weight_decay)
        hessian = loss.hessian(net, problem.params)
        with judge.check("cuda forward"):
            found = net.forward(loss.X).numpy()
            judge.close(found, truth.activations[-1], truth.sizes_of_activations[-1], case.unit)
        with judge.check("cuda loss"):
            judge.close(loss(net), truth.loss, truth.loss_size(case.unit), case.unit)
        with judge.check("cuda gradient"):
            judge.close(loss.gradient(net).numpy(), *truth.gradient, case.unit)
        with judge.check("cuda product"):
            V = case.vector(3)
            found = (hessian @ torch.tensor(V)).numpy()
            judge.close(found, case.dense @ V.astype(LONG), case.size @ abs(V.astype(LONG)), case.unit)
        with judge.check("cuda toarray"):
            judge.close(hessian.toarray().numpy(), case.dense, case.size, case.unit)
        if problem.family != "graded":
            with judge.check("cuda fit"):
                _steps(case, net, loss, judge)
    judge.wrong = [f"{sentence} [{problem}]" for sentence in judge.wrong]
    return judge


def _steps(case: AttackCase, net: hk.LinearNetwork, loss: hk.SquaredLoss, judge: Judge) -> None:
    rate = float(0.1 / (1 + abs(case.values).max() * float(case.lift)))
    plan = RunPlan([rate] * 3, 3, momentum=0.5)
    run = hk.fit(net, loss, lr=rate, max_steps=3, momentum=0.5)
    wanted = loops.path(case.problem, plan, LONG)
    size = abs(case.truth.theta) + rate * 6 * case.truth.gradient[1]
    bound = float(np.sqrt((size**2).sum()))
    judge.close(run.network.flatten().numpy(), wanted.thetas[-1], bound, 4 * case.unit, "parameters")
