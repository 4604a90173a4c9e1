"""Many networks of one shape, each with its own weights and learning rate, on the same data: time of a step of one.

The peers take a step of all networks at once. Each is there in two orders: layer by layer, and by the product of the
weights, with the hidden units along the last axis where that is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import hesskern as hk
from bench import floors, jax_loops, loops, numba_loops
from bench.contest import Contestant, Rung, Target, TimedProblem
from bench.loops import Loop, Trained
from bench.outcomes import ProblemResult
from bench.peers import with_compile, with_jax, with_numba, with_torch
from bench.problems import Array, Size, flat, gradient_multiply_adds

NAME = "ensemble"
SUMMARY = "A step of one of many small networks trained together, on one thread."
BEST = ", best association"
TORCH, NUMPY, VMAP, JAX = "torch bmm in place", "NumPy batched", "torch.func.vmap(grad)", "jax vmap"
BOUNDS = {TORCH: 10, NUMPY: 10, VMAP: 20, JAX: 14}
TOLERANCE = 1e-9  # of what the steps changed
CASE, COUNT = Size(5, (5, 100, 5)), 256
#: Size and number of networks; more of them, and wider ones.
COUNTS = ((CASE, 16), (CASE, 64), (CASE, COUNT), (CASE, 1024))
WIDTHS = ((Size(5, (5, 10, 5)), 16), (CASE, 16), (Size(5, (5, 1000, 5)), 16))


class Nets(NamedTuple):
    """Data (N, i) and (N, o), weights (B, h, i) and (B, o, h), a rate for each network."""

    X: Array
    Y: Array
    first: Array
    second: Array
    rates: Array

    @property
    def column(self) -> Array:
        """The rates as factors of stacked matrices."""
        return self.rates[:, None, None]


def draw(size: Size, count: int) -> Nets:
    """Return networks of different weights and rates."""
    X, Y, _ = size.draw()
    inputs, width, outputs = size.widths
    rng = np.random.default_rng(11)
    first = rng.standard_normal((count, width, inputs)) / np.sqrt(inputs)
    second = rng.standard_normal((count, outputs, width)) / np.sqrt(width)
    rate = min(loops.stable_rate(X, pair) for pair in zip(first, second, strict=True))
    return Nets(X, Y, first, second, rate * np.linspace(0.25, 1.0, count))


def numpy_product(nets: Nets, steps: int, stops: Sequence[int] = ()) -> dict[int, Array]:
    """Train by the product; return the weights after each of `stops` steps, or after the last, flat."""
    (X, Y, *_), rates = nets, nets.column
    first, second = nets.first.transpose(0, 2, 1).copy(), nets.second.copy()
    P, first_gradient, second_gradient = np.empty((*second.shape[:2], X.shape[1])), first.copy(), second.copy()
    losses, found = np.empty((steps, len(first))), {}
    for step in range(1, steps + 1):
        np.matmul(second, first.transpose(0, 2, 1), out=P)
        E = P @ X.T - Y.T
        losses[step - 1] = 0.5 * np.einsum("bon,bon->b", E, E)
        G = E @ X
        G *= rates
        np.matmul(G.transpose(0, 2, 1), second, out=first_gradient)
        np.matmul(G, first, out=second_gradient)
        first -= first_gradient
        second -= second_gradient
        if step in stops or (not stops and step == steps):
            found[step] = flat([first.transpose(0, 2, 1), second])
    return found


def numpy_layers(nets: Nets, steps: int) -> Loop:
    """Return the loop layer by layer; the data are shared, so the first layers are one matrix product."""
    (X, Y, *_), rates, (count, width, inputs) = nets, nets.column, nets.first.shape

    def run() -> Trained:
        first, second = nets.first.reshape(-1, inputs).copy(), nets.second.copy()
        losses = np.empty((steps, count))
        for step in range(steps):
            hidden = (first @ X.T).reshape(count, width, len(X))
            E = second @ hidden - Y.T
            losses[step] = 0.5 * np.einsum("bon,bon->b", E, E)
            E *= rates
            delta = second.transpose(0, 2, 1) @ E
            second -= E @ hidden.transpose(0, 2, 1)
            first -= delta.reshape(-1, len(X)) @ X
        return Trained(steps, flat([first, second]))

    return run


def torch_layers(torch: Any, nets: Nets, steps: int) -> Loop:
    """Return the loop layer by layer in place."""
    X, Y, rates = torch.tensor(nets.X), torch.tensor(nets.Y.T.copy()), torch.tensor(nets.column)
    start, (count, width, inputs) = (torch.tensor(nets.first), torch.tensor(nets.second)), nets.first.shape

    def run() -> Trained:
        with torch.inference_mode():
            first, second = start[0].reshape(-1, inputs).clone(), start[1].clone()
            losses = torch.empty(steps, count)
            for step in range(steps):
                hidden = (first @ X.T).view(count, width, len(X))
                E = torch.bmm(second, hidden).sub_(Y)
                losses[step] = torch.linalg.vector_norm(E, dim=(1, 2))
                E.mul_(rates)
                delta = torch.bmm(second.transpose(1, 2), E)
                second.baddbmm_(E, hidden.transpose(1, 2), alpha=-1)
                first.addmm_(delta.view(-1, len(X)), X, alpha=-1)
        return Trained(steps, loops.torch_flat(torch, (first, second)))

    return run


def torch_product(torch: Any, nets: Nets, steps: int) -> Loop:
    """Return the loop by the product in place."""
    X, Y, rates = torch.tensor(nets.X), torch.tensor(nets.Y.T.copy()), torch.tensor(nets.column)
    Xt, start = X.T.contiguous(), (torch.tensor(nets.first.transpose(0, 2, 1).copy()), torch.tensor(nets.second))
    (count, outputs, _), (samples, inputs) = nets.second.shape, nets.X.shape

    def run() -> Trained:
        with torch.inference_mode():
            first, second = start[0].clone(), start[1].clone()
            losses = torch.empty(steps, count)
            for step in range(steps):
                P = torch.bmm(second, first.transpose(1, 2))
                E = (P.view(-1, inputs) @ Xt).view(count, outputs, samples).sub_(Y)
                losses[step] = torch.linalg.vector_norm(E, dim=(1, 2))
                G = (E.view(-1, samples) @ X).view(count, outputs, inputs).mul_(rates)
                second_gradient = torch.bmm(G, first)
                first.baddbmm_(G.transpose(1, 2), second, alpha=-1)
                second.sub_(second_gradient)
        return Trained(steps, loops.torch_flat(torch, (first.transpose(1, 2), second)))

    return run


def torch_vmap(torch: Any, nets: Nets, steps: int, *, product: bool, device: str = "cpu") -> Loop:
    """Return the loop with the gradients of a loss of one network, vectorised over networks."""
    given = (nets.X, nets.Y, nets.column, nets.first, nets.second)
    x, y, rates, *start = (torch.tensor(array, device=device) for array in given)

    def loss(weights: Any, x: Any, y: Any) -> Any:
        out = x @ (weights[1] @ weights[0]).T if product else x @ weights[0].T @ weights[1].T
        return 0.5 * (out - y).square().sum()

    gradients_and_losses = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(0, None, None))

    def run() -> Trained:
        with torch.no_grad():
            weights = tuple(weight.clone() for weight in start)
            losses = torch.empty(steps, len(rates), device=device)
            for step in range(steps):
                gradients, losses[step] = gradients_and_losses(weights, x, y)
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.sub_(gradient.mul_(rates))
        return Trained(steps, loops.torch_flat(torch, weights))

    return run


def torch_compiled(torch: Any, nets: Nets, steps: int) -> Loop:
    """Return the loop of a compiled step of all networks, layer by layer, in place."""
    X, Y, rates = torch.tensor(nets.X), torch.tensor(nets.Y), torch.tensor(nets.column)
    start = torch.tensor(nets.first), torch.tensor(nets.second)

    def step(first: Any, second: Any) -> Any:
        hidden = X @ first.mT
        E = hidden @ second.mT - Y
        scaled = E * rates
        delta = scaled @ second
        second.sub_(scaled.mT @ hidden)
        first.sub_(delta.mT @ X)
        return 0.5 * E.square().sum((1, 2))

    compiled = torch.compile(step, dynamic=False)

    def run() -> Trained:
        first, second = (weight.clone() for weight in start)
        with torch.no_grad():
            losses = torch.empty(steps, len(rates), dtype=X.dtype)
            for k in range(steps):
                losses[k] = compiled(first, second)
        return Trained(steps, loops.torch_flat(torch, (first, second)))

    return run


def jax_vmap(jax: Any, nets: Nets, steps: int, *, product: bool) -> Loop:
    """Return the loop of the vectorised step, compiled beforehand."""
    one = jax.value_and_grad(jax_loops.loss_function(jax, product=product))
    value_and_grad = jax.vmap(one, in_axes=(0, None, None))

    @jax.jit  # type: ignore[untyped-decorator]
    def train(weights: Any, x: Any, y: Any, rates: Any) -> Any:
        def step(k: Any, carry: Any) -> Any:
            weights, losses = carry
            values, gradients = value_and_grad(weights, x, y)
            return jax_loops.updated(weights, gradients, rates), losses.at[k].set(values)

        return jax.lax.fori_loop(0, steps, step, (weights, jax.numpy.zeros((steps, len(rates)))))

    X, Y, first, second, rates = map(jax.numpy.asarray, (*nets[:4], nets.column))

    def run() -> Trained:
        weights, _ = train([first, second], X, Y, rates)
        return Trained(steps, flat([np.asarray(weight) for weight in weights]))

    run()
    return run


def numba_loop(numba: Any, nets: Nets, steps: int) -> Loop:
    """Return plain loops, network after network, so that one stays in the cache."""
    step = numba_loops.compiled_step(numba, product=True)

    @numba.njit  # type: ignore[untyped-decorator]
    def loop(X: Array, Y: Array, first: Array, second: Array, rates: Array, losses: Array, work: Any) -> None:
        for b in range(len(first)):
            for k in range(losses.shape[1]):
                losses[b, k] = step(X, Y, first[b], second[b], rates[b], work)

    work = numba_loops.workspace((nets.first[0], nets.second[0]), product=True)
    losses = np.empty((len(nets.first), steps))

    def run() -> Trained:
        first, second = nets.first.transpose(0, 2, 1).copy(), nets.second.copy()
        loop(nets.X, nets.Y, first, second, nets.rates, losses, work)
        return Trained(steps, flat([first.transpose(0, 2, 1), second]))

    run()
    return run


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    if quick:
        return [partial(_problem, Size(3, (3, 8, 2)), count, 6, 4) for count in (2, 4, 8)]
    return [partial(_problem, size, count, 1000, 200) for size, count in dict.fromkeys((*COUNTS, *WIDTHS))]


def _rungs(size: Size, count: int) -> list[Rung]:
    found = [] if (size, count) in WIDTHS and size != CASE else [Rung(size.label, "B", count)]
    if (size, count) in WIDTHS:
        found.append(Rung(f"{count} networks 5-h-5, N = 5", "h", size.widths[1]))
    return found


def _problem(size: Size, count: int, steps: int, few: int) -> TimedProblem:
    nets = draw(size, count)
    loss = hk.SquaredLoss(nets.X, nets.Y)
    networks = [hk.LinearNetwork(pair) for pair in zip(nets.first, nets.second, strict=True)]
    first_steps = f"the first {few} of {steps} steps"

    def fit(reduce: str, threads: int = 1) -> Loop:
        def train() -> Trained:
            runs = hk.fit_ensemble(networks, loss, lr=nets.rates, max_steps=steps, reduce=reduce, threads=threads)
            return Trained(int(runs.steps.max()), flat(runs.weights))

        return train

    def peer(
        within: Callable[..., Contestant], name: str, make: Callable[[Any, Nets, int], Loop], note: str
    ) -> Contestant:
        return within(name, lambda library: make(library, nets, few), note=f"{note}, {first_steps}", units=few * count)

    def vmap(library: Callable[..., Loop], product: bool) -> Callable[[Any, Nets, int], Loop]:
        return lambda module, nets, steps: library(module, nets, steps, product=product)

    def own(name: str, run: Loop, note: str) -> Contestant:
        return Contestant(name=name, run=run, note=note, units=steps * count)

    contestants = [
        Contestant(
            name="hesskern",
            run=fit("auto"),
            role="ours",
            note="fit_ensemble, width reduction and lifting included",
            units=steps * count,
        ),
        own("hesskern, reduce=none", fit("none"), "all hidden units"),
        own("hesskern, 2 threads", fit("auto", 2), "threads=2"),
        peer(with_torch, TORCH, torch_layers, "gradients by hand, inference mode"),
        peer(with_torch, TORCH + BEST, torch_product, "gradients by hand, inference mode"),
        Contestant(name=NUMPY, run=numpy_layers(nets, few), note=f"stacked matmul, {first_steps}", units=few * count),
        Contestant(
            name=NUMPY + BEST,
            run=lambda: Trained(few, numpy_product(nets, few)[few]),
            note=f"stacked matmul into arrays that are there, {first_steps}",
            units=few * count,
        ),
        peer(with_torch, VMAP, vmap(torch_vmap, False), "grad_and_value"),
        peer(with_torch, VMAP + BEST, vmap(torch_vmap, True), "grad_and_value"),
        peer(with_compile, "torch.compile", torch_compiled, "a step of all networks in one compiled graph, in place"),
        peer(with_jax, JAX, vmap(jax_vmap, False), "vmap of value_and_grad, jit of fori_loop"),
        peer(with_jax, JAX + BEST, vmap(jax_vmap, True), "vmap of value_and_grad, jit of fori_loop"),
        peer(with_numba, "Numba loops", numba_loop, "network after network, by the product of the weights"),
        *floors.products(gradient_multiply_adds(size.reduced)),
    ]
    return TimedProblem(
        label=f"{count} networks, {size.label}, {steps} steps",
        contestants=contestants,
        error=loops.error_of_change([nets.first, nets.second], lambda: numpy_product(nets, steps, [few, steps])),
        tolerance=TOLERANCE,
        targets=[
            Target(contestant="hesskern", kind="faster", bound=bound, than=than)
            for name, bound in BOUNDS.items()
            for than in (name, name + BEST)
        ]
        if (size, count) == (CASE, COUNT)
        else [],
        rungs=_rungs(size, count),
        memory=(size, count) == (CASE, COUNT),
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
