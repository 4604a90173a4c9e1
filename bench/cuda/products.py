"""Hessian-vector products on the device, one vector and many, all that does not depend on the vector being there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench.closed_form import ClosedForm, product_multiply_adds, qr_reduced
from bench.contest import Rung, TimedProblem
from bench.cuda import floors
from bench.cuda.device import Device, Ours, Run, as_array
from bench.cuda.setting import Setting
from bench.ladders import TINY, Ladder, by_depth, by_samples, by_width, rungs, union
from bench.problems import TOLERANCE, Size, relative_error

NAME = "cuda_hvp"
SUMMARY = "`H @ v` and `H @ V` (k columns) on the device, on an existing operator."
LADDERS = (
    by_samples((20, 200, 20), (20, 2000, 100_000)),
    by_width(20, 20, 20, (200, 2000, 20_000)),
    by_depth(1000, 10, 100, 10, (2, 4, 8)),
)
COLUMNS = (1, 32, 256)
#: Columns are many for this one only.
WIDE = Size(1000, (10, 100, 100, 100, 10))


def problems(device: Device, quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    ladders, columns = (TINY, (1, 3)) if quick else (LADDERS, COLUMNS)
    wide = TINY[0].sizes[-1] if quick else WIDE
    cases = [(size, 1) for size in union(ladders)] + [(wide, count) for count in columns if count > 1]
    return [partial(_problem, device, size, count, ladders) for size, count in cases]


def _problem(device: Device, size: Size, columns: int, ladders: Sequence[Ladder]) -> TimedProblem:
    X, Y, weights = size.draw()
    order = sum(weight.size for weight in weights)
    V = np.random.default_rng(3).standard_normal((columns, order))
    exact = ClosedForm(X, Y, weights).product(V.T).T
    setting, few = Setting(device, X, Y, weights), Setting(device, *qr_reduced(X, Y), weights)
    torch, vectors = device.torch, device.tensor(V if columns > 1 else V[0])
    stack = vectors.reshape(columns, order)
    passes = few.passes()

    def ours(how: Ours) -> Run:
        loss = hk.SquaredLoss(how.array(setting.x), how.array(setting.y), backend=how.backend)
        H = loss.hessian(hk.LinearNetwork([how.array(w) for w in setting.weights]))
        given = how.array(vectors if columns == 1 else vectors.T.contiguous())
        return lambda: H @ given

    def double_backward() -> Run:
        leaves = [weight.clone().requires_grad_() for weight in setting.weights]
        gradients = torch.autograd.grad(setting.loss(*leaves), leaves, create_graph=True)
        given, many = setting.pieces(vectors), columns > 1
        return lambda: torch.autograd.grad(gradients, leaves, given, retain_graph=True, is_grads_batched=many)

    def jvp_of_grad() -> Any:
        return torch.func.vmap(setting.product_flat)(vectors) if columns > 1 else setting.product_flat(vectors)

    def closed() -> Any:
        return few.product_closed(stack, *passes)

    def error(result: Any) -> float:
        if isinstance(result, tuple):
            found = np.concatenate([as_array(part).reshape(columns, -1) for part in result], axis=1)
        else:
            found = as_array(result)
            found = found.T if found.shape == (order, columns) and columns > 1 else found.reshape(columns, order)
        return relative_error(found, exact)

    return TimedProblem(
        label=f"P = {order}, {size.label}" + (f", k = {columns}" if columns > 1 else ""),
        contestants=[
            device.ours("hesskern", ours, note="H @ v: checks and a new result"),
            device.peer("torch double backward", double_backward, note="graph of the gradient kept"),
            device.peer("torch.func jvp of grad", lambda: jvp_of_grad, note="no graph to keep; vmap over columns"),
            device.peer(
                "torch.func jvp of grad, CUDA graph",
                lambda: device.graph(jvp_of_grad),
                note="forward, reverse and tangents in one launch",
            ),
            device.compiled(
                "torch.compile of jvp of grad", lambda compile: compile(jvp_of_grad), note="one compiled graph"
            ),
            device.peer("torch closed form", lambda: closed, note="QR-reduced data, activations kept, matmul"),
            device.peer("torch closed form, CUDA graph", lambda: device.graph(closed), note="the same in one launch"),
            *floors.products(device, columns * product_multiply_adds(size), np.float64),
        ],
        error=error,
        tolerance=TOLERANCE[size.dtype],
        rungs=rungs(size, ladders) if columns == 1 else [Rung(size.label, "k", columns)],
        memory=True,
    )
