"""One large network trained on the device by full batches: time of a step, from the arrays to the trained weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench import loops
from bench.contest import TimedProblem
from bench.cuda import floors
from bench.cuda.device import Device, Ours, Run, as_array
from bench.cuda.setting import Setting
from bench.ladders import TINY, Ladder, by_samples, by_width, rungs, union
from bench.problems import Size, flat, gradient_multiply_adds

NAME = "cuda_training"
SUMMARY = "A step of one network trained by full batches on the device."
LADDERS = (by_samples((50, 1000, 10), (500, 5000, 50_000)), by_width(5000, 50, 10, (100, 1000, 10_000)))
TOLERANCE = 1e-9  # of what the steps changed
CHUNK = 10


def problems(device: Device, quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    ladders = TINY if quick else LADDERS
    steps, few = (20, 10) if quick else (1000, 50)
    return [partial(_problem, device, size, steps, few, ladders) for size in union(ladders)]


def by_hand(device: Device, setting: Setting, rate: float, steps: int, *, graph: bool) -> Run:
    """Return the loop with gradients by hand, in place, eager or some steps in one graph."""
    torch, weights = device.torch, [weight.clone() for weight in setting.weights]
    losses = device.empty(CHUNK)

    def chunk() -> None:
        for k in range(CHUNK):
            value, gradients = loops.torch_gradients(torch, setting.x, setting.y, weights)
            losses[k] = value
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(gradient, alpha=rate)

    taken = device.graph(chunk) if graph else chunk

    def run() -> loops.Trained:
        with torch.no_grad():
            history = []
            for weight, before in zip(weights, setting.weights, strict=True):
                weight.copy_(before)
            for _ in range(steps // CHUNK):
                taken()
                history.append(losses.clone())
        return loops.Trained(steps, loops.torch_flat(torch, weights))

    return run


def _problem(device: Device, size: Size, steps: int, few: int, ladders: Sequence[Ladder]) -> TimedProblem:
    X, Y, weights = size.draw()
    rate = loops.stable_rate(X, weights)
    torch, setting = device.torch, Setting(device, X, Y, weights)
    change = loops.error_of_change(weights, lambda: loops.trajectory(X, Y, weights, rate, [few, steps]))

    def error(result: Any) -> float:
        return change(loops.Trained(result.steps, as_array(result.weights)))

    def ours(how: Ours) -> Run:
        net = hk.LinearNetwork([how.array(weight) for weight in setting.weights])

        def run() -> loops.Trained:
            loss = hk.SquaredLoss(how.array(setting.x), how.array(setting.y), backend=how.backend)
            trained = hk.fit(net, loss, lr=rate, max_steps=steps, backend=how.backend)
            return loops.Trained(trained.steps, flat([as_array(weight) for weight in trained.network.weights]))

        return run

    first = f"the first {few} of {steps} steps"
    peer = partial(device.peer, units=few)
    return TimedProblem(
        label=f"{size.label}, {steps} steps",
        contestants=[
            device.ours("hesskern", ours, note=f"SquaredLoss and fit, all {steps} steps", units=steps),
            peer(
                "torch",
                lambda: loops.torch_eager(torch, X, Y, weights, rate, few, device.name),
                note=f"nn.Linear, autograd, optim.SGD, {first}",
            ),
            peer(
                "torch in place",
                lambda: by_hand(device, setting, rate, few, graph=False),
                note=f"gradients by hand, {first}",
            ),
            peer(
                "torch in place, CUDA graph",
                lambda: by_hand(device, setting, rate, few, graph=True),
                note=f"{CHUNK} steps a graph, {first}",
            ),
            *floors.products(device, gradient_multiply_adds(size.reduced), np.float64),
        ],
        error=error,
        tolerance=TOLERANCE,
        rungs=rungs(size, ladders),
        memory=True,
    )
