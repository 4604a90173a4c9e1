"""All eigenvalues of the Hessian of a two-layer network whose residual is not zero, from the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hesskern as hk
from bench import jax_curvature
from bench.autograd import Autograd, dense
from bench.closed_form import ClosedForm
from bench.contest import Contestant, Figure, Target, TimedProblem
from bench.ladders import TINY, by_width, rungs, union
from bench.libraries import Model
from bench.memory import peak_bytes
from bench.outcomes import ProblemResult
from bench.peers import with_jax, with_library, with_torch
from bench.problems import Array, Size

NAME = "spectrum"
SUMMARY = "The complete spectrum with multiplicities, `loss.hessian(net).spectrum()`, from scratch."
EIGVALSH, QR_R, QR = "np.linalg.eigvalsh, dense", "floor: np.linalg.qr, R only", "floor: np.linalg.qr, Q and R"
DENSE_UP_TO = 2000  # parameters: their dense eigenproblem takes a second
WIDEST = 1_000_000
CASE = Size(5, (5, 100, 5))
LADDERS = (by_width(5, 5, 5, (25, 50, 100, 200)), by_width(100, 10, 10, (100, 1000, 10_000, 100_000, WIDEST)))
QUICK_SIZES = (*union(TINY), Size(5, (3, 2000, 2)))
#: Of the largest eigenvalue: the error of a symmetric eigenproblem grows with its order.
TOLERANCE = 1e-11

Values = tuple[Array, NDArray[np.int64]]  # eigenvalues, multiplicities

MEMORY_SCRIPT = """
import numpy as np, hesskern as hk
net = hk.LinearNetwork.random(({inputs}, {width}, {outputs}), seed=0)
rng = np.random.default_rng(0)
loss = hk.SquaredLoss(rng.standard_normal(({samples}, {inputs})), rng.standard_normal(({samples}, {outputs})))
"""
OURS = "loss.hessian(net).spectrum()"
WITH_NUMPY = "np.linalg.qr(np.hstack([net.weights[0], net.weights[1].T]), mode='r')"


def reduced(stack: Array, inputs: int) -> list[Array]:
    """Return the weights of the network of at most i + o hidden units with the same curvature."""
    R: Any = np.linalg.qr(stack, mode="r")
    return [R[:, :inputs], R[:, inputs:].T]


def by_hand(X: Array, Y: Array, weights: Sequence[Array]) -> Values:
    """Return the spectrum by the width reduction: the small network's, and the residual's for each unit left over."""
    small = reduced(np.hstack([weights[0], weights[1].T]), len(weights[0].T))
    form = ClosedForm(X, Y, small)
    sigma = np.linalg.svd(form.deltas[-1].T @ X, compute_uv=False)
    left_over = len(weights[0]) - len(small[0])
    zeros = left_over * (sum(len(side) for side in (X.T, Y.T)) - 2 * len(sigma))
    values = np.concatenate([np.linalg.eigvalsh(form.matrix()), sigma, -sigma, [0.0]])
    counts = np.concatenate([np.ones(form.size), np.full(2 * len(sigma), left_over), [zeros]]).astype(np.int64)
    return values[counts > 0], counts[counts > 0]


def distance(found: Values, exact: Values) -> float:
    """Return the largest difference of sorted eigenvalues relative to the largest; infinite if the counts differ."""
    steps = []
    for values, counts in (found, exact):
        order = np.argsort(values)
        steps.append((np.asarray(values)[order], np.cumsum(np.asarray(counts)[order])))
    (left, left_ends), (right, right_ends) = steps
    if left_ends[-1] != right_ends[-1]:
        return float("inf")
    ends = np.union1d(left_ends, right_ends)
    apart = left[np.searchsorted(left_ends, ends)] - right[np.searchsorted(right_ends, ends)]
    worst = float(np.max(np.abs(apart)) / np.max(np.abs(right)))
    return worst if np.isfinite(worst) else float("inf")


def as_values(result: Any) -> Values:
    """Return what a contestant found: a spectrum, a pair, or all eigenvalues one by one."""
    if isinstance(result, hk.Spectrum):
        return result.values, result.multiplicities
    if isinstance(result, tuple):
        return result
    values = np.asarray(result)
    return values, np.ones(len(values), np.int64)


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [partial(_problem, size) for size in (QUICK_SIZES if quick else union(LADDERS))]


def _problem(size: Size) -> TimedProblem:
    X, Y, weights = size.draw()
    inputs, width, _ = size.widths
    net, loss = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y)
    stack = np.hstack([weights[0], weights[1].T])
    small = ClosedForm(X, Y, reduced(stack, inputs)).matrix()
    targets = []
    contestants = [
        Contestant(name="hesskern", run=lambda: loss.hessian(net).spectrum(), role="ours", note="from the network"),
        Contestant(name="NumPy", run=lambda: by_hand(X, Y, weights), note="the same reductions with NumPy"),
    ]
    floors = [
        Contestant(
            name=QR_R,
            run=lambda: np.linalg.qr(stack, mode="r"),
            role="floor",
            part="QR",
            note="of the stacked weights",
        ),
        Contestant(
            name=QR, run=lambda: np.linalg.qr(stack), role="floor", part="QR", note="of the stacked weights, thin"
        ),
        Contestant(
            name="floor: reduced eigenproblem",
            run=lambda: np.linalg.eigvalsh(small),
            role="floor",
            part="eigenvalues",
            note=f"np.linalg.eigvalsh of the {len(small)} x {len(small)} matrix that is left",
        ),
    ]
    if net.num_parameters <= DENSE_UP_TO:
        matrix = ClosedForm(X, Y, weights).matrix()
        values = np.linalg.eigvalsh(matrix)
        exact = values, np.ones(len(values), np.int64)
        contestants += _dense(matrix, X, Y, weights)
        if size == CASE:
            targets.append(Target(contestant="hesskern", kind="faster", bound=100, than=EIGVALSH))
    else:
        exact = by_hand(X, Y, weights)
    if width == WIDEST:
        targets += [Target(contestant="hesskern", kind="at_most", bound=5, than=name) for name in (QR_R, QR)]
    return TimedProblem(
        label=f"P = {net.num_parameters}, {size.label}",
        contestants=[*contestants, *floors],
        error=lambda result: distance(as_values(result), exact),
        tolerance=TOLERANCE,
        targets=targets,
        figures=_memory(size) if width in (WIDEST, QUICK_SIZES[-1].widths[1]) else (),
        rungs=rungs(size, (*LADDERS, *TINY)),
        memory=size in (CASE, TINY[0].sizes[0]),
    )


def _dense(matrix: Array, X: Array, Y: Array, weights: Sequence[Array]) -> list[Contestant]:
    def torch_way(torch: Any) -> Callable[[], Any]:
        tensor = torch.tensor(matrix)
        return lambda: torch.linalg.eigvalsh(tensor)

    def autograd(torch: Any) -> Callable[[], Any]:
        hessian = Autograd(torch, X, Y, weights).functional_hessian()
        return lambda: torch.linalg.eigvalsh(torch.from_numpy(dense(hessian())))

    def curvlinops(library: Any) -> Callable[[], Any]:
        model = Model(X, Y, weights)
        hessian = model.curvlinops_dense(library)
        return lambda: model.torch.linalg.eigvalsh(hessian())

    return [
        Contestant(name=EIGVALSH, run=lambda: np.linalg.eigvalsh(matrix), note="the dense matrix is given"),
        with_torch("torch.linalg.eigvalsh, dense", torch_way, note="the dense matrix is given"),
        with_torch(
            "torch autograd, eigvalsh", autograd, note="autograd.functional.hessian(vectorize=True), then eigvalsh"
        ),
        with_jax(
            "jax jit(eigvalsh of hessian)",
            lambda jax: jax_curvature.eigenvalues(jax, X, Y, weights),
            note="one compiled function",
        ),
        with_library("curvlinops", "curvlinops, eigvalsh", curvlinops, note="HessianLinearOperator times the identity"),
    ]


def _memory(size: Size) -> list[Figure]:
    inputs, width, outputs = size.widths
    weights = 8 * width * (inputs + outputs)

    def over_weights(job: str) -> Callable[[], float | None]:
        def measure() -> float | None:
            peaks = [
                peak_bytes(MEMORY_SCRIPT.format(inputs=inputs, width=w, outputs=outputs, samples=size.samples) + job)
                for w in (width, inputs + outputs + 1)
            ]
            return None if peaks[0] is None or peaks[1] is None else (peaks[0] - peaks[1]) / weights

        return measure

    about = "resident peak of a process over that of one with a narrow layer"
    return [
        Figure(
            name="peak memory, network and spectrum",
            measure=over_weights(OURS),
            unit="x the weights",
            bound=3,
            note=about,
        ),
        Figure(name="peak memory, network alone", measure=over_weights("pass"), unit="x the weights", note=about),
        Figure(name="peak memory, np.linalg.qr", measure=over_weights(WITH_NUMPY), unit="x the weights", note=about),
    ]


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
