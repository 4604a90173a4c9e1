"""The group "fit": `fit` and `fit_ensemble` against a plain loop, all records included.

The plain loop runs twice, in extended precision and in that of the problem, the second time from weights and data that
are off in their last digits. What the second is off by is what rounding does to this run; the package may be off by 30
times as much, or by 30 units of rounding a step.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import hesskern as hk
from attack import generator, loops
from attack.generator import RandomProblem
from attack.judge import Judge
from attack.loops import Path, RunPlan
from attack.oracle import LONG, Truth

BACKENDS = ("cpp", "cpp", "cpp", "numba", "numpy")
_FAMILIES = ("normal", "integers", "deficient", "interpolating", "zero", "deep", "wide")


def draw(rng: np.random.Generator) -> tuple[RandomProblem, RunPlan]:
    """Return a problem and how it is trained: rates from far too small to beyond the edge of stability."""
    problem = generator.draw(rng)
    while problem.family not in _FAMILIES or sum(weight.size for weight in problem.weights) > 250:
        problem = generator.draw(rng)
    truth = Truth(problem)
    values = np.linalg.eigvalsh(truth.hessian().astype(np.float64))
    sharpness = float(abs(values).max()) or 1.0
    rate = float(rng.choice([0.1, 0.5, 0.9, 1.5])) / sharpness
    if rng.random() < 0.08:
        rate = 50.0 / sharpness  # diverges
    steps = int(rng.integers(1, 40))
    rates = [rate] * steps
    if rng.random() < 0.2:
        rates = [rate / (1 + 0.1 * step) for step in range(steps)]
    plan = RunPlan(rates, steps)
    if rng.random() < 0.3:
        plan.momentum = float(rng.choice([0.3, 0.9]))
        plan.nesterov = bool(rng.random() < 0.5)
    if rng.random() < 0.35:
        plan.batch_size = int(rng.integers(1, len(problem.X) + 3))
        plan.shuffle, plan.seed = bool(rng.random() < 0.7), int(rng.integers(0, 1000))
    if rng.random() < 0.3 and problem.family not in ("interpolating", "zero"):  # there rounding decides at once
        plan.rtol = float(10.0 ** rng.integers(-6, 0))
    return problem, plan


def run(seed: int, *, backend: str | None = None, everything: bool = False) -> Judge:
    """Train one problem, or several at once, and judge where it came and what was recorded."""
    rng = np.random.default_rng([2, seed])
    judge = Judge()
    problem, plan = draw(rng)
    drawn = BACKENDS[int(rng.integers(0, len(BACKENDS)))]
    backend = backend or drawn
    truth, plain = _paths(problem, plan, rng)
    several = bool(rng.random() < 0.3)
    reduce = ("auto", "auto", "none")[rng.integers(0, 3)]
    if not several or everything:
        with judge.check(f"fit/{backend}"):
            _one(problem, plan, truth, plain, backend, reduce, rng, judge)
    if several or everything:
        with judge.check(f"fit_ensemble/{backend}"):
            _ensemble(problem, plan, backend, reduce, rng, judge)
    judge.wrong = [f"{sentence} [{problem}; {plan}; reduce {reduce}]" for sentence in judge.wrong]
    return judge


def _paths(problem: RandomProblem, plan: RunPlan, rng: np.random.Generator) -> tuple[Path, Path]:
    """Return the exact run, and one in the precision of the problem from inputs that are off by a unit of rounding."""
    eps = np.finfo(problem.X.dtype).eps

    def moved(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        noise = array * rng.standard_normal(array.shape) + 0.1 * abs(array).max() * rng.standard_normal(array.shape)
        return (array + eps * noise).astype(array.dtype)

    inexact = dataclasses.replace(
        problem, weights=[moved(weight) for weight in problem.weights], biases=[moved(bias) for bias in problem.biases],
        X=moved(problem.X), Y=moved(problem.Y),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        return loops.path(problem, plan, LONG), loops.path(inexact, plan, problem.X.dtype)


def records(problem: RandomProblem, plan: RunPlan, rng: np.random.Generator) -> list[str]:
    """Return what the run keeps."""
    known = ["loss", "gradient_norm", "distance", "weights", "balance", "sharpness"]
    if len(problem.weights) == 1:
        known.remove("balance")
    if plan.batch_size is not None:
        known.append("batch_loss")
    return [name for name in known if rng.random() < 0.4] or ["loss"]


def _one(
    problem: RandomProblem, plan: RunPlan, truth: Path, plain: Path, backend: str, reduce: str, rng: Any, judge: Judge
) -> None:
    record, every = records(problem, plan, rng), int(rng.integers(1, 4))
    found = hk.fit(
        problem.network(), problem.loss(), record=record, record_every=every, reduce=reduce, backend=backend,
        **plan.arguments(),
    )  # fmt: skip
    if not _same_end(found.status, found.steps, truth, plain, judge):
        return
    tolerance = _Tolerance(problem, truth, plain)
    judge_end(problem, found.network.flatten(), truth, tolerance, found.steps, judge)
    steps = found.history["step"]
    judge.same(steps, np.arange(0, len(truth.losses), every)[: len(steps)], "step")
    if truth.status != "diverged":
        judge.true(len(steps) == len(range(0, len(truth.losses), every)), f"{len(steps)} records")
    for name in record:
        judge.true(len(found.history[name]) == len(steps), f"{name} has {len(found.history[name])} records")
        for at, (step, value) in enumerate(zip(steps, found.history[name], strict=False)):
            if name == "sharpness" and at not in (0, len(steps) - 1):
                continue
            _record(problem, plan, truth, tolerance, int(step), name, value, judge)


class _Tolerance:
    """What parameters and losses may be off by before each step."""

    def __init__(self, problem: RandomProblem, truth: Path, plain: Path) -> None:
        self.problem = problem
        oracle = Truth(problem)
        unit = float(np.finfo(problem.X.dtype).eps) * oracle.roundings
        self.unit = unit
        size = LONG(0)
        self.theta: list[float] = []
        worst = LONG(0)
        for step, (exact, rounded) in enumerate(zip(truth.thetas, plain.thetas, strict=False)):
            size = max(size, np.sqrt((exact**2).sum()))
            worst = max(worst, np.sqrt(((exact - rounded) ** 2).sum()))
            self.theta.append(float(worst + unit * (step + 1) * size))
        #: Beyond this the run depends on rounding, and nothing can be said.
        self.chaotic = bool(worst > 1e-4 * size) or not np.isfinite(float(worst))
        self.magnitude = (oracle.residual_size**2).sum() * oracle.scale / 2
        self.decay = problem.weight_decay * float((oracle.theta**2).sum())

    def loss(self, step: int, truth: Path) -> float:
        """What a loss before this step may be off by, to first and second order in the error of the parameters."""
        value, norm, off = truth.losses[step], truth.gradient_norms[step], LONG(self.theta[step])
        rounding = self.unit * (value + 2 * np.sqrt(value * self.magnitude) + self.unit * self.magnitude + self.decay)
        curvature = self.magnitude * len(self.problem.weights) ** 2 * 4
        return float(norm * off + curvature * off**2 + rounding)


def _same_end(status: str, steps: int, truth: Path, plain: Path, judge: Judge) -> bool:
    """Judge how the run ended; whether it can be compared."""
    wanted = {truth.status, plain.status}
    if "diverged" in wanted or status == "diverged":
        if wanted == {"diverged"}:
            judge.true(status == "diverged", f"status {status}, but the run diverges")
        elif plain.status != "diverged" and np.isfinite(float(plain.losses[-1])):
            judge.true(
                status != "diverged" or float(plain.losses[-1]) > 1e30, f"status {status} of a run with finite losses"
            )
        return False  # where exactly it overflows is rounding's choice
    if wanted == {status} and steps == len(truth.losses):
        return True
    # Where a loss meets the threshold to the last digits, rounding decides.
    lengths = {len(truth.losses), len(plain.losses)}
    ties = any(
        abs(float(value / truth.losses[0] / 10 ** round(float(np.log10(float(value / truth.losses[0]) or 1.0)))) - 1)
        < 1e-3
        for value in truth.losses[1:]
        if value > 0 and truth.losses[0] > 0
    )
    small = (
        truth.losses[0] == 0
        or any(value < 1e-20 * truth.losses[0] for value in truth.losses)
        or truth.losses[0] < 1e-20
    )
    if len(lengths) == 1 and not ties and not small:
        judge.fail(f"{status} after {steps} steps instead of {truth.status} after {len(truth.losses)}")
    return False


def judge_end(
    problem: RandomProblem, theta: np.ndarray, truth: Path, tolerance: _Tolerance, steps: int, judge: Judge
) -> None:
    """Judge the parameters after the last step."""
    if tolerance.chaotic or steps >= len(tolerance.theta):
        return
    off = float(np.sqrt(((theta.astype(LONG) - truth.thetas[steps]) ** 2).sum()))
    judge.ratio(off, tolerance.theta[steps], f"parameters after {steps} steps")


def _record(
    problem: RandomProblem,
    plan: RunPlan,
    truth: Path,
    tolerance: _Tolerance,
    step: int,
    name: str,
    value: Any,
    judge: Judge,
) -> None:
    if tolerance.chaotic:
        return
    theta, off = truth.thetas[step], LONG(tolerance.theta[step])
    where = f"{name} before step {step}"
    if name == "loss":
        judge.ratio(abs(value - truth.losses[step]), tolerance.loss(step, truth), where)
    elif name == "weights":
        judge.ratio(np.sqrt(((value - theta) ** 2).sum()), off, where)
    elif name == "distance":
        judge.ratio(abs(value - np.sqrt(((theta - truth.thetas[0]) ** 2).sum())), off, where)
    elif name == "balance":
        weights, biases = loops.split(problem, theta)
        wanted = []
        for layer, weight in enumerate(weights[:-1]):
            bias = biases[layer]
            left = weight @ weight.T + (0 if bias is None else np.outer(bias, bias))
            wanted.append(np.sqrt(((weights[layer + 1].T @ weights[layer + 1] - left) ** 2).sum()))
        size = np.sqrt((theta**2).sum())
        judge.ratio(abs(value - np.array(wanted)).max(), 4 * size * off, where)
    elif name == "gradient_norm":
        here = _at(problem, theta)
        curvature = np.sqrt((here.hessian_size() ** 2).sum())
        _, size = here.gradient
        allowed = curvature * off + tolerance.unit * np.sqrt((size**2).sum())
        judge.ratio(abs(value - truth.gradient_norms[step]), allowed, where)
    elif name == "sharpness":
        here = _at(problem, theta)
        values = np.linalg.eigvalsh(here.hessian().astype(np.float64))
        norm = float(np.sqrt((here.hessian_size() ** 2).sum()))
        third = 6 * norm / max(float(abs(theta).max()), 1e-3) * float(off)
        allowed = 1e-10 * float(abs(values).max()) + tolerance.unit * norm + third
        judge.ratio(abs(float(value) - float(values[-1])), allowed, where)


def _at(problem: RandomProblem, theta: np.ndarray) -> Truth:
    weights, biases = loops.split(problem, theta)
    return Truth(dataclasses.replace(problem, weights=weights, biases=biases))


def _ensemble(problem: RandomProblem, plan: RunPlan, backend: str, reduce: str, rng: Any, judge: Judge) -> None:
    count = int(rng.integers(1, 7))
    problems = [problem]
    for _ in range(count - 1):
        factor = float(rng.uniform(0.5, 1.1))
        weights = [(weight * problem.X.dtype.type(factor)) for weight in problem.weights]
        problems.append(dataclasses.replace(problem, weights=weights))
    plan = dataclasses.replace(plan, rates=[plan.rates[0]] * plan.steps)
    found = hk.fit_ensemble(
        [each.network() for each in problems], problem.loss(), record=["loss"], reduce=reduce, backend=backend,
        threads=int(rng.integers(1, 4)), **plan.arguments(),
    )  # fmt: skip
    judge.true(len(found) == count and len(found.weights) == len(problem.weights), "sizes")
    for number, each in enumerate(problems):
        truth, plain = _paths(each, plan, rng)
        steps = int(found.steps[number])
        if not _same_end(str(found.status[number]), steps, truth, plain, judge):
            continue
        tolerance = _Tolerance(each, truth, plain)
        judge_end(each, found.network(number).flatten(), truth, tolerance, steps, judge)
        if not tolerance.chaotic:
            for step in range(len(truth.losses)):
                off = float(abs(found.history["loss"][number, step] - truth.losses[step]))
                judge.ratio(off, tolerance.loss(step, truth), f"loss of network {number} before step {step}")
