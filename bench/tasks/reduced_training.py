"""Training where an exact reduction leaves little: orthogonal layers, rotated data, conditions on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench import loops
from bench.closed_form import ClosedForm
from bench.contest import Contestant, Target, TimedProblem
from bench.loops import Loop, NumpyLoop, Trained
from bench.outcomes import ProblemResult
from bench.peers import with_torch
from bench.problems import Array, Size, loss_and_gradients
from bench.reduced_by_hand import ZERO

NAME = "reduced_training"
SUMMARY = "A step of `fit` where a reduction leaves little, and a step with the condition number recorded."
ORTHOGONAL, QUICK_ORTHOGONAL = Size(50, (5, 100, 100, 100, 5)), Size(4, (2, 9, 9, 2))
ROTATED, QUICK_ROTATED = Size(200, (50, 1000, 10)), Size(12, (4, 30, 2))
RECORDED, QUICK_RECORDED = Size(50, (5, 20, 20, 20, 5)), Size(6, (2, 5, 5, 2))
TOLERANCE = 1e-9  # of what the steps changed
CONDITION_TOLERANCE = 1e-6


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    if quick:
        return [
            partial(_orthogonal, QUICK_ORTHOGONAL, 5),
            partial(_rotated, QUICK_ROTATED, 5),
            partial(_recorded, QUICK_RECORDED, 2),
        ]
    return [partial(_orthogonal, ORTHOGONAL, 5000), partial(_rotated, ROTATED, 10_000), partial(_recorded, RECORDED, 5)]


def orthogonal_start(size: Size) -> tuple[Array, Array, list[Array]]:
    """Return data and weights whose inner layers are orthogonal matrices."""
    X, Y, weights = size.draw()
    for layer in range(1, len(weights) - 1):
        weights[layer] = np.linalg.qr(weights[layer])[0]
    return X, Y, weights


def _fits(X: Array, Y: Array, weights: list[Array], steps: int) -> tuple[list[Contestant], float]:
    """Return what a fit is compared with, and the rate."""
    rate = loops.stable_rate(X, weights)
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)

    def fit(reduce: str) -> Loop:
        return lambda: Trained(steps, hk.fit(net, loss, lr=rate, max_steps=steps, reduce=reduce).network.flatten())

    loop = NumpyLoop(X, Y, weights, rate)
    return [
        Contestant(
            name="hesskern",
            run=fit("auto"),
            role="ours",
            note='fit(reduce="auto"); the QR of the data is kept by the loss and not timed',
            units=steps,
        ),
        Contestant(name="hesskern, reduce=none", run=fit("none"), units=steps),
        Contestant(name="NumPy in place", run=lambda: loop.run(steps), note="no allocation", units=steps),
        with_torch(
            "torch in place",
            lambda torch: loops.torch_in_place(torch, X, Y, weights, rate, steps),
            note="gradients by hand, inference mode",
            units=steps,
        ),
    ], rate


def _fit_problem(label: str, data: tuple[Array, Array, list[Array]], steps: int, bound: float) -> TimedProblem:
    X, Y, weights = data
    contestants, rate = _fits(X, Y, weights, steps)
    return TimedProblem(
        label=label,
        contestants=contestants,
        error=loops.error_of_change(weights, lambda: loops.trajectory(X, Y, weights, rate, [steps])),
        tolerance=TOLERANCE,
        targets=[Target(contestant="hesskern", kind="seconds", bound=bound)],
    )


def _orthogonal(size: Size, steps: int) -> TimedProblem:
    label = f"{size.label}, inner layers orthogonal, {steps} steps"
    return _fit_problem(label, orthogonal_start(size), steps, 1.5e-6)


def _rotated(size: Size, steps: int) -> TimedProblem:
    return _fit_problem(f"{size.label}, {steps} steps", size.draw(), steps, 6.5e-6)


def _recorded(size: Size, steps: int) -> TimedProblem:
    X, Y, weights = size.draw()
    rate = loops.stable_rate(X, weights)
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)

    def ours() -> Array:
        run = hk.fit(net, loss, lr=rate, max_steps=steps, record=("loss", "condition"))
        conditions: Array = np.asarray(run.history["condition"])[:steps]
        return conditions

    def along(hessian: Callable[[list[Array]], Array]) -> Array:
        """Return the condition numbers before each step, from dense eigenproblems."""
        moved, found = list(weights), []
        for _ in range(steps):
            sizes = np.abs(np.linalg.eigvalsh(hessian(moved)))
            found.append(sizes.max() / sizes[sizes > ZERO * sizes.max()].min())
            _, gradients = loss_and_gradients(X, Y, moved)
            moved = [weight - rate * gradient for weight, gradient in zip(moved, gradients, strict=True)]
        return np.array(found)

    def assembled(moved: list[Array]) -> Array:
        dense: Array = loss.hessian(hk.LinearNetwork(moved)).toarray()
        return dense

    exact: list[Array] = []

    def error(result: Any) -> float:
        if not exact:
            exact.append(along(lambda moved: ClosedForm(X, Y, moved).matrix()))
        return float(np.max(np.abs(np.asarray(result) / exact[0] - 1)))

    return TimedProblem(
        label=f"{size.label}, condition recorded at each of {steps} steps",
        contestants=[
            Contestant(name="hesskern", run=ours, role="ours", note='fit(record=("condition",))', units=steps),
            Contestant(
                name="dense eigenproblems",
                run=lambda: along(assembled),
                note="no reduction by ranks: loss.hessian(net).toarray(), then np.linalg.eigvalsh, at each step",
                units=steps,
            ),
            Contestant(
                name="NumPy, dense",
                run=lambda: along(lambda moved: ClosedForm(X, Y, moved).matrix()),
                note="the same without hesskern",
                units=steps,
            ),
        ],
        error=error,
        tolerance=CONDITION_TOLERANCE,
        targets=[Target(contestant="hesskern", kind="faster", bound=5, than="dense eigenproblems")],
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
