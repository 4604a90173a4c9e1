"""The numba backend against the cpp backend on the same jobs, through the same public calls.

Compilation is left out of the times: each contestant has run once when it was checked. What the first use of a process
costs, with and without what an earlier one compiled, is measured beside them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench import loops
from bench.closed_form import ClosedForm
from bench.contest import Contestant, Figure, Target, TimedProblem
from bench.outcomes import ProblemResult
from bench.peers import with_numba
from bench.problems import TOLERANCE, Array, Size, flat, loss_and_gradients, relative_error

NAME = "numba_backend"
SUMMARY = "The numba backend against cpp: dense Hessians, products, passes, training; and what compiling costs."
OURS, CPP = "numba", "cpp"
AT_MOST = 2.0
TRAINED = 1e-9  # relative to what the steps changed

DENSE = (Size(5, (5, 100, 5)), Size(20, (20, 100, 20)), Size(10, (10, *(30,) * 6, 10)))
PRODUCTS = (Size(10, (3, 5, 2)), Size(5, (5, 100, 5)), Size(20, (20, 200, 20)), Size(1000, (10, 100, 100, 100, 10)))
PASSES = (Size(5, (5, 100, 5)), Size(1000, (20, 200, 20)), Size(1000, (64, 256, 256, 10)))
RUNS = (
    (Size(5, (5, 100, 5)), 600, "auto"),
    (Size(5, (5, 100, 5)), 600, "none"),
    (Size(1000, (5, 100, 5)), 10_000, "auto"),
    (Size(5000, (50, 1000, 10)), 1000, "auto"),
    (Size(100, (10, 30, 30, 30, 10)), 1000, "auto"),
    (Size(1000, (20, 200, 1)), 1000, "auto"),
)


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    tiny = Size(7, (4, 6, 2))
    many = tiny if quick else Size(100_000, (20, 200, 20))
    case = tiny if quick else Size(5, (5, 100, 5))
    return [
        *(partial(_dense, size) for size in ((tiny,) if quick else DENSE)),
        *(partial(_product, size) for size in ((tiny,) if quick else PRODUCTS)),
        *(partial(_gradient, size) for size in ((tiny,) if quick else PASSES)),
        *(partial(_training, *run) for run in (((tiny, 20, "none"),) if quick else RUNS)),
        *(partial(_minibatch, many, 10 if quick else 1000, batch) for batch in ((3,) if quick else (32, 1))),
        partial(_ensemble, case, 20 if quick else 1000, 3 if quick else 64),
        partial(_sharpness, case, 10 if quick else 500, first_use=not quick),
    ]


def _both(
    label: str, job: Callable[[str], Callable[[], Any]], error: Callable[[Any], float], tolerance: float,
    units: float = 1.0, figures: Sequence[Figure] = (),
) -> TimedProblem:  # fmt: skip
    return TimedProblem(
        label=label,
        contestants=[
            replace(with_numba(OURS, lambda _: job(OURS), units=units), role="ours"),
            Contestant(name=CPP, run=job(CPP), role="ours", units=units),
        ],
        error=error,
        tolerance=tolerance,
        targets=[Target(contestant=OURS, kind="at_most", bound=AT_MOST, than=CPP)],
        figures=figures,
    )


def _dense(size: Size) -> TimedProblem:
    X, Y, weights = size.draw()
    reference = ClosedForm(X, Y, weights).matrix()

    def job(name: str) -> Callable[[], Array]:
        H = hk.SquaredLoss(X, Y, backend=name).hessian(hk.LinearNetwork(weights))
        out = np.empty(H.shape)
        return lambda: H.toarray(out=out)

    return _both(
        f"toarray(out=), {size.label}", job, lambda found: relative_error(found, reference), TOLERANCE[size.dtype]
    )


def _product(size: Size) -> TimedProblem:
    X, Y, weights = size.draw()
    v = np.random.default_rng(3).standard_normal(sum(weight.size for weight in weights))
    reference = ClosedForm(X, Y, weights).product(v)

    def job(name: str) -> Callable[[], Array]:
        H = hk.SquaredLoss(X, Y, backend=name).hessian(hk.LinearNetwork(weights))
        return lambda: H @ v

    return _both(f"H @ v, {size.label}", job, lambda found: relative_error(found, reference), TOLERANCE[size.dtype])


def _gradient(size: Size) -> TimedProblem:
    X, Y, weights = size.draw()
    reference = flat(loss_and_gradients(X, Y, weights)[1])

    def job(name: str) -> Callable[[], Array]:
        net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y, backend=name)
        return lambda: loss.value_and_gradient(net)[1]

    return _both(
        f"value_and_gradient, {size.label}", job, lambda found: relative_error(found, reference), TOLERANCE[size.dtype]
    )


def _training(size: Size, steps: int, reduce: str) -> TimedProblem:
    X, Y, weights = size.draw()
    rate = loops.stable_rate(X, weights)
    few = min(steps, 50)
    exact = loops.trajectory(X, Y, weights, rate, [few])
    error = loops.error_of_change(weights, lambda: exact)

    def job(name: str) -> Callable[[], float]:
        net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y, backend=name)
        first = hk.fit(net, loss, lr=rate, max_steps=few, reduce=reduce)
        right = error(loops.Trained(first.steps, first.network.flatten()))

        def run() -> float:
            hk.fit(net, loss, lr=rate, max_steps=steps, reduce=reduce)
            return right

        return run

    return _both(f"a step of fit, {size.label}, {steps} steps, reduce={reduce}", job, float, TRAINED, units=steps)


def _minibatch(size: Size, steps: int, batch: int) -> TimedProblem:
    X, Y, weights = size.draw()
    rate = loops.stable_rate(X, weights) if batch > 10 else 0.1 * loops.stable_rate(X[:batch], weights)
    own = [weight.copy() for weight in weights]
    order = np.random.default_rng([0, 0]).permutation(len(X))
    for k in range(few := min(20, len(X) // batch)):
        rows = order[k * batch : (k + 1) * batch]
        for weight, slope in zip(own, loss_and_gradients(X[rows], Y[rows], own)[1], strict=True):
            weight -= rate * slope
    reference = flat(own)

    def job(name: str) -> Callable[[], float]:
        net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y, backend=name)
        how: dict[str, Any] = {"lr": rate, "batch_size": batch, "record": ("batch_loss",)}
        right = relative_error(hk.fit(net, loss, max_steps=few, **how).network.flatten(), reference)

        def run() -> float:
            hk.fit(net, loss, max_steps=steps, **how)
            return right

        return run

    return _both(f"a step of fit, {size.label}, batches of {batch}", job, float, TRAINED, units=steps)


def _ensemble(size: Size, steps: int, count: int) -> TimedProblem:
    X, Y, weights = size.draw()
    rate = loops.stable_rate(X, weights)
    few = min(20, steps)
    reference = loops.trajectory(X, Y, weights, rate, [few])[few]

    def job(name: str) -> Callable[[], float]:
        nets, loss = [hk.LinearNetwork(weights)] * count, hk.SquaredLoss(X, Y, backend=name)
        short = hk.fit_ensemble(nets, loss, lr=rate, max_steps=few)
        right = max(relative_error(flat([w[k] for w in short.weights]), reference) for k in range(count))

        def run() -> float:
            hk.fit_ensemble(nets, loss, lr=rate, max_steps=steps, threads=1)
            return right

        return run

    return _both(
        f"a step of a network, {count} of them, {size.label}, one thread", job, float, TRAINED, units=steps * count
    )


def _sharpness(size: Size, steps: int, *, first_use: bool) -> TimedProblem:
    X, Y, weights = size.draw()
    rate = loops.stable_rate(X, weights)
    stops = [1, steps - 1]
    shapes = [weight.shape for weight in weights]
    exact = []
    for theta in loops.trajectory(X, Y, weights, rate, stops).values():
        cuts = np.cumsum([a * b for a, b in shapes])[:-1]
        parts = [part.reshape(shape) for part, shape in zip(np.split(theta, cuts), shapes, strict=True)]
        exact.append(np.linalg.eigvalsh(ClosedForm(X, Y, parts).matrix())[-1])

    def job(name: str) -> Callable[[], Array]:
        net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y, backend=name)
        return lambda: hk.fit(net, loss, lr=rate, max_steps=steps, record=("loss", "sharpness")).history["sharpness"]

    return _both(
        f"a step of fit with its sharpness, {size.label}",
        job,
        lambda found: relative_error(found[stops], np.array(exact)),
        TRAINED,
        units=steps,
        figures=_first_use() if first_use else (),
    )


#: What a user does first, in a process of its own; the time is printed.
FIRST_USES = {
    "fit": "hk.fit(case.network, loss, lr=case.lr, max_steps=10, backend='numba')",
    "H @ v": "loss.hessian(case.network) @ np.ones(1000)",
    "toarray": "loss.hessian(case.network).toarray()",
    "hesskern.numba.gradient": "nb.gradient(weights, case.X, case.Y)",
    "hesskern.numba.full_hessian": "nb.full_hessian(weights, case.X, case.Y)",
}
SCRIPT = """
import time, numpy as np, hesskern as hk
case = hk.datasets.two_layer_case()
loss = hk.SquaredLoss(case.X, case.Y, backend="numba")
weights = tuple(weight.copy() for weight in case.network.weights)
began = time.perf_counter()
import hesskern.numba as nb
{}
print(time.perf_counter() - began)
"""


def _first_use() -> list[Figure]:
    found = []
    for what, code in FIRST_USES.items():
        folder = tempfile.mkdtemp(prefix="hesskern-bench-")
        for again in (False, True):
            name = f"first {what} of a process, {'compiled by an earlier one' if again else 'nothing compiled'}"
            found.append(Figure(name=name, measure=lambda c=code, f=folder: _timed(c, f), unit="s"))  # type: ignore[misc]
    return found


def _timed(code: str, folder: str) -> float | None:
    environment = os.environ | {"NUMBA_CACHE_DIR": folder}
    command = [sys.executable, "-P", "-c", SCRIPT.format(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def notes(results: Sequence[ProblemResult]) -> list[str]:
    ratios = [
        (ratio.median, result.problem.label)
        for result in results
        if (ratio := result.speedup(OURS, than=CPP)) is not None
    ]
    if not ratios:
        return []
    slow = [f"{label} ({1 / ratio:.2g} times)" for ratio, label in sorted(ratios) if 1 / ratio > AT_MOST]
    middle = 1 / float(np.median([ratio for ratio, _ in ratios]))
    return [
        f"The numba backend takes {middle:.2g} times what cpp takes, in the middle of {len(ratios)} jobs; more than "
        f"{AT_MOST:g} times at {len(slow)}" + (f": {', '.join(slow)}." if slow else ".")
    ]
