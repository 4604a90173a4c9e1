"""One dense diagonal block of the Hessian, output factor ⊗ input factor, written into an array that is there.

The block of the last layer has the identity as its output factor (most entries are zero), the block of a layer below
has none that vanish. Factors are computed beforehand for all contestants alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench.autograd import Autograd
from bench.contest import Contestant, Rung, Target, TimedProblem
from bench.floors import stores
from bench.ladders import by_width, rungs, union
from bench.libraries import Model
from bench.outcomes import ProblemResult
from bench.peers import with_jax, with_library, with_torch
from bench.problems import TOLERANCE, Array, Size, relative_error
from bench.threads import with_threads

NAME = "assemble_block"
SUMMARY = "Write the dense (P, P) Hessian of one layer: `H.toarray(out=)` against products of its factors and autograd."
SLICES = "np.zeros + slices"
#: The order of the last block is P = 10 h.
LADDERS = (by_width(10, 10, 10, (25, 50, 100, 200, 400)),)
SIZES = (
    (Size(5, (5, 100, 5)), 1),
    *((size, 1) for size in union(LADDERS)),
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


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [partial(_problem, size, layer) for size, layer in (QUICK_SIZES if quick else SIZES)]


def _problem(size: Size, layer: int) -> TimedProblem:
    X, Y, weights = size.draw()
    output, inner = factors(X, weights, layer)
    order = len(output) * len(inner)
    H = hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork(weights), params=[layer])
    out = np.empty((order, order), X.dtype)
    spread = out.reshape(len(output), len(inner), len(output), len(inner))

    def broadcast() -> Array:
        np.multiply(output[:, None, :, None], inner[None, :, None, :], out=spread)
        return out

    def kron(torch: Any) -> Callable[[], object]:
        left, right = torch.tensor(output), torch.tensor(inner)
        return lambda: torch.kron(left, right)

    def in_place(torch: Any) -> Callable[[], object]:
        left, right = torch.tensor(output)[:, None, :, None], torch.tensor(inner)[None, :, None, :]
        matrix = torch.from_numpy(out)
        tensor = matrix.view(spread.shape)
        return lambda: (torch.mul(left, right, out=tensor), matrix)[1]

    def block_diagonal(torch: Any) -> Callable[[], object]:
        blocks = [torch.tensor(inner)] * len(output)
        return lambda: torch.block_diag(*blocks)

    def compiled_kron(jax: Any) -> Callable[[], object]:
        left, right, product = jax.numpy.asarray(output), jax.numpy.asarray(inner), jax.jit(jax.numpy.kron)
        return lambda: product(left, right).block_until_ready()

    def by_autograd(torch: Any) -> Callable[[], object]:
        setting = Autograd(torch, X, Y, weights)

        def loss_of(weight: Any) -> Any:
            return setting.loss(*setting.weights[:layer], weight, *setting.weights[layer + 1 :])

        return lambda: torch.func.hessian(loss_of)(setting.weights[layer])

    reference = np.kron(output, inner)
    contestants = [
        Contestant(name="hesskern", run=lambda: H.toarray(out=out), role="ours", note="toarray(out=), array warm"),
        with_threads(2, "hesskern", lambda: H.toarray(out=out), note="two threads from 16 MiB on"),
        Contestant(name=SLICES, run=zeros_and_slices(output, inner), note="a new array each time; skips zero blocks"),
        Contestant(name="np.multiply(out=)", run=broadcast, note="broadcast product into the same warm array"),
        Contestant(name="np.kron", run=lambda: np.kron(output, inner), note="a new array each time"),
        with_torch("torch.kron", kron, note="a new tensor each time"),
        with_torch("torch.mul(out=)", in_place, note="broadcast product into the same warm array"),
        *([with_torch("torch.block_diag", block_diagonal, note="a new tensor each time")] if layer == 1 else []),
        with_jax("jax jit(kron)", compiled_kron, note="a new array each time"),
        with_torch("torch.func.hessian", by_autograd, note="of one layer, from the network: no formula needed"),
        with_library(
            "curvlinops",
            "curvlinops",
            lambda library: Model(X, Y, weights).curvlinops_dense(library, [layer]),
            note="HessianLinearOperator of one layer times the identity, from the network",
        ),
        with_library(
            "backpack",
            "BackPACK",
            lambda library: Model(X, Y, weights).backpack_block(library, layer),
            note="SqrtGGNExact in one backward pass, V.T @ V, from the network",
        ),
        *stores(out),
    ]
    targets = []
    if layer == 1 and order == 4000 and size.dtype == "float64":
        targets.append(Target(contestant="hesskern", kind="at_most", bound=1.3, than=SLICES))
    short = "" if size.dtype == "float64" else f", {size.dtype}"
    return TimedProblem(
        label=f"P = {order}, layer {layer} of {'-'.join(map(str, size.widths))}{short}",
        contestants=contestants,
        error=lambda result: relative_error(_square(result, order), reference),
        tolerance=TOLERANCE[size.dtype],
        targets=targets,
        spoil=lambda: out.fill(np.nan),
        rungs=[Rung(f"{rung.ladder}, layer 1", "P", order) for rung in rungs(size, LADDERS)] if layer == 1 else (),
        memory=size in (LADDERS[0].sizes[-1], QUICK_SIZES[0][0]),
    )


def _square(result: Any, order: int) -> Array:
    """Return a block as a matrix, which torch.func shapes like the weight twice."""
    return np.asarray(result).reshape(order, order)


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return [
        "np.zeros hands out pages that the system zeroes when they are first touched; the slices of a last-layer block "
        "touch only the pages on the diagonal, so the untouched rest is never paid for in that column."
    ]
