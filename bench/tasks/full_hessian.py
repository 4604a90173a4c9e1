"""The dense Hessian over all parameters, written into an array that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import hesskern as hk
from bench.autograd import Autograd, dense
from bench.closed_form import ClosedForm
from bench.peers import with_torch
from bench.problems import TOLERANCE, Array, Size, relative_error
from bench.runner import ProblemResult
from bench.task import Contestant, Problem, Target
from bench.threads import with_threads

NAME = "full_hessian"
SUMMARY = "The dense (P, P) Hessian over all layers: `loss.hessian(net).toarray(out=)` against torch's three ways."
FUNC, FUNCTIONAL, ROWS = "torch.func.hessian", "torch.autograd.functional.hessian", "torch row loop"
TORCH = (FUNC, FUNCTIONAL, ROWS)
FILL = "floor: fill"
#: Size, times the fill that is allowed, times faster than the fastest of torch that is asked for. Torch's times grow
#: with N and ours do not: N = 100 is what the targets for deep networks were set with, N = i is the least there is.
SIZES: tuple[tuple[Size, float, float | None], ...] = (
    (Size(5, (5, 100, 5)), 1.5, 40.0),
    (Size(100, (5, 100, 5)), 1.5, 40.0),
    (Size(20, (20, 100, 20)), 1.5, 100.0),
    (Size(100, (20, 100, 20)), 1.5, 100.0),
    (Size(10, (10, 20, 20, 20, 10)), 2.0, None),
    (Size(100, (10, 20, 20, 20, 10)), 2.0, 100.0),
    (Size(10, (10, 30, 30, 30, 30, 30, 30, 10)), 2.0, None),
    (Size(100, (10, 30, 30, 30, 30, 30, 30, 10)), 2.0, 100.0),
)
QUICK_SIZES: tuple[tuple[Size, float, float | None], ...] = (
    (Size(3, (4, 6, 2)), 1.5, None),
    (Size(5, (3, 2, 4, 2)), 2.0, None),
)


def broadcast(X: Array, Y: Array, weights: Sequence[Array], out: Array) -> Callable[[], Array]:
    """Return the closed form in NumPy: each pair of layers a broadcast product into its part of `out`."""

    def assemble() -> Array:
        form = ClosedForm(X, Y, weights)
        above: list[Array] = [np.eye(len(weights[-1]))]
        for weight in weights[:0:-1]:
            above.insert(0, above[0] @ weight)
        for m, rows in enumerate(form.parts):
            between = np.eye(weights[m].shape[1])
            for k in reversed(range(m + 1)):
                columns = form.parts[k]
                target = out[rows, columns].reshape(*weights[m].shape, *weights[k].shape)
                inner = form.activations[m].T @ form.activations[k]
                np.multiply((above[m].T @ above[k])[:, None, :, None], inner[:, None, :], out=target)
                if k < m:
                    residual = form.deltas[m].T @ form.activations[k]
                    target += between[:, :, None] * residual[:, None, None, :]
                    out[columns, rows] = out[rows, columns].T
                    between = between @ weights[k]
        return out

    return assemble


def problems(quick: bool) -> Iterator[Problem]:
    for size, fills, faster in QUICK_SIZES if quick else SIZES:
        yield _problem(size, fills, faster)


def _problem(size: Size, fills: float, faster: float | None) -> Problem:
    X, Y, weights = size.draw()
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)
    H = loss.hessian(net)
    order = net.num_parameters
    out = np.empty((order, order))
    reference = ClosedForm(X, Y, weights).matrix()
    ours = ("hesskern", "hesskern, from scratch")

    def torch_way(method: Callable[[Autograd], Callable[[], Any]]) -> Callable[[Any], Callable[[], Any]]:
        return lambda torch: method(Autograd(torch, X, Y, weights))

    targets = [Target(contestant=name, kind="at_most", bound=fills, than=FILL) for name in ours]
    if faster is not None:
        targets += [
            Target(contestant=name, kind="faster", bound=faster, than=TORCH, group="the fastest of torch")
            for name in ours
        ]
    return Problem(
        label=f"P = {order}, {size.label}",
        contestants=[
            Contestant(name=ours[0], run=lambda: H.toarray(out=out), role="ours", note="an existing operator"),
            Contestant(
                name=ours[1],
                run=lambda: loss.hessian(net).toarray(out=out),
                role="ours",
                note="loss.hessian(net).toarray(out=out): the factors computed each time",
            ),
            with_threads(2, "hesskern", lambda: H.toarray(out=out), note="two threads from 16 MiB on"),
            Contestant(name="NumPy", run=broadcast(X, Y, weights, out), note="the closed form by broadcasting"),
            with_torch(FUNC, torch_way(Autograd.func_hessian), note="blocks, not put together"),
            with_torch(FUNCTIONAL, torch_way(Autograd.functional_hessian), note="vectorize=True; blocks, likewise"),
            with_torch(ROWS, torch_way(Autograd.row_loop), note="one graph of the gradient, retain_graph=True"),
            Contestant(name=FILL, run=lambda: out.fill(0), role="floor", note="the same warm array, written once"),
        ],
        error=lambda result: relative_error(dense(result), reference),
        tolerance=TOLERANCE[size.dtype],
        targets=targets,
        spoil=lambda: out.fill(np.nan),
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    lines = []
    for result in results:
        fastest = result.fastest(TORCH)
        limit = None if fastest is None else result.speedup(FILL, fastest)
        if limit is not None:
            lines.append(
                f"{result.problem.label}: filling the array once is {limit.median:.0f} times faster than the fastest "
                f"of torch ({fastest})."
            )
    return lines
