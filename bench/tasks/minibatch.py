"""An epoch of minibatch gradient descent: the samples in the order of ``default_rng([seed, epoch]).permutation(N)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import hesskern as hk
from bench import floors, jax_loops, loops, numba_loops
from bench.contest import Contestant, Rung, Target, TimedProblem
from bench.loops import Loop, Trained
from bench.outcomes import ProblemResult
from bench.peers import with_compile, with_jax, with_numba, with_torch
from bench.problems import (
    Array,
    Size,
    flat,
    gradient_multiply_adds,
    product_loss_and_gradients,
)

NAME = "minibatch"
SUMMARY = "A step of minibatch gradient descent: time of an epoch over its steps, the permutation included."
EAGER = "torch"
JAX = ("jax", "jax, best association")
NUMBA = ("Numba loops", "Numba loops, best association")
SEED = 3
MANY, FEWER = Size(100_000, (20, 200, 20)), Size(20_000, (20, 200, 20))
BATCHES = (8, 32, 128, 512)
TOLERANCE = 1e-9  # of what the steps changed


class Epoch(NamedTuple):
    """What every loop is given."""

    X: Array
    Y: Array
    start: Sequence[Array]
    rate: float
    batch: int

    @property
    def steps(self) -> int:
        return len(self.X) // self.batch

    def order(self) -> Any:
        """Return the order of the samples in the first epoch."""
        return np.random.default_rng([SEED, 0]).permutation(len(self.X))


def reference(epoch: Epoch) -> Array:
    """Return the weights after the epoch, flat."""
    weights = list(epoch.start)
    for rows in epoch.order().reshape(epoch.steps, epoch.batch):
        _, gradients = product_loss_and_gradients(epoch.X[rows], epoch.Y[rows], weights)
        weights = [weight - epoch.rate * gradient for weight, gradient in zip(weights, gradients, strict=True)]
    return flat(weights)


def torch_eager(torch: Any, epoch: Epoch) -> Loop:
    """Return the usual loop, the batches taken out of the tensors by index."""
    x, y, *initial = (torch.tensor(array) for array in (epoch.X, epoch.Y, *epoch.start))
    net = loops.torch_module(torch, epoch.start)

    def run() -> Trained:
        loops.set_weights(torch, net, initial)
        optimizer = torch.optim.SGD(net.parameters(), lr=epoch.rate)
        losses = torch.empty(epoch.steps)
        for step, rows in enumerate(torch.from_numpy(epoch.order()).split(epoch.batch)):
            optimizer.zero_grad()
            loss = 0.5 * torch.nn.functional.mse_loss(net(x[rows]), y[rows], reduction="sum")
            loss.backward()
            optimizer.step()
            losses[step] = loss.detach()
        return Trained(epoch.steps, loops.torch_flat(torch, net.parameters()))

    return run


def torch_in_place(torch: Any, epoch: Epoch) -> Loop:
    """Return the loop by hand without a graph, by the product of the weights."""
    x, y, *initial = (torch.tensor(array) for array in (epoch.X, epoch.Y, *epoch.start))

    def run() -> Trained:
        first, second = (weight.clone() for weight in initial)
        with torch.inference_mode():
            losses, gradient = torch.empty(epoch.steps), torch.empty_like(second)
            P = torch.empty(y.shape[1], x.shape[1], dtype=x.dtype)
            G, E = torch.empty_like(P), torch.empty_like(y[: epoch.batch])
            for step, rows in enumerate(torch.from_numpy(epoch.order()).split(epoch.batch)):
                xs = x.index_select(0, rows)
                torch.mm(second, first, out=P)
                torch.addmm(y.index_select(0, rows), xs, P.T, beta=-1, out=E)
                losses[step] = torch.linalg.vector_norm(E)
                torch.mm(E.T, xs, out=G)
                torch.mm(G, first.T, out=gradient)
                first.addmm_(second.T, G, alpha=-epoch.rate)
                second.add_(gradient, alpha=-epoch.rate)
        return Trained(epoch.steps, loops.torch_flat(torch, (first, second)))

    return run


def torch_compiled(torch: Any, epoch: Epoch) -> Loop:
    """Return the loop of a compiled step: the batch taken out by index, gradients by hand and the update, in place."""
    x, y, *initial = (torch.tensor(array) for array in (epoch.X, epoch.Y, *epoch.start))

    def step(rows: Any, weights: list[Any]) -> Any:
        value, gradients = loops.torch_gradients(torch, x[rows], y[rows], weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.sub_(gradient, alpha=epoch.rate)
        return value

    compiled = torch.compile(step, dynamic=False)

    def run() -> Trained:
        weights = [weight.clone() for weight in initial]
        with torch.no_grad():
            losses = torch.empty(epoch.steps)
            for k, rows in enumerate(torch.from_numpy(epoch.order()).split(epoch.batch)):
                losses[k] = compiled(rows, weights)
        return Trained(epoch.steps, loops.torch_flat(torch, weights))

    return run


def jax_scan(jax: Any, epoch: Epoch, *, product: bool) -> Loop:
    """Return a scan over the batches, gathered in the loop, compiled beforehand."""
    value_and_grad = jax.value_and_grad(jax_loops.loss_function(jax, product=product))

    @jax.jit  # type: ignore[untyped-decorator]
    def train(weights: Any, x: Any, y: Any, rate: Any, batches: Any) -> Any:
        def step(weights: Any, rows: Any) -> Any:
            value, gradients = value_and_grad(weights, x[rows], y[rows])
            return jax_loops.updated(weights, gradients, rate), value

        return jax.lax.scan(step, weights, batches)

    arguments = ([jax.numpy.asarray(weight) for weight in epoch.start], *map(jax.numpy.asarray, (epoch.X, epoch.Y)))

    def run() -> Trained:
        batches = epoch.order().reshape(epoch.steps, epoch.batch)
        weights, losses = train(*arguments, epoch.rate, batches)
        losses.block_until_ready()
        return Trained(epoch.steps, flat([np.asarray(weight) for weight in weights]))

    run()
    return run


def numba_loop(numba: Any, epoch: Epoch, *, product: bool) -> Loop:
    """Return plain loops over the batches, gathered into arrays that stay in the cache, compiled beforehand."""
    step = numba_loops.compiled_step(numba, product=product)

    @numba.njit  # type: ignore[untyped-decorator]
    def loop(
        X: Array, Y: Array, first: Array, second: Array, rate: float, order: Any, xs: Array, ys: Array, work: Any
    ) -> Array:
        batch = len(xs)
        losses = np.empty(len(order) // batch)
        for k in range(len(losses)):
            for n in range(batch):
                xs[n] = X[order[k * batch + n]]
                ys[n] = Y[order[k * batch + n]]
            losses[k] = step(xs, ys, first, second, rate, work)
        return losses

    xs, ys = np.empty_like(epoch.X[: epoch.batch]), np.empty_like(epoch.Y[: epoch.batch])
    work = numba_loops.workspace(epoch.start, product=product)

    def run() -> Trained:
        first, second = epoch.start[0].T.copy(), epoch.start[1].copy()
        loop(epoch.X, epoch.Y, first, second, epoch.rate, epoch.order(), xs, ys, work)
        return Trained(epoch.steps, flat([first.T, second]))

    run()
    return run


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    if quick:
        return [partial(_problem, Size(96, (4, 12, 2)), batch) for batch in (4, 8, 16)]
    return [partial(_problem, MANY, 32), *(partial(_problem, FEWER, batch) for batch in BATCHES)]


def _problem(size: Size, batch: int) -> TimedProblem:
    X, Y, weights = size.draw()
    whole = len(X) // batch * batch
    epoch = Epoch(X[:whole], Y[:whole], weights, loops.stable_rate(X[:batch], weights) / 4, batch)
    X, Y = epoch.X, epoch.Y
    net, loss, steps = hk.LinearNetwork(weights), hk.SquaredLoss(X, Y), epoch.steps

    def fit(reduce: str) -> Loop:
        def train() -> Trained:
            run = hk.fit(
                net,
                loss,
                lr=epoch.rate,
                max_steps=steps,
                batch_size=batch,
                seed=SEED,
                record=("batch_loss",),
                reduce=reduce,
            )
            return Trained(run.steps, run.network.flatten())

        return train

    def scan(product: bool) -> Callable[[Any], Loop]:
        return lambda jax: jax_scan(jax, epoch, product=product)

    def plain(product: bool) -> Callable[[Any], Loop]:
        return lambda numba: numba_loop(numba, epoch, product=product)

    contestants = [
        Contestant(
            name="hesskern", run=fit("auto"), role="ours", note="fit with width reduction and lifting", units=steps
        ),
        Contestant(name="hesskern, reduce=none", run=fit("none"), note="all hidden units", units=steps),
        with_torch(
            EAGER,
            lambda torch: torch_eager(torch, epoch),
            note="nn.Linear, autograd, optim.SGD, batches by tensor indexing",
            units=steps,
        ),
        with_torch(
            "torch in place, best association",
            lambda torch: torch_in_place(torch, epoch),
            note="xs (W_2 W_1).T, gradients by hand, inference mode, index_select",
            units=steps,
        ),
        with_compile(
            "torch.compile",
            lambda torch: torch_compiled(torch, epoch),
            note="indexing, gradients by hand and the update in one compiled graph, in place",
            units=steps,
        ),
        with_jax(JAX[0], scan(False), note="layer by layer, value_and_grad, jit of scan over the batches", units=steps),
        with_jax(JAX[1], scan(True), note="the loss written as xs (W_2 W_1).T", units=steps),
        with_numba(NUMBA[0], plain(False), note="layer by layer, every sum written out", units=steps),
        with_numba(NUMBA[1], plain(True), note="by the product of the weights", units=steps),
        *floors.products(gradient_multiply_adds(replace(size.reduced, samples=batch))),
    ]
    return TimedProblem(
        label=f"{size.label}, batch {batch}",
        contestants=contestants,
        error=loops.error_of_change(weights, lambda: {steps: reference(epoch)}),
        tolerance=TOLERANCE,
        targets=[
            Target(contestant="hesskern", kind="seconds", bound=5e-6),
            Target(contestant="hesskern", kind="faster", bound=40, than=EAGER),
            *(Target(contestant="hesskern", kind="faster", bound=8, than=than) for than in (*JAX, *NUMBA)),
        ]
        if size == MANY
        else [],
        rungs=[] if size == MANY else [Rung(size.label, "batch", batch)],
        memory=size == FEWER and batch == 32,
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
