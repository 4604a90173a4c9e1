"""One dense diagonal block of the Hessian, output factor ⊗ input factor, written into an array that is there.

The block of the last layer has the identity as its output factor (most entries are zero), the block of a layer below
has none that vanish. Factors are computed beforehand for all contestants alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

import hesskern as hk
from bench.peers import with_torch
from bench.problems import TOLERANCE, Array, Size, error_against
from bench.runner import ProblemResult
from bench.task import Contestant, Problem, Target
from bench.threads import with_threads

NAME = "assemble_block"
SUMMARY = "Write the dense (P, P) Hessian of one layer: `H.toarray(out=)` against NumPy's and torch's ways."
SLICES = "np.zeros + slices"
SIZES = (
    (Size(5, (5, 100, 5)), 1),
    (Size(10, (10, 100, 10)), 1),
    (Size(20, (20, 200, 20)), 1),
    (Size(20, (20, 200, 20)), 0),
    (Size(20, (20, 200, 20), "float32"), 1),
)
QUICK_SIZES = ((Size(3, (4, 6, 2)), 1), (Size(3, (4, 6, 2), "float32"), 0))


def factors(X: Array, weights: Sequence[Array], layer: int) -> tuple[Array, Array]:
    """Return ``B.T B`` and ``A X.T X A.T`` of a two-layer network."""
    if layer == 0:
        return weights[1].T @ weights[1], X.T @ X
    hidden = X @ weights[0].T
    return np.eye(len(weights[1]), dtype=X.dtype), hidden.T @ hidden


def zeros_and_slices(output: Array, inner: Array) -> Callable[[], Array]:
    """Return the usual NumPy way: a new zeroed array, then one slice for each block that is not zero."""
    outputs, inputs = len(output), len(inner)
    nonzero = [(r, p) for r in range(outputs) for p in range(outputs) if output[r, p] != 0]

    def assemble() -> Array:
        out = np.zeros((outputs * inputs, outputs * inputs), inner.dtype)
        for r, p in nonzero:
            block = out[r * inputs : (r + 1) * inputs, p * inputs : (p + 1) * inputs]
            np.multiply(output[r, p], inner, out=block)
        return out

    return assemble


def problems(quick: bool) -> Iterator[Problem]:
    for size, layer in QUICK_SIZES if quick else SIZES:
        yield _problem(size, layer)


def _problem(size: Size, layer: int) -> Problem:
    X, Y, weights = size.draw()
    output, inner = factors(X, weights, layer)
    order = len(output) * len(inner)
    H = hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork(weights), params=[layer])
    out = np.empty((order, order), X.dtype)
    spread = out.reshape(len(output), len(inner), len(output), len(inner))

    def broadcast() -> Array:
        np.multiply(output[:, None, :, None], inner[None, :, None, :], out=spread)
        return out

    def kron(torch: object) -> Callable[[], object]:
        left, right = torch.tensor(output), torch.tensor(inner)  # type: ignore[attr-defined]
        return lambda: torch.kron(left, right)  # type: ignore[attr-defined]

    contestants = [
        Contestant(name="hesskern", run=lambda: H.toarray(out=out), role="ours", note="toarray(out=), array warm"),
        with_threads(2, "hesskern", lambda: H.toarray(out=out), note="two threads from 16 MiB on"),
        Contestant(name=SLICES, run=zeros_and_slices(output, inner), note="a new array each time; skips zero blocks"),
        Contestant(name="np.multiply(out=)", run=broadcast, note="broadcast product into the same warm array"),
        Contestant(name="np.kron", run=lambda: np.kron(output, inner), note="a new array each time"),
        with_torch("torch.kron", kron, note="a new tensor each time"),
        Contestant(name="floor: fill", run=lambda: out.fill(0), role="floor", note="the same warm array, written once"),
    ]
    targets = []
    if layer == 1 and order == 4000 and size.dtype == "float64":
        targets.append(Target(contestant="hesskern", kind="at_most", bound=1.3, than=SLICES))
    short = "" if size.dtype == "float64" else f", {size.dtype}"
    return Problem(
        label=f"P = {order}, layer {layer} of {'-'.join(map(str, size.widths))}{short}",
        contestants=contestants,
        error=error_against(np.kron(output, inner)),
        tolerance=TOLERANCE[size.dtype],
        targets=targets,
        spoil=lambda: out.fill(np.nan),
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return [
        "np.zeros hands out pages that the system zeroes when they are first touched; the slices of a last-layer block "
        "touch only the pages on the diagonal, so the untouched rest is never paid for in that column."
    ]
