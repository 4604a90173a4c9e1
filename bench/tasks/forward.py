"""Predictions of a linear network, in the best order each library offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench import floors, jax_curvature
from bench.contest import Contestant, Target, TimedProblem
from bench.ladders import PASSES, TINY, rungs, union
from bench.outcomes import ProblemResult
from bench.peers import with_compile, with_jax, with_torch
from bench.problems import SMALLEST_SINGLE, TOLERANCE, VARIED, WIDE, Size, error_against, forward_multiply_adds

NAME = "forward"
SUMMARY = "Predictions `net.forward(X)`."


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [partial(_problem, size) for size in (union(TINY, SMALLEST_SINGLE) if quick else union(PASSES, VARIED))]


def _problem(size: Size) -> TimedProblem:
    X, _, weights = size.draw()
    net = hk.LinearNetwork(weights)

    def layers() -> object:
        out = X
        for weight in weights:
            out = out @ weight.T
        return out

    def module(torch: Any) -> Callable[[], object]:
        x = torch.tensor(X)
        layers = [torch.nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=x.dtype) for w in weights]
        stack = torch.nn.Sequential(*layers)
        with torch.no_grad():
            for layer, weight in zip(stack, weights, strict=True):
                layer.weight.copy_(torch.tensor(weight))

        def predict() -> object:
            with torch.inference_mode():
                return stack(x)

        return predict

    def compiled(torch: Any) -> Callable[[], object]:
        x, *tensors = (torch.tensor(array) for array in (X, *weights))

        def through(out: Any, *tensors: Any) -> Any:
            for tensor in tensors:
                out = out @ tensor.T
            return out

        whole = torch.compile(through, dynamic=False)

        def predict() -> object:
            with torch.inference_mode():
                return whole(x, *tensors)

        return predict

    def torch_multi_dot(torch: Any) -> Callable[[], object]:
        chain = [torch.tensor(X), *(torch.tensor(weight).T for weight in weights)]
        return lambda: torch.linalg.multi_dot(chain)

    chain = [X, *(weight.T for weight in weights)]
    exact = X.astype(np.float64)
    for weight in weights:
        exact = exact @ weight.T.astype(np.float64)
    return TimedProblem(
        label=size.label,
        contestants=[
            Contestant(name="hesskern", run=lambda: net.forward(X), role="ours", note="checks X for NaN as well"),
            Contestant(name="NumPy", run=layers, note="through the layers"),
            Contestant(name="NumPy multi_dot", run=lambda: np.linalg.multi_dot(chain), note="the cheapest order"),
            with_torch("torch", module, note="nn.Sequential in inference mode"),
            with_torch("torch multi_dot", torch_multi_dot, note="the cheapest order"),
            with_compile("torch.compile", compiled, note="the products in inference mode, one graph"),
            with_jax(
                "jax jit", lambda jax: jax_curvature.forward(jax, X, weights), note="through the layers, compiled"
            ),
            *floors.products(forward_multiply_adds(size), size.dtype),
        ],
        error=error_against(exact),
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
