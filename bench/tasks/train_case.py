"""Training the case to 1e-20 of its first loss: from the arrays to the trained weights.

The thousand rows are an orthonormal basis times the case's five: the same Gram matrices, so the same trajectory,
from data that a loop has to read in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import hesskern as hk
from bench import floors, jax_loops, numba_loops
from bench.contest import Contestant, Target, TimedProblem
from bench.loops import Loop, Trained, set_weights, torch_flat, torch_module
from bench.outcomes import ProblemResult
from bench.peers import with_jax, with_numba, with_torch
from bench.problems import Array, Size, flat, gradient_multiply_adds, loss_and_gradients, relative_error

NAME = "train_case"
SUMMARY = "Train the 5-100-5 case by gradient descent until the loss is 1e-20 of the first (608 epochs)."
POST, EAGER = "torch, loop of the post", "torch, no DataLoader"
NONE = "hesskern, reduce=none"
#: The loss climbs to 9.5 times its start before it falls (a catapult): rounding of different orders of summation grows
#: with it, and 608 steps of it are compared.
TOLERANCE = 1e-8
MOST = 10_000


def numpy_loop(X: Array, Y: Array, weights: Sequence[Array], rate: float, rtol: float) -> tuple[int, list[Array]]:
    """Train by the definition: the reference."""
    current = [weight.copy() for weight in weights]
    first, epochs = 0.0, 0
    while True:
        loss, gradients = loss_and_gradients(X, Y, current)
        for weight, gradient in zip(current, gradients, strict=True):
            np.subtract(weight, rate * gradient, out=weight)
        epochs += 1
        first = first or loss
        if loss <= rtol * first:
            return epochs, current


def torch_loop(
    torch: Any, X: Array, Y: Array, weights: Sequence[Array], rate: float, rtol: float, *, loader: bool
) -> Loop:
    """Return the post's loop; without `loader` the full batch is used as it is."""
    dataset = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    batches = torch.utils.data.DataLoader(dataset, batch_size=len(X), shuffle=False) if loader else [dataset.tensors]
    net, initial = torch_module(torch, weights), [torch.tensor(weight) for weight in weights]

    def train() -> Trained:
        set_weights(torch, net, initial)
        optimizer = torch.optim.SGD(net.parameters(), lr=rate)
        epoch, first, loss = 0, 0.0, torch.zeros(())
        while epoch == 0 or loss.detach().item() > rtol * first:
            for xs, ys in batches:
                optimizer.zero_grad()
                loss = torch.norm(net(xs) - ys, p="fro") ** 2 / 2
                loss.backward()
                optimizer.step()
            if epoch == 0:
                first = loss.item()
            epoch += 1
        return Trained(epoch, torch_flat(torch, net.parameters()))

    return train


def problems(quick: bool) -> Sequence[Callable[[], TimedProblem]]:
    case = hk.datasets.two_layer_case()
    # A quick run stops early: the check is the same, the post's loop is not waited for.
    rtol = 0.5 if quick else case.rtol
    basis = np.linalg.qr(np.random.default_rng(7).standard_normal((1000, 5)))[0]
    return [
        partial(_problem, "N = 5, as posted", case, case.X, case.Y, rtol),
        partial(_problem, "N = 5, as posted, a step of it", case, case.X, case.Y, rtol, a_step=True),
        partial(_problem, "N = 1000, the same trajectory", case, basis @ case.X, basis @ case.Y, rtol),
    ]


def _problem(
    label: str, case: hk.datasets.Case, X: Array, Y: Array, rtol: float, *, a_step: bool = False
) -> TimedProblem:
    weights = case.network.weights
    epochs, trained = numpy_loop(X, Y, weights, case.lr, rtol)
    exact = flat(trained)
    units = epochs if a_step else 1

    def error(result: Any) -> float:
        found = relative_error(np.asarray(result.weights), exact)
        return found if result.steps == epochs else float("inf")

    def fit(reduce: str) -> Loop:
        def train() -> Trained:
            loss = hk.SquaredLoss(X, Y)
            run = hk.fit(case.network, loss, lr=case.lr, max_steps=MOST, rtol=rtol, reduce=reduce)
            return Trained(run.steps, run.network.flatten())

        return train

    def by_definition() -> Trained:
        steps, found = numpy_loop(X, Y, weights, case.lr, rtol)
        return Trained(steps, flat(found))

    def until(torch: Any, *, loader: bool) -> Loop:
        return torch_loop(torch, X, Y, weights, case.lr, rtol, loader=loader)

    contestants = [
        Contestant(
            name="hesskern", run=fit("auto"), role="ours", note='SquaredLoss and fit; reduce="auto"', units=units
        ),
        Contestant(name=NONE, run=fit("none"), note="the 100 hidden units and all samples", units=units),
        with_numba(
            "Numba loops",
            lambda numba: numba_loops.train(numba, X, Y, weights, case.lr, MOST, rtol),
            note="every sum written out, by the product of the weights",
            units=units,
        ),
        with_jax(
            "jax",
            lambda jax: (
                jax_loops.train(jax, X, Y, weights, case.lr, epochs)
                if a_step
                else jax_loops.train_until(jax, X, Y, weights, case.lr, rtol)
            ),
            note=f"value_and_grad, jit of {'fori_loop, the same number of steps' if a_step else 'while_loop'}",
            units=units,
        ),
    ]
    targets = []
    if a_step:
        targets = [
            Target(contestant="hesskern", kind="seconds", bound=0.3e-6),
            Target(contestant=NONE, kind="seconds", bound=1.2e-6),
        ]
    else:
        contestants += [
            Contestant(name="NumPy loop", run=by_definition, note="closed-form gradients"),
            with_torch(EAGER, lambda torch: until(torch, loader=False), note="nn.Linear, autograd, optim.SGD"),
        ]
    if len(X) == 5 and not a_step:  # collating a thousand rows takes seconds a run and says nothing about training
        note = "nn.Linear, autograd, optim.SGD, DataLoader, as published"
        contestants.append(with_torch(POST, lambda torch: until(torch, loader=True), note=note))
        targets = [Target(contestant="hesskern", kind="faster", bound=400, than=EAGER)]
    adds = epochs * gradient_multiply_adds(Size(len(X), case.network.widths).reduced) / units
    return TimedProblem(
        label=label,
        contestants=[*contestants, *floors.products(adds)],
        error=error,
        tolerance=TOLERANCE,
        targets=targets,
        memory=len(X) == 5 and not a_step,
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return ["A step is the whole run, from the arrays to the lifted weights, over its 608 steps."]
