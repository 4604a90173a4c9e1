"""Curvature where an exact reduction leaves little: few samples, deep networks of equal widths, last layers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

import hesskern as hk
from bench import reduced_by_hand as by_hand
from bench.closed_form import ClosedForm
from bench.contest import Contestant, Figure, Target, TimedProblem
from bench.memory import peak_bytes
from bench.outcomes import ProblemResult
from bench.peers import with_library, with_torch
from bench.problems import Array, Size
from bench.tasks.migration import Script, pyhessian_eigenvalue, quiet
from bench.tasks.spectrum import as_values, distance

NAME = "reductions"
SUMMARY = "Eigenvalues and condition numbers after the exact reductions: few samples, equal widths, last layers."
#: Of the largest eigenvalue.
SPECTRUM_TOLERANCE = 1e-12
#: Of a condition number, whose smallest eigenvalue the dense reference knows to some 1e-13 of the largest.
CONDITION_TOLERANCE = 1e-7
#: What PyHessian's estimate may be off by; it stops at two digits.
ESTIMATE_TOLERANCE = 0.2
#: Its largest dense eigenproblem takes some seconds.
DENSE_UP_TO = 3100
SCRIPT = """
import numpy as np, hesskern as hk
rng = np.random.default_rng(0)
widths = {widths}
net = hk.LinearNetwork.random(widths, seed=0)
loss = hk.SquaredLoss(rng.standard_normal(({samples}, widths[0])), rng.standard_normal(({samples}, widths[-1])))
loss.hessian(net).{job}()
"""


class Estimate(NamedTuple):
    """A number that its library gives to a few digits."""

    value: float


class ReducedCase(NamedTuple):
    """A problem of the task: what is asked of a network, and what has to come out."""

    job: str  # "spectrum" or "condition"
    size: Size
    seconds: float
    megabytes: float | None
    reference: Callable[[Array, Array, list[Array]], by_hand.Values]
    timed: bool  # whether the reference is a contestant too


class Head(NamedTuple):
    """A last layer under cross-entropy."""

    samples: int
    features: int
    classes: int
    seconds: float


CASES = (
    ReducedCase("spectrum", Size(50, (5, 100, 100, 100, 5)), 4.0, 400.0, by_hand.deep, timed=True),
    ReducedCase("condition", Size(50, (784, 100, 10)), 10.0, 1000.0, by_hand.two_layers, timed=False),
    ReducedCase("spectrum", Size(20, (300, 10, 2)), 0.02, None, by_hand.two_layers, timed=True),
    ReducedCase("spectrum", Size(20, (500, 10, 2)), 0.02, None, by_hand.two_layers, timed=True),
)
QUICK_CASES = (
    ReducedCase("spectrum", Size(4, (3, 6, 6, 6, 3)), 1.0, 1000.0, by_hand.deep, timed=True),
    ReducedCase("condition", Size(3, (9, 12, 2)), 1.0, None, by_hand.two_layers, timed=False),
)
HEADS = (Head(20, 400, 10, 0.01), Head(30, 20_000, 10, 0.1))
QUICK_HEADS = (Head(3, 8, 3, 1.0),)
LARGEST, QUICK_LARGEST = Size(500, (20, 50, 10)), Size(20, (5, 8, 3))


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    cases, heads = (QUICK_CASES, QUICK_HEADS) if quick else (CASES, HEADS)
    return [
        *(partial(_case, case) for case in cases),
        *(partial(_head, head) for head in heads),
        partial(_largest, QUICK_LARGEST if quick else LARGEST),
    ]


def _case(case: ReducedCase) -> TimedProblem:
    X, Y, weights = case.size.draw()
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)
    exact = cache(lambda: case.reference(X, Y, weights))
    jobs = {"spectrum": lambda: loss.hessian(net).spectrum(), "condition": lambda: loss.hessian(net).condition()}
    contestants = [
        Contestant(
            name="hesskern",
            run=jobs[case.job],
            role="ours",
            note=f"loss.hessian(net).{case.job}(): {loss.hessian(net).reduction}",
        )
    ]
    if case.timed:
        contestants.append(
            Contestant(
                name="NumPy", run=lambda: case.reference(X, Y, weights), note="the same reductions by hand in NumPy"
            )
        )
    if case.job == "spectrum" and net.num_parameters <= DENSE_UP_TO:
        form = ClosedForm(X, Y, weights)
        contestants.append(
            Contestant(
                name="NumPy, dense",
                run=lambda: np.linalg.eigvalsh(form.matrix()),
                note="no reduction: the dense matrix by its products, then eigvalsh",
            )
        )

    def error(result: Any) -> float:
        if case.job == "spectrum":
            return _spectrum_error(result, exact())
        expected = by_hand.condition(exact())
        return float(abs(result.value / expected - 1))

    return TimedProblem(
        label=f"{case.job}, P = {net.num_parameters}, {case.size.label}",
        contestants=contestants,
        error=error,
        tolerance=SPECTRUM_TOLERANCE if case.job == "spectrum" else CONDITION_TOLERANCE,
        targets=[Target(contestant="hesskern", kind="seconds", bound=case.seconds)],
        figures=[] if case.megabytes is None else [_memory(case, case.megabytes)],
    )


def _spectrum_error(result: Any, exact: by_hand.Values) -> float:
    """Return the distance of two spectra; infinite if hesskern's zeros are not zero to the bit."""
    values, counts = as_values(result)
    if isinstance(result, hk.Spectrum):
        zeros = int(exact[1][exact[0] == 0].sum())
        if int(counts[values == 0].sum()) < zeros:
            return float("inf")
    return distance((values, counts), exact)


