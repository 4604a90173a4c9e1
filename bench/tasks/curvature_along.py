"""Training the case with the sharpness, the largest eigenvalue of the full Hessian, recorded before every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

import hesskern as hk
from bench import floors, jax_loops
from bench.autograd import Autograd, flat_vectors
from bench.closed_form import ClosedForm, product_multiply_adds
from bench.contest import Contestant, Rung, Target, TimedProblem
from bench.ladders import TINY, by_width, rungs, union
from bench.libraries import Model
from bench.loops import stable_rate, trajectory
from bench.outcomes import ProblemResult
from bench.peers import with_jax, with_library, with_torch
from bench.problems import Array, Size, flat, loss_and_gradients, relative_error

NAME = "curvature_along"
CASE = "the case"
LADDERS = (by_width(5, 5, 5, (25, 100, 400)),)
SUMMARY = "A step of training with the largest eigenvalue of the full Hessian recorded before it."
WITHOUT = "hesskern, without"
#: Asked of each recorded eigenvalue, relative.
TOLERANCE = 1e-10

Product = Callable[[Array], Array]


class WatchedRun(NamedTuple):
    """Weights after the steps, flat, and the eigenvalue before each, or None where it was not recorded."""

    steps: int
    weights: Array
    sharpness: Any


def largest(product: Product, near: Array, tolerance: float) -> tuple[float, Array]:
    """Return the largest eigenvalue by ARPACK's Lanczos, started from the eigenvector of the step before."""
    operator = LinearOperator((len(near), len(near)), matvec=product, dtype=np.float64)
    values, vectors = eigsh(operator, k=1, which="LA", v0=near, tol=tolerance)
    return float(values[0]), vectors[:, 0]


def watch(
    X: Array,
    Y: Array,
    start: Sequence[Array],
    rate: float,
    steps: int,
    tolerance: float,
    product_at: Callable[[Sequence[Array]], Product],
) -> WatchedRun:
    """Train in NumPy with products from elsewhere."""
    weights, found = list(start), np.empty(steps)
    vector: Array = np.random.default_rng(0).standard_normal(sum(weight.size for weight in start))
    for step in range(steps):
        found[step], vector = largest(product_at(weights), vector, tolerance)
        _, gradients = loss_and_gradients(X, Y, weights)
        weights = [weight - rate * gradient for weight, gradient in zip(weights, gradients, strict=True)]
    return WatchedRun(steps, flat(weights), found)


def closed_form(X: Array, Y: Array, weights: Sequence[Array]) -> Product:
    """Return products by the definition in NumPy."""
    return ClosedForm(X, Y, weights).product


def torch_products(torch: Any, X: Array, Y: Array) -> Callable[[Sequence[Array]], Product]:
    """Return products by a second backward pass through the graph of the gradient."""

    def at(weights: Sequence[Array]) -> Product:
        here = Autograd(torch, X, Y, weights)
        leaves, gradients = here.graph()

        def product(v: Array) -> Array:
            found = torch.autograd.grad(gradients, leaves, here.directions(v), retain_graph=True)
            return flat_vectors(found, v.shape)

        return product

    return at


def library_products(X: Array, Y: Array, start: Sequence[Array], make: Callable[[Model], Any]) -> Any:
    """Return products by an operator of a library on top of torch, whose network gets the weights of each step."""
    model = Model(X, Y, start)
    operator = make(model)

    def at(weights: Sequence[Array]) -> Product:
        model.set_weights(weights)
        return lambda v: np.asarray(operator(model.torch.from_numpy(np.ascontiguousarray(v))))

    return at


def jax_products(jax: Any, X: Array, Y: Array, start: Sequence[Array]) -> Callable[[Sequence[Array]], Product]:
    """Return products by forward over reverse mode, compiled beforehand."""
    gradient = jax.grad(jax_loops.loss_function(jax, product=False))
    x, y = jax.numpy.asarray(X), jax.numpy.asarray(Y)

    @jax.jit  # type: ignore[untyped-decorator]
    def compiled(weights: Any, v: Any) -> Any:
        pieces, at = [], 0
        for weight in weights:
            pieces.append(v[at : at + weight.size].reshape(weight.shape))
            at += weight.size
        _, found = jax.jvp(lambda weights: gradient(weights, x, y), (weights,), (pieces,))
        return jax.numpy.concatenate([part.ravel() for part in found])

    def at(weights: Sequence[Array]) -> Product:
        here = [jax.numpy.asarray(weight) for weight in weights]
        return lambda v: np.asarray(compiled(here, v))

    at(start)(np.zeros(sum(weight.size for weight in start)))
    return at


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    return [partial(_case, quick), *(partial(_random, size, quick) for size in union(TINY if quick else LADDERS))]


