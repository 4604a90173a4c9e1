"""Loss and full gradient at one point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench import floors, jax_curvature, loops
from bench.contest import Contestant, Target, TimedProblem
from bench.ladders import PASSES, TINY, rungs, union
from bench.outcomes import ProblemResult
from bench.peers import with_compile, with_jax, with_torch
from bench.problems import (
    SMALLEST_SINGLE,
    TOLERANCE,
    VARIED,
    WIDE,
    Array,
    Size,
    flat,
    gradient_multiply_adds,
    loss_and_gradients,
    relative_error,
)

NAME = "value_and_gradient"
SUMMARY = "Loss and gradient, `loss.value_and_gradient(net)`."


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [partial(_problem, size) for size in (union(TINY, SMALLEST_SINGLE) if quick else union(PASSES, VARIED))]


def _problem(size: Size) -> TimedProblem:
    X, Y, weights = size.draw()
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)

    def numpy() -> tuple[float, Array]:
        value, gradients = loss_and_gradients(X, Y, weights)
        return value, flat(gradients)

    def autograd(torch: Any) -> Callable[[], tuple[float, Any]]:
        x, y = torch.tensor(X), torch.tensor(Y)
        parameters = [torch.tensor(weight, requires_grad=True) for weight in weights]

        def compute() -> tuple[float, Any]:
            out = x
            for parameter in parameters:
                out = torch.nn.functional.linear(out, parameter)
            value = 0.5 * torch.nn.functional.mse_loss(out, y, reduction="sum")
            gradients = torch.autograd.grad(value, parameters)
            return value.item(), torch.cat([gradient.reshape(-1) for gradient in gradients])

        return compute

    def by_hand(torch: Any) -> Callable[[], tuple[float, Any]]:
        x, y, *tensors = (torch.tensor(array) for array in (X, Y, *weights))

        def compute() -> tuple[float, Any]:
            with torch.inference_mode():
                value, gradients = loops.torch_gradients(torch, x, y, tensors)
                return value.item(), torch.cat([gradient.reshape(-1) for gradient in gradients])

        return compute

    def compiled(torch: Any) -> Callable[[], tuple[float, Any]]:
        x, y, *tensors = (torch.tensor(array) for array in (X, Y, *weights))
        whole = torch.compile(lambda x, y, *tensors: loops.torch_gradients(torch, x, y, tensors), dynamic=False)

        def compute() -> tuple[float, Any]:
            with torch.inference_mode():
                value, gradients = whole(x, y, *tensors)
                return value.item(), torch.cat([gradient.reshape(-1) for gradient in gradients])

        return compute

    wide = [array.astype(np.float64) for array in (X, Y, *weights)]
    value, gradients = loss_and_gradients(wide[0], wide[1], wide[2:])
    exact = flat(gradients)

    def error(result: Any) -> float:
        return float(np.max([abs(float(result[0]) / value - 1), relative_error(np.asarray(result[1]), exact)]))

    return TimedProblem(
        label=size.label,
        contestants=[
            Contestant(name="hesskern", run=lambda: loss.value_and_gradient(net), role="ours"),
            Contestant(name="NumPy", run=numpy, note="the chain rule through the layers"),
            with_torch("torch", autograd, note="F.linear, mse_loss, autograd.grad, one flat gradient"),
            with_torch("torch by hand", by_hand, note="the chain rule through the layers, no graph"),
            with_compile("torch.compile", compiled, note="the same, one compiled graph"),
            with_jax(
                "jax jit(value_and_grad)",
                lambda jax: jax_curvature.value_and_gradient(jax, X, Y, weights),
                note="compiled as a whole, one flat gradient",
            ),
            *floors.products(gradient_multiply_adds(size), size.dtype),
        ],
        error=error,
        tolerance=TOLERANCE[size.dtype],
        targets=[
            Target(contestant="hesskern", kind="faster", bound=1, than="NumPy"),
            Target(contestant="hesskern", kind="faster", bound=1, than="torch"),
        ]
        if size in VARIED
        else [],
        rungs=rungs(size, (*PASSES, *TINY)),
        memory=size == WIDE,
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