def _memory(case: ReducedCase, bound: float) -> Figure:
    script = SCRIPT.format(widths=case.size.widths, samples=case.size.samples, job=case.job)

    def measure() -> float | None:
        peak = peak_bytes(script)
        return None if peak is None else peak / 1e6

    return Figure(
        name="peak memory of a process",
        measure=measure,
        unit="MB",
        bound=bound,
        note="all of it, Python and the libraries included",
    )


def _head(head: Head) -> TimedProblem:
    rng = np.random.default_rng(20240)
    samples, features, classes, seconds = head
    X = rng.standard_normal((samples, features)) / np.sqrt(features)
    weight, bias = rng.standard_normal((classes, features)), rng.standard_normal(classes)
    labels = rng.integers(0, classes, samples)
    inner, logits = np.column_stack([X, np.ones(samples)]), X @ weight.T + bias
    mean = np.full(samples, 1.0 / samples)

    def ours() -> float:
        return hk.SoftmaxHessian(X, logits, bias=True, sample_weights=mean).condition().value

    def gram() -> float:
        values = by_hand.softmax_gram(inner, logits, 1.0 / samples)
        return float(values[-1] / values[0])

    def from_model(torch: Any) -> Callable[[], object]:
        from hesskern.torch import last_layer_hessian

        model = torch.nn.utils.skip_init(torch.nn.Linear, features, classes, dtype=torch.float64)
        with torch.no_grad():
            model.weight.copy_(torch.tensor(weight))
            model.bias.copy_(torch.tensor(bias))
        data, loss = (torch.tensor(X), torch.tensor(labels)), torch.nn.CrossEntropyLoss()
        return lambda: last_layer_hessian(model, data, loss).condition().value

    @cache
    def exact() -> float:
        """From the singular values of the factor in a basis of the features: no square loses digits."""
        Q, R = np.linalg.qr(inner.T) if samples < inner.shape[1] else (None, inner.T)
        del Q
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        rows = [
            np.kron((np.diag(np.sqrt(q)) - np.outer(q, np.sqrt(q))).T, f[None, :]) for q, f in zip(p, R.T, strict=True)
        ]
        values = np.linalg.svd(np.concatenate(rows), compute_uv=False)
        kept = values[values > 1e-10 * values[0]]
        return float((kept[0] / kept[-1]) ** 2)

    size = classes * (features + 1)
    return TimedProblem(
        label=f"condition of a softmax last layer, P = {size}, N = {samples}, {features} features",
        contestants=[
            Contestant(name="hesskern", run=ours, role="ours", note="SoftmaxHessian(...).condition() from arrays"),
            with_torch("hesskern, from the model", from_model, note="last_layer_hessian(model, ...).condition()"),
            Contestant(name="NumPy", run=gram, note="eigenvalues of the Gram matrix of a factor, which squares it"),
        ],
        error=lambda result: abs(float(result) / exact() - 1),  # type: ignore[arg-type]
        tolerance=CONDITION_TOLERANCE,
        targets=[Target(contestant="hesskern", kind="seconds", bound=seconds)],
    )


