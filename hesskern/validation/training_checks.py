"""Training: a few steps of each kind against ``torch.optim.SGD``, and the recorded quantities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from hesskern.training.fit import Run, fit
from hesskern.training.fit_ensemble import fit_ensemble
from hesskern.validation.case import Matrix, Training, ValidationCase
from hesskern.validation.comparison import Check, Comparison
from hesskern.validation.evidence import Evidence, Subject, Witness
from hesskern.validation.rounding import Bounds, ErrorBound, norm, spread_error, square

_STEPS = 4


def training_checks(evidence: Evidence) -> Iterator[Check]:
    """Yield the comparisons for a problem."""
    plain = replace(_plain(evidence), name="plain")
    size = max(1, (2 * evidence.problem.samples) // 5)
    # A mean over a batch has a steeper Hessian than one over all samples, by up to their ratio.
    slower = plain.lr * size / evidence.problem.samples if evidence.problem.kind == "mean" else plain.lr
    ways = [
        plain,
        replace(plain, name="momentum", momentum=0.9),
        replace(plain, name="Nesterov", momentum=0.9, nesterov=True),
        replace(plain, name="weight decay", decay=0.1 / plain.lr if not plain.decay else 0.0),
        replace(plain, name="minibatches", lr=slower, batch_size=size),
        replace(plain, name="minibatches, momentum", lr=slower, batch_size=size, momentum=0.5),
    ]
    if evidence.problem.decay:
        ways[3] = replace(ways[3], name="no weight decay")
    for how in ways:
        yield _steps(evidence, how.name, how, _fit(how))
    yield _steps(evidence, "plain, not reduced", plain, _fit(plain, reduce="none"))
    yield _steps(evidence, "plain, in an ensemble", plain, _ensemble(plain))
    yield _losses(evidence, plain)
    if evidence.dense or (evidence.lanczos_affordable and evidence.problem.net.dtype == np.float64):
        yield _sharpness(plain)


def _plain(evidence: Evidence) -> Training:
    """Return gradient descent with a learning rate at which errors do not grow."""
    steepest = evidence.norm()
    return Training("", lr=0.25 / steepest if steepest else 1.0, steps=_STEPS, decay=evidence.problem.decay)


def _run(subject: Subject, how: Training, **options: Any) -> Run:
    return fit(
        subject.net,
        subject.decayed(how.decay),
        lr=how.lr,
        max_steps=how.steps,
        momentum=how.momentum,
        nesterov=how.nesterov,
        batch_size=how.batch_size,
        seed=how.seed,
        **options,
    )


def _fit(how: Training, **options: Any) -> Callable[[Subject, Evidence], Matrix]:
    def path(subject: Subject, _: Evidence) -> Matrix:
        run = _run(subject, how, record=("weights",), **options)
        return np.vstack([run.history["weights"], run.network.flatten()]).astype(np.float64)

    return path


def _ensemble(how: Training) -> Callable[[Subject, Evidence], Matrix]:
    def path(subject: Subject, _: Evidence) -> Matrix:
        runs = fit_ensemble(
            [subject.net] * 3, subject.decayed(how.decay), lr=[how.lr, how.lr / 2, how.lr / 4], max_steps=how.steps,
            momentum=how.momentum, nesterov=how.nesterov, record=("weights",),
        )  # fmt: skip
        return np.vstack([runs.history["weights"][0], runs.network(0).flatten()]).astype(np.float64)

    return path


def _steps(evidence: Evidence, name: str, how: Training, computed: Callable[[Subject, Evidence], Matrix]) -> Comparison:
    def moved(e: Evidence, witness: Witness) -> Matrix:
        return e.trajectory(witness, how).thetas

    def label(e: Evidence, at: tuple[int, ...]) -> str:
        return f"{e.problem.parameter(at[1])} after {at[0]} steps"

    def relative(subject: Subject, e: Evidence) -> Matrix:
        return computed(subject, e) - e.problem.theta

    unit = evidence.autograd.unit
    return Comparison(
        "training",
        f"training, {name}",
        relative,
        lambda e, w: moved(e, w) - e.problem.theta,
        lambda e, b: _path(e, how, e.problem.unit if b is e.hesskern_bounds else unit),
        lambda e: _path(e, how, unit).error if e.differences.affordable(4 * how.steps) else None,
        method=f"{how.steps} steps",
        label=label,
    )


def _path(evidence: Evidence, how: Training, unit: float) -> ErrorBound:
    """Return how far the trajectory moves at most, and its rounding error, accumulated over the steps.

    An error in the weights becomes an error in the gradient, multiplied by the norm of the Hessian, which may grow.
    """

    def make() -> ErrorBound:
        problem = evidence.problem
        thetas = evidence.trajectory(evidence.autograd, how).thetas
        last = problem.net.unflatten(thetas[-1].astype(problem.net.dtype))
        ends = [problem.with_loss(problem.kind, how.decay), _decayed(problem, last, how.decay)]
        gradients = [Bounds(end, unit, rotated=True).whole_gradient for end in ends]
        # A batch of a mean has a larger scale than all samples together.
        scale_of_batch = problem.samples / how.batch_size if how.batch_size and problem.kind == "mean" else 1.0
        wrong, slope = (
            scale_of_batch * max(gradient.error for gradient in gradients),
            2.0 * scale_of_batch * evidence.norm() + how.decay,
        )
        start = norm(problem.theta)
        widths = problem.net.widths
        turned = sum(
            spread_error(b * (a + 1 + c), unit) for a, b, c in zip(widths, widths[1:], widths[2:], strict=False)
        )
        error, velocity, total = (turned + unit) * start, 0.0, 0.0
        for theta in thetas[1:]:
            size = norm(theta) + start
            speed = scale_of_batch * max(gradient.size for gradient in gradients) / (1.0 - how.momentum)
            velocity = how.momentum * velocity + slope * error + wrong + 3 * unit * speed
            error += how.lr * (1.0 + how.momentum) * velocity + unit * size + 3 * unit * how.lr * speed + turned * size
            total += square(error)
        moved = norm(thetas - problem.theta)
        return ErrorBound(moved, math.sqrt(total) + turned * start)

    return evidence.kept(("path", how, unit), make)


def _decayed(problem: ValidationCase, net: Any, decay: float) -> ValidationCase:
    return ValidationCase(problem.name, net, problem.with_loss(problem.kind, decay).loss)


def _losses(evidence: Evidence, how: Training) -> Comparison:
    def part(e: Evidence, bounds: Bounds) -> ErrorBound:
        losses = e.trajectory(e.autograd, how).losses
        path = _path(e, how, e.problem.unit if bounds is e.hesskern_bounds else e.autograd.unit)
        # Descent makes the gradient smaller; twice the first is above all of them.
        steep = 2.0 * norm(e.autograd.gradient())
        size = 0.5 * bounds.scale * square(bounds.residual.size)
        return ErrorBound(size, math.sqrt(len(losses)) * (bounds.loss(float(losses.max())) + steep * path.error))

    return Comparison(
        "training", "losses recorded", lambda s, e: _run(s, how).history["loss"],
        lambda e, w: e.trajectory(w, how).losses, part,
        lambda e: part(e, e.autograd_bounds).error if e.differences.affordable(4 * how.steps) else None,
        method=f"{how.steps} steps", label=lambda e, at: f"step {at[0]}",
    )  # fmt: skip


def _sharpness(how: Training) -> Comparison:
    def recorded(subject: Subject, _: Evidence) -> float:
        run = fit(subject.net, subject.loss, lr=how.lr, max_steps=1, record=("sharpness",))
        return float(run.history["sharpness"][0])

    def part(e: Evidence, bounds: Bounds) -> ErrorBound:
        value, residual = e.largest()
        # docs/training.md promises 1e-10 of it, and rounding comes on top.
        error = bounds.whole("block").error + spread_error(e.problem.size, e.problem.unit) * abs(value)
        return ErrorBound(abs(value), 0.5e-10 * abs(value) + error + residual)

    return Comparison(
        "training", "sharpness recorded", recorded, lambda e, w: e.largest()[0], part, lambda e: None, method="1 step"
    )
