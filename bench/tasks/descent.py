"""One step of full-batch gradient descent, from runs of many steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import hesskern as hk
from bench import floors, jax_loops, loops
from bench.contest import Contestant, Target, TimedProblem
from bench.ladders import TINY, by_depth, by_samples, by_width, rungs, union
from bench.loops import Loop, NumpyLoop, Trained
from bench.outcomes import ProblemResult
from bench.peers import with_compile, with_jax, with_torch
from bench.problems import SMALLEST_SINGLE, Size, gradient_multiply_adds

NAME = "descent"
SUMMARY = "A step of gradient descent: time of `fit` over the steps it takes."
LADDERS = (
    by_width(5, 5, 5, (10, 100, 1000, 10_000)),
    by_samples((20, 200, 20), (100, 1000, 10_000)),
    by_depth(100, 10, 30, 10, (2, 4, 8)),
)
OTHERS = (
    Size(5, (5, 100, 5), "float32"),
    Size(256, (128, 128, 128)),
    Size(256, (128, 128, 128), "float32"),
    Size(1000, (64, 256, 256, 10)),
)
TOLERANCE = {"float64": 1e-10, "float32": 5e-3}  # of what the steps changed, which is less than the weights


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    sizes = union(TINY, SMALLEST_SINGLE) if quick else union(LADDERS, OTHERS)
    steps = [3 if quick else 200 if gradient_multiply_adds(size) < 5e6 else 20 for size in sizes]
    return [partial(_problem, size, count) for size, count in zip(sizes, steps, strict=True)]


def _problem(size: Size, steps: int) -> TimedProblem:
    X, Y, weights = size.draw()
    rate = loops.stable_rate(X, weights)
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)

    def fit(reduce: str) -> Loop:
        return lambda: Trained(steps, hk.fit(net, loss, lr=rate, max_steps=steps, reduce=reduce).network.flatten())

    loop = NumpyLoop(X, Y, weights, rate)
    return TimedProblem(
        label=size.label,
        contestants=[
            Contestant(
                name="hesskern",
                run=fit("auto"),
                role="ours",
                note='fit(reduce="auto"); the QR of the data is kept by the loss and not timed',
                units=steps,
            ),
            *([Contestant(name="hesskern, reduce=none", run=fit("none"), units=steps)] if size.reduced != size else []),
            Contestant(name="NumPy in place", run=lambda: loop.run(steps), note="no allocation", units=steps),
            with_torch(
                "torch in place",
                lambda torch: loops.torch_in_place(torch, X, Y, weights, rate, steps),
                note="gradients by hand, inference mode",
                units=steps,
            ),
            with_torch(
                "torch",
                lambda torch: loops.torch_eager(torch, X, Y, weights, rate, steps),
                note="nn.Linear, autograd, optim.SGD",
                units=steps,
            ),
            with_compile(
                "torch.compile",
                lambda torch: loops.torch_compiled(torch, X, Y, weights, rate, steps),
                note="gradients by hand and the update in one compiled graph, in place",
                units=steps,
            ),
            with_jax(
                "jax jit(fori_loop)",
                lambda jax: jax_loops.train(jax, X, Y, weights, rate, steps),
                note="value_and_grad, the whole loop compiled",
                units=steps,
            ),
            *floors.products(gradient_multiply_adds(size.reduced), size.dtype),
        ],
        error=loops.error_of_change(weights, lambda: loops.trajectory(X, Y, weights, rate, [steps])),
        tolerance=TOLERANCE[size.dtype],
        targets=[
            Target(contestant="hesskern", kind="faster", bound=1, than="NumPy in place"),
            Target(contestant="hesskern", kind="faster", bound=1, than="torch in place"),
        ],
        rungs=rungs(size, (*LADDERS, *TINY)),
        memory=size in (Size(1000, (64, 256, 256, 10)), TINY[0].sizes[0]),
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