def _largest(size: Size) -> TimedProblem:
    X, Y, weights = size.draw()

    @cache
    def exact() -> float:
        return float(np.linalg.eigvalsh(ClosedForm(X, Y, weights).matrix())[-1] * (2.0 / Y.size))  # MSELoss

    def error(result: Any) -> float:
        if isinstance(result, Estimate):
            return abs(result.value / exact() - 1) * SPECTRUM_TOLERANCE / ESTIMATE_TOLERANCE
        return abs(float(result) / exact() - 1)

    def drop_in(torch: Any) -> Callable[[], object]:
        line = pyhessian_eigenvalue(importlib.import_module("hesskern.compat.pyhessian"), Script(torch, size))
        return lambda: _first(line())

    def theirs(module: Any) -> Callable[[], object]:
        line = pyhessian_eigenvalue(module, Script(importlib.import_module("torch"), size))
        return lambda: Estimate(_first(line()))

    def dense(torch: Any) -> Callable[[], object]:
        script = Script(torch, size)
        call, names = torch.func.functional_call, ("0.weight", "1.weight")

        def loss(*weights: Any) -> Any:
            return script.loss(call(script.model, dict(zip(names, weights, strict=True)), (script.x,)), script.y)

        def run() -> object:
            blocks = torch.autograd.functional.hessian(loss, tuple(script.weights), vectorize=True)
            sizes = [weight.numel() for weight in script.weights]
            H = torch.cat(
                [
                    torch.cat([block.reshape(m, n) for block, n in zip(row, sizes, strict=True)], dim=1)
                    for row, m in zip(blocks, sizes, strict=True)
                ]
            )
            return torch.linalg.eigvalsh(H)[-1]

        return run

    contestants = [
        with_torch("hesskern", drop_in, note="hesskern.compat.pyhessian, eigenvalues(): from the model to the number"),
        with_library("pyhessian", "PyHessian", theirs, note="eigenvalues() with its defaults: two digits"),
        with_torch(
            "torch autograd, eigvalsh", dense, note="autograd.functional.hessian(vectorize=True), then eigvalsh"
        ),
    ]
    contestants = [
        Contestant(name=c.name, run=c.run, note=c.note, context=quiet, role="ours" if c.name == "hesskern" else "peer")
        for c in contestants
    ]
    parameters = sum(weight.size for weight in weights)
    return TimedProblem(
        label=f"largest eigenvalue, P = {parameters}, {size.label}, from a torch model",
        contestants=contestants,
        error=error,
        tolerance=SPECTRUM_TOLERANCE,
        targets=[Target(contestant="hesskern", kind="faster", bound=10, than="PyHessian")],
    )


def _first(values: Any) -> float:
    return float(np.ravel(values)[0])


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return [
        "PyHessian's `eigenvalues()` stops at two digits, and its error in the table is divided by 2e11, so that one "
        "tolerance serves for all; the other numbers are exact to rounding."
    ]
