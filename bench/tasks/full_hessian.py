"""The dense Hessian over all parameters, written into an array that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

import hesskern as hk
from bench import jax_curvature
from bench.autograd import Autograd, dense
from bench.closed_form import ClosedForm
from bench.contest import Contestant, Target, TimedProblem
from bench.floors import FILL, stores
from bench.ladders import TINY, by_depth, by_samples, by_width, rungs, union
from bench.libraries import Model
from bench.outcomes import ProblemResult
from bench.peers import with_compile, with_jax, with_library, with_torch
from bench.problems import TOLERANCE, Array, Size, relative_error
from bench.threads import with_threads

NAME = "full_hessian"
SUMMARY = (
    "The dense (P, P) Hessian over all layers: `loss.hessian(net).toarray(out=)` against autograd in all its forms."
)
FUNC, FUNCTIONAL, ROWS = "torch.func.hessian", "torch.autograd.functional.hessian", "torch row loop"
CHUNKS, COMPILED = "torch.func, vmap in chunks", "torch.compile of func.hessian"
TORCH = (FUNC, FUNCTIONAL, ROWS, CHUNKS, COMPILED)
LADDERS = (
    by_width(5, 5, 5, (12, 25, 50, 100, 200)),
    by_samples((5, 100, 5), (5, 100, 500)),
    by_depth(10, 10, 20, 10, (2, 4, 8)),
)
#: torch.compile takes minutes on what unrolls into more.
COMPILED_UP_TO = 1000
#: Up to here everything is timed at every size.
SMALL = 2000
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
    *((size, 1.5, None) for size in union(TINY)),
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


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    targeted = {size for size, *_ in SIZES}
    more = [(size, None, None) for size in union(LADDERS) if size not in targeted]
    return [partial(_problem, *case) for case in (QUICK_SIZES if quick else [*SIZES, *more])]


def _problem(size: Size, fills: float | None, faster: float | None) -> TimedProblem:
    X, Y, weights = size.draw()
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)
    H = loss.hessian(net)
    order = net.num_parameters
    out = np.empty((order, order))
    reference = cache(lambda: ClosedForm(X, Y, weights).matrix())
    ours = ("hesskern", "hesskern, from scratch")

    targets = []
    if fills is not None:
        targets += [Target(contestant=name, kind="at_most", bound=fills, than=FILL) for name in ours]
    if faster is not None:
        targets += [
            Target(contestant=name, kind="faster", bound=faster, than=TORCH, group="the fastest of torch")
            for name in ours
        ]
    return TimedProblem(
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
            *_autograd(X, Y, weights, left_out=order > SMALL and faster is None),
            *stores(out),
        ],
        error=lambda result: relative_error(dense(result), reference()),
        tolerance=TOLERANCE[size.dtype],
        targets=targets,
        spoil=lambda: out.fill(np.nan),
        rungs=rungs(size, (*LADDERS, *TINY)),
        memory=size in (Size(5, (5, 200, 5)), TINY[0].sizes[0]),
    )


def _autograd(X: Array, Y: Array, weights: Sequence[Array], *, left_out: bool) -> list[Contestant]:
    """Return the contestants that need no formula; where a matrix takes them minutes, absent with the reason."""

    def torch_way(method: Callable[[Autograd], Callable[[], Any]]) -> Callable[[Any], Callable[[], Any]]:
        return lambda torch: method(Autograd(torch, X, Y, weights))

    if left_out:
        return [Contestant(name=name, run=None, note="timed with more samples, where its target is") for name in TORCH]
    compiled = Contestant(name=COMPILED, run=None, note=f"compiling takes minutes above P = {COMPILED_UP_TO}")
    if sum(weight.size for weight in weights) <= COMPILED_UP_TO:
        compiled = with_compile(COMPILED, torch_way(Autograd.compiled_hessian), note="blocks, not put together")
    return [
        with_torch(FUNC, torch_way(Autograd.func_hessian), note="blocks, not put together"),
        with_torch(FUNCTIONAL, torch_way(Autograd.functional_hessian), note="vectorize=True; blocks, likewise"),
        with_torch(ROWS, torch_way(Autograd.row_loop), note="one graph of the gradient, retain_graph=True"),
        with_torch(CHUNKS, torch_way(Autograd.chunked_hessian), note="jvp of grad, 256 rows at a time, one matrix"),
        compiled,
        with_jax(
            "jax jit(hessian)",
            lambda jax: jax_curvature.dense(jax, X, Y, weights),
            note="of the flat vector, one matrix, compiled as a whole",
        ),
        with_library(
            "curvlinops",
            "curvlinops",
            lambda library: Model(X, Y, weights).curvlinops_dense(library),
            note="HessianLinearOperator times the identity, vectorised over all its columns",
        ),
    ]


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
