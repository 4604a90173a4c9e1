"""What recording costs: a step of the case with one thing more recorded before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import hesskern as hk
from bench.contest import Contestant, TimedProblem
from bench.loops import Loop, Trained, error_of_change, trajectory
from bench.outcomes import ProblemResult

NAME = "records"
SUMMARY = "A step of the 5-100-5 case with one thing more recorded before each, through `fit`."
RECORDS = ("sharpness", "distance", "balance", "weights", "condition[1.weight]", "condition", "rank")
TOLERANCE = 1e-9  # of what the steps changed


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [partial(_problem, 5 if quick else 200)]


def _problem(steps: int) -> TimedProblem:
    case = hk.datasets.two_layer_case()

    def fit(*more: str) -> Loop:
        def train() -> Trained:
            loss = hk.SquaredLoss(case.X, case.Y)
            run = hk.fit(case.network, loss, lr=case.lr, max_steps=steps, record=("loss", *more))
            return Trained(run.steps, run.network.flatten())

        return train

    weights = case.network.weights
    return TimedProblem(
        label=f"the case, {steps} steps",
        contestants=[
            Contestant(name="hesskern", run=fit(), role="ours", note="the loss alone recorded", units=steps),
            *(
                Contestant(name=f"hesskern, {name}", run=fit(name), note="beside the loss", units=steps)
                for name in RECORDS
            ),
        ],
        error=error_of_change(weights, lambda: trajectory(case.X, case.Y, weights, case.lr, [steps])),
        tolerance=TOLERANCE,
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
