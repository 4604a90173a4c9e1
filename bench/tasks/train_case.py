"""Training the case to 1e-20 of its first loss: from the arrays to the trained weights.

Contestants return (epochs, weights). The thousand rows are an orthonormal basis times the case's five: the same
Gram matrices, hence the same trajectory, from data that a loop has to read in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import hesskern as hk
from bench import peak
from bench.peers import with_torch
from bench.problems import Array, Size, flat, gradient_multiply_adds, loss_and_gradients, relative_error
from bench.runner import ProblemResult
from bench.task import Contestant, Problem, Target

NAME = "train_case"
SUMMARY = "Train the 5-100-5 case by gradient descent until the loss is 1e-20 of the first (608 epochs)."
POST = "torch, loop of the post"
#: The loss climbs to 9.5 times its start before it falls (a catapult): rounding of different orders of summation grows
#: with it, and 608 steps of it are compared.
TOLERANCE = 1e-8

Trained = tuple[int, list[Array]]


def numpy_loop(X: Array, Y: Array, weights: Sequence[Array], lr: float, rtol: float) -> Trained:
    """Train by the definition."""
    current = [weight.copy() for weight in weights]
    first, epochs = 0.0, 0
    while True:
        loss, gradients = loss_and_gradients(X, Y, current)
        for weight, gradient in zip(current, gradients, strict=True):
            np.subtract(weight, lr * gradient, out=weight)
        epochs += 1
        first = first or loss
        if loss <= rtol * first:
            return epochs, current


def torch_module(torch: Any, weights: Sequence[Array]) -> Any:
    """Return the post's model: two `nn.Linear` without bias, with the given weights."""
    first, second = (torch.nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=torch.float64) for w in weights)
    with torch.no_grad():
        first.weight.copy_(torch.tensor(weights[0]))
        second.weight.copy_(torch.tensor(weights[1]))
    return torch.nn.Sequential(first, second)


def torch_loop(
    torch: Any, X: Array, Y: Array, weights: Sequence[Array], lr: float, rtol: float, *, loader: bool
) -> Callable[[], Trained]:
    """Return the post's loop; without `loader` the full batch is used as it is."""
    dataset = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    batches = torch.utils.data.DataLoader(dataset, batch_size=len(X), shuffle=False) if loader else [dataset.tensors]

    def train() -> Trained:
        net = torch_module(torch, weights)
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
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
        return epoch, [p.detach().numpy() for p in net.parameters()]

    return train


def problems(quick: bool) -> Iterator[Problem]:
    case = hk.datasets.two_layer_case()
    # A quick run stops early: the check is the same, the post's loop is not waited for.
    rtol = 0.5 if quick else case.rtol
    basis = np.linalg.qr(np.random.default_rng(7).standard_normal((1000, 5)))[0]
    yield _problem("N = 5, as posted", case, case.X, case.Y, rtol)
    yield _problem("N = 1000, the same trajectory", case, basis @ case.X, basis @ case.Y, rtol)


def _problem(label: str, case: hk.datasets.Case, X: Array, Y: Array, rtol: float) -> Problem:
    weights = case.network.weights
    epochs, trained = numpy_loop(X, Y, weights, case.lr, rtol)

    def error(result: Any) -> float:
        return relative_error(flat(result[1]), flat(trained)) if result[0] == epochs else float("inf")

    def fit(reduce: str) -> Callable[[], Trained]:
        def train() -> Trained:
            loss = hk.SquaredLoss(X, Y)
            run = hk.fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=rtol, reduce=reduce)
            return run.steps, list(run.network.weights)

        return train

    small = len(X) == 5
    contestants = [
        Contestant(name="hesskern", run=fit("auto"), role="ours", note='SquaredLoss and fit; reduce="auto"'),
        *([] if small else [Contestant(name="hesskern, reduce=none", run=fit("none"), note="reads all rows")]),
        Contestant(
            name="NumPy loop", run=lambda: numpy_loop(X, Y, weights, case.lr, rtol), note="closed-form gradients"
        ),
        with_torch(
            "torch, no DataLoader",
            lambda torch: torch_loop(torch, X, Y, weights, case.lr, rtol, loader=False),
            note="nn.Linear, autograd, optim.SGD on the two tensors",
        ),
    ]
    if small:  # collating a thousand rows one by one takes seconds a run and says nothing about training
        contestants.append(
            with_torch(
                POST,
                lambda torch: torch_loop(torch, X, Y, weights, case.lr, rtol, loader=True),
                note="nn.Linear, autograd, optim.SGD, DataLoader, as published",
            )
        )
    adds = epochs * gradient_multiply_adds(Size(5, case.network.widths))
    targets = [Target(contestant="hesskern", kind="faster", bound=100, than=POST)] if small else []
    return Problem(
        label=label, contestants=[*contestants, peak.floor(adds)], error=error, tolerance=TOLERANCE, targets=targets
    )


def notes(results: Sequence[ProblemResult]) -> list[str]:
    return []
