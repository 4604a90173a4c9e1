"""Hessian-vector products, all that does not depend on the vector being there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

import hesskern as hk
from bench import floors, jax_curvature
from bench.autograd import Autograd, flat_vectors
from bench.closed_form import ClosedForm, product_multiply_adds, qr_reduced
from bench.contest import Contestant, Target, TimedProblem
from bench.ladders import TINY, by_depth, by_samples, by_width, rungs, union
from bench.libraries import Model
from bench.outcomes import ProblemResult
from bench.peers import with_compile, with_jax, with_library, with_torch
from bench.problems import TOLERANCE, Array, Size, relative_error

NAME = "hvp"
SUMMARY = "`H @ v` and `H @ V` (k columns) on an existing operator, against torch with the gradient's graph kept."
DOUBLE, INNER, JVP = "torch double backward", "torch gradient of g @ v", "torch.func jvp of grad"
GROUP = "torch double backward, the faster of two ways"
FEW = "hesskern, N = i"
MANY = 100_000
LADDERS = (
    by_samples((20, 200, 20), (20, 1000, 10_000, MANY)),
    by_width(20, 20, 20, (50, 200, 800, 3200)),
    by_depth(1000, 10, 100, 10, (2, 4, 8)),
)
#: Size, columns, times faster than torch's double backward that is asked for.
SIZES: tuple[tuple[Size, int, float | None], ...] = (
    (Size(5, (5, 100, 5)), 1, 20.0),
    (Size(20, (20, 200, 20)), 1, None),
    (Size(MANY, (20, 200, 20)), 1, 5000.0),
    (Size(1000, (10, 100, 100, 100, 10)), 1, 10.0),
    (Size(1000, (10, *(100,) * 7, 10)), 1, 10.0),
    (Size(5, (5, 100, 5)), 32, None),
    (Size(20, (20, 200, 20)), 32, None),
    (Size(1000, (10, 100, 100, 100, 10)), 32, None),
)
QUICK_SIZES: tuple[tuple[Size, int, float | None], ...] = (
    *((size, 1, None) for size in union(TINY)),
    (Size(5, (3, 2, 4, 2)), 3, None),
)


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    single = {size for size, columns, _ in SIZES if columns == 1}
    more = [(size, 1, None) for size in union(LADDERS) if size not in single]
    return [partial(_problem, *case) for case in (QUICK_SIZES if quick else [*SIZES, *more])]


def _problem(size: Size, columns: int, faster: float | None) -> TimedProblem:
    X, Y, weights = size.draw()
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)
    H = loss.hessian(net)
    shape = (net.num_parameters,) if columns == 1 else (net.num_parameters, columns)
    V = np.random.default_rng(3).standard_normal(shape)
    reference = cache(lambda: ClosedForm(X, Y, weights).product(V))
    few_X, few_Y = qr_reduced(X, Y)
    H_few = hk.SquaredLoss(few_X, few_Y).hessian(net)
    by_hand = ClosedForm(few_X, few_Y, weights)

    def torch_way(method: Callable[[Autograd, Array], Callable[[], Any]]) -> Callable[[Any], Callable[[], Any]]:
        return lambda torch: method(Autograd(torch, X, Y, weights), V)

    contestants = [Contestant(name="hesskern", run=lambda: H @ V, role="ours", note="H @ v: checks and a new result")]
    if columns > 1:
        apart = [np.ascontiguousarray(column) for column in V.T]
        contestants.append(
            Contestant(
                name="hesskern, column by column",
                run=lambda: np.stack([H @ column for column in apart], axis=1),
                note="k products with one vector",
            )
        )
    if size.samples == MANY:
        contestants.append(
            Contestant(name=FEW, run=lambda: H_few @ V, note="data of i rows with the same Hessian (QR by NumPy)")
        )
    contestants += [
        Contestant(
            name="hesskern, from scratch",
            run=lambda: loss.hessian(net) @ V,
            note="loss.hessian(net) @ v; the data reduced before",
        ),
        Contestant(
            name="NumPy", run=lambda: by_hand.product(V), note="the closed form on QR-reduced data, activations kept"
        ),
        with_torch(DOUBLE, torch_way(Autograd.double_backward), note="autograd.grad(grad_outputs=v), retain_graph"),
        *([with_torch(INNER, torch_way(Autograd.of_inner_product), note="retain_graph")] if columns == 1 else []),
        with_torch(JVP, torch_way(Autograd.jvp_of_grad), note="no graph to keep; vmap over columns"),
        with_compile(
            "torch.compile of jvp of grad",
            lambda torch: Autograd(torch, X, Y, weights).jvp_of_grad(V, compiled=True),
            note="one compiled graph",
        ),
        with_jax(
            "jax jit(jvp of grad)",
            lambda jax: jax_curvature.product(jax, X, Y, weights, V),
            note="compiled as a whole; vmap over columns",
        ),
        with_library(
            "curvlinops",
            "curvlinops",
            lambda library: Model(X, Y, weights).curvlinops_product(library, V),
            note="HessianLinearOperator @ v, which checks nothing twice",
        ),
        *(_one_vector_only(X, Y, weights, V) if columns == 1 else []),
        *floors.products(columns * product_multiply_adds(size)),
    ]
    targets = []
    if faster is not None:
        targets.append(Target(contestant="hesskern", kind="faster", bound=faster, than=(DOUBLE, INNER), group=GROUP))
    if size.widths == (5, 100, 5) and columns == 1:
        targets.append(Target(contestant="hesskern", kind="seconds", bound=5e-6))
    if size.samples == MANY:  # "the same": within what one run repeats to
        targets.append(Target(contestant="hesskern", kind="at_most", bound=1.1, than=FEW))
    return TimedProblem(
        label=f"P = {net.num_parameters}, {size.label}" + (f", k = {columns}" if columns > 1 else ""),
        contestants=contestants,
        error=lambda result: relative_error(flat_vectors(result, shape), reference()),
        tolerance=TOLERANCE[size.dtype],
        targets=targets,
        rungs=rungs(size, (*LADDERS, *TINY)) if columns == 1 else (),
        memory=columns == 1 and size in (Size(MANY, (20, 200, 20)), TINY[0].sizes[0]),
    )


def _one_vector_only(X: Array, Y: Array, weights: Sequence[Array], v: Array) -> list[Contestant]:
    """Return the libraries whose products take one vector."""
    return [
        with_library(
            "backpack",
            "BackPACK",
            lambda library: Model(X, Y, weights).backpack_product(library, v),
            note="hessianfree.hvp with the gradients' graph kept",
        ),
        with_library(
            "hessian_eigenthings",
            "hessian-eigenthings",
            lambda library: Model(X, Y, weights).eigenthings_product(library, v),
            note="HessianOperator.matvec, which builds the graph at each call",
        ),
    ]


def notes(results: Sequence[ProblemResult]) -> list[str]:
    lines = []
    for result in results:
        fastest = result.fastest([o.contestant.name for o in result.outcomes if o.contestant.name.startswith("torch")])
        lead = None if fastest is None else result.speedup("hesskern", fastest)
        if lead is not None:
            lines.append(f"{result.problem.label}: the fastest of torch is {fastest}, {lead.median:.3g} times slower.")
    return lines