def _case(quick: bool) -> TimedProblem:
    case = hk.datasets.two_layer_case()
    steps = 6 if quick else int(case.expected["epochs"])
    return _problem(CASE, case.X, case.Y, case.network.weights, case.lr, steps, 3 if quick else 20)


def _random(size: Size, quick: bool) -> TimedProblem:
    X, Y, start = size.draw()
    on = rungs(size, (*LADDERS, *TINY))
    steps, few = (6, 3) if quick else (200, 10)
    return _problem(size.label, X, Y, start, stable_rate(X, start), steps, few, on)


def _problem(
    label: str, X: Array, Y: Array, start: Sequence[Array], rate: float, steps: int, few: int, on: Sequence[Rung] = ()
) -> TimedProblem:
    network, widths = hk.LinearNetwork(start), (X.shape[1], len(start[0]), len(start[1]))
    after = cache(lambda: trajectory(X, Y, start, rate, [few, steps]))
    exact = cache(lambda: watch(X, Y, start, rate, steps, 0.0, partial(closed_form, X, Y)).sharpness)

    def error(result: Any) -> float:
        found = relative_error(np.asarray(result.weights), after()[result.steps])
        if result.sharpness is None:
            return found
        return max(found, relative_error(result.sharpness / exact()[: result.steps], np.ones(result.steps)))

    def fit(record: tuple[str, ...], reduce: str = "auto") -> Callable[[], WatchedRun]:
        def train() -> WatchedRun:
            loss = hk.SquaredLoss(X, Y)
            run = hk.fit(network, loss, lr=rate, max_steps=steps, record=record, reduce=reduce)
            sharpness = run.history["sharpness"] if "sharpness" in record else None
            return WatchedRun(run.steps, run.network.flatten(), sharpness)

        return train

    def lanczos(product_at: Callable[[Sequence[Array]], Product]) -> Callable[[], WatchedRun]:
        return lambda: watch(X, Y, start, rate, few, TOLERANCE, product_at)

    both, first = ("loss", "sharpness"), f"the first {few} of {steps} steps"
    eigsh_of = "scipy's eigsh from the last eigenvector, of products "
    contestants = [
        Contestant(name="hesskern", run=fit(both), role="ours", note="fit, everything included", units=steps),
        Contestant(name=WITHOUT, run=fit(("loss",)), note="the same run with the loss alone recorded", units=steps),
        Contestant(name="hesskern, reduce=none", run=fit(both, "none"), note="all hidden units", units=steps),
        Contestant(
            name="NumPy, eigsh",
            run=lanczos(partial(closed_form, X, Y)),
            note=f"{eigsh_of}in closed form, {first}",
            units=few,
        ),
        with_torch(
            "torch, eigsh",
            lambda torch: lanczos(torch_products(torch, X, Y)),
            note=f"{eigsh_of}by double backward, {first}",
            units=few,
        ),
        with_jax(
            "jax, eigsh",
            lambda jax: lanczos(jax_products(jax, X, Y, start)),
            note=f"{eigsh_of}by jvp of grad, compiled, {first}",
            units=few,
        ),
        with_library(
            "curvlinops",
            "curvlinops, eigsh",
            lambda library: lanczos(library_products(X, Y, start, lambda model: model.curvlinops(library).__matmul__)),
            note=f"{eigsh_of}by HessianLinearOperator, {first}",
            units=few,
        ),
        with_library(
            "hessian_eigenthings",
            "hessian-eigenthings, eigsh",
            lambda library: lanczos(library_products(X, Y, start, lambda model: model.eigenthings(library).matvec)),
            note=f"{eigsh_of}by HessianOperator (its own Lanczos method runs a fixed number of steps), {first}",
            units=few,
        ),
        *floors.products(product_multiply_adds(Size(len(X), widths).reduced)),
    ]
    return TimedProblem(
        label=f"{label}, {steps} steps",
        contestants=contestants,
        error=error,
        tolerance=TOLERANCE,
        targets=[Target(contestant="hesskern", kind="at_most", bound=30, than=WITHOUT)] if label == CASE else [],
        rungs=on,
        memory=label == CASE,
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return ["The floor is one product with a vector on the reduced network: less than any eigenvalue takes."]
