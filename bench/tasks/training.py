"""Long runs of full-batch gradient descent where samples or hidden units are many: time of a step, all included.

hesskern takes every step, from the arrays: the reductions and the lifting back are in its time. A loop that would take
minutes takes the first steps only, and the time of a step is compared; its weights are checked after the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import hesskern as hk
from bench import floors, jax_loops, loops
from bench.contest import Contestant, Target, TimedProblem
from bench.ladders import TINY, by_samples, rungs
from bench.loops import Loop, Trained
from bench.outcomes import ProblemResult
from bench.peers import with_compile, with_jax, with_torch
from bench.problems import Size, gradient_multiply_adds

NAME = "training"
SUMMARY = "A step of a long full-batch run with many samples or a wide layer, from the arrays to the lifted weights."
EAGER, IN_PLACE, JAX = "torch", "torch in place, best association", "jax"
TOLERANCE = 1e-9  # of what the steps changed


class TableRow(NamedTuple):
    """A run: its size, steps of hesskern, steps of loops layer by layer and by the product, and times faster."""

    size: Size
    steps: int
    few: int
    some: int
    faster: dict[str, float]


LADDERS = (by_samples((5, 100, 5), (100, 1000, 10_000)),)
ROWS = (
    TableRow(Size(100, (5, 100, 5)), 10_000, 500, 2000, {}),
    TableRow(Size(1000, (5, 100, 5)), 10_000, 500, 2000, {EAGER: 1500, JAX: 500}),
    TableRow(Size(10_000, (5, 100, 5)), 10_000, 20, 300, {}),
    TableRow(Size(5000, (50, 1000, 10)), 1000, 10, 300, {EAGER: 1000, IN_PLACE: 300, JAX: 600}),
    TableRow(Size(100, (5, 100_000, 5)), 1000, 5, 20, {EAGER: 1500}),
)
QUICK_ROWS = tuple(TableRow(size, 8, 3, 5, {}) for size in (*TINY[0].sizes, Size(9, (4, 12, 2))))


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [partial(_problem, row) for row in (QUICK_ROWS if quick else ROWS)]


def _problem(row: TableRow) -> TimedProblem:
    size, steps, few, some, faster = row
    X, Y, weights = size.draw()
    rate = loops.stable_rate(X, weights)
    net = hk.LinearNetwork(weights)

    def fit(count: int, reduce: str) -> Loop:
        def train() -> Trained:
            run = hk.fit(net, hk.SquaredLoss(X, Y), lr=rate, max_steps=count, reduce=reduce)
            return Trained(run.steps, run.network.flatten())

        return train

    first = f"the first {few} of {steps} steps"
    more = f"the first {some} of {steps} steps"
    contestants = [
        Contestant(
            name="hesskern",
            run=fit(steps, "auto"),
            role="ours",
            note=f"SquaredLoss and fit: all {steps} steps, reductions and lifting",
            units=steps,
        ),
        Contestant(
            name="hesskern, reduce=none", run=fit(some, "none"), note=f"SquaredLoss and fit, {more}", units=some
        ),
        Contestant(
            name="NumPy in place, best association",
            run=loops.numpy_product(X, Y, weights, rate, some),
            note=f"X (W_2 W_1).T, {more}",
            units=some,
        ),
        with_torch(
            EAGER,
            lambda torch: loops.torch_eager(torch, X, Y, weights, rate, few),
            note=f"nn.Linear, autograd, optim.SGD, {first}",
            units=few,
        ),
        with_torch(
            "torch in place",
            lambda torch: loops.torch_in_place(torch, X, Y, weights, rate, few),
            note=f"layer by layer, gradients by hand, inference mode, {first}",
            units=few,
        ),
        with_torch(
            IN_PLACE,
            lambda torch: loops.torch_product(torch, X, Y, weights, rate, some),
            note=f"X (W_2 W_1).T, gradients by hand, inference mode, {more}",
            units=some,
        ),
        with_compile(
            "torch.compile",
            lambda torch: loops.torch_compiled(torch, X, Y, weights, rate, few),
            note=f"gradients by hand and the update in one compiled graph, in place, {first}",
            units=few,
        ),
        with_jax(
            JAX,
            lambda jax: jax_loops.train(jax, X, Y, weights, rate, few),
            note=f"layer by layer, value_and_grad, jit of fori_loop, {first}",
            units=few,
        ),
        with_jax(
            "jax, best association",
            lambda jax: jax_loops.train(jax, X, Y, weights, rate, some, product=True),
            note=f"the loss written as X (W_2 W_1).T, {more}",
            units=some,
        ),
        *floors.products(gradient_multiply_adds(size.reduced)),
    ]
    return TimedProblem(
        label=f"{size.label}, {steps} steps",
        contestants=contestants,
        error=loops.error_of_change(weights, lambda: loops.trajectory(X, Y, weights, rate, [few, some, steps])),
        tolerance=TOLERANCE,
        targets=[
            Target(contestant="hesskern", kind="faster", bound=bound, than=than) for than, bound in faster.items()
        ],
        rungs=rungs(size, (*LADDERS, *TINY)),
        memory=size in (Size(1000, (5, 100, 5)), TINY[0].sizes[0]),
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return [
        "The time of a step is compared: hesskern takes all steps, the others as many as their notes say.",
        "The targets against jax are against the loss as a model is written, layer by layer.",
        "The floor counts the steps on the reduced problem, not the reductions.",
    ]
