"""The case that this package started with, computed again: ``hesskern demo``.

A researcher trained a 5-100-5 linear network and got two condition numbers for the Hessian with respect to W_2: 174
from PyTorch autograd, 5345 from a formula. `run` trains the network, computes the Hessian in every way of that
question and says which of them agree. No number is stored here: each number and each time comes from that run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hesskern import backends, datasets
from hesskern._base import decompositions
from hesskern._base.array_types import Array
from hesskern._base.optional_torch import TorchUnavailableError, load_torch
from hesskern._core import isa
from hesskern.demo import posted
from hesskern.demo.results import AutogradResult, Demo, DenseCondition
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.training.fit import Run, fit

#: Each time is the shortest of this many runs: other work of the machine only makes a run longer.
REPEATS = 3

_MOST_STEPS = 10_000

T = TypeVar("T")


def run(backend: str | None = None, *, repeats: int = REPEATS, say: Callable[[str], None] = lambda doing: None) -> Demo:
    """Compute the case from its data.

    Parameters
    ----------
    backend : str, optional
        The backend of hesskern; default: see `hesskern.use_backend`.
    repeats : int, >= 1
        How often each timed step runs.
    say : callable
        Called with a few words before each step that may take a while.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, also during training.
    """
    case = datasets.two_layer_case()
    loss = SquaredLoss(case.X, case.Y, backend=backend)
    say("training by hesskern")
    trained, train_seconds = _timed(lambda: _train(case, loss), repeats)
    condition, cond_seconds = _timed(lambda: loss.hessian(trained.network, params=[1]).condition(), repeats)
    hessian, hessian_seconds = _timed(lambda: loss.hessian(trained.network, params=[1]).toarray(), repeats)
    spectrum = loss.hessian(trained.network, params=[1]).spectrum()
    nonzero = spectrum.values > 0  # structural zeros are exact

    say("taking condition numbers of dense 500 x 500 matrices")
    W1 = trained.network.weights[0]
    as_posted = _dense(_formula(W1.dot(case.X), case.Y.shape[1]), repeats)
    fixed = _dense(_formula(W1.dot(case.X.T), case.Y.shape[1]), repeats)

    autograd, missing = None, ""
    try:
        say("loading PyTorch, which takes seconds")
        torch = load_torch()
    except TorchUnavailableError as error:
        missing = str(error)
    else:
        say("running the code of the post in PyTorch")
        autograd = _autograd(torch, case, loss, repeats)

    return Demo(
        backend=loss.backend or backends.resolve(),
        isa=isa,
        repeats=repeats,
        status=trained.status,
        steps=trained.steps,
        losses=trained.history["loss"],
        lr=case.lr,
        stable_lr=2.0 / loss.hessian(case.network).spectrum().max,
        condition=condition,
        values=spectrum.values[nonzero][::-1],
        multiplicities=spectrum.multiplicities[nonzero][::-1],
        numpy_cond=decompositions.condition_number(hessian),
        as_posted=as_posted,
        fixed=fixed,
        autograd=autograd,
        autograd_missing=missing,
        expected=case.expected,
        train_seconds=train_seconds,
        hessian_seconds=hessian_seconds,
        cond_seconds=cond_seconds,
    )


def _train(case: datasets.Case, loss: SquaredLoss) -> Run:
    trained = fit(case.network, loss, lr=case.lr, max_steps=_MOST_STEPS, rtol=case.rtol)
    if trained.status == "interrupted":  # `fit` returns the training so far; the demo needs all of it
        raise KeyboardInterrupt
    return trained


def _autograd(torch: Any, case: datasets.Case, loss: SquaredLoss, repeats: int) -> AutogradResult:
    script = posted.run(torch, case, repeats)
    hessian = loss.hessian(LinearNetwork([script.W1, script.W2]), params=[1]).toarray()
    return AutogradResult(
        version=script.version,
        threads=script.threads,
        epochs=script.epochs,
        train_seconds=script.train_seconds,
        hessian_seconds=script.hessian_seconds,
        dense=_dense(script.hessian, repeats),
        difference=float(np.abs(script.hessian - hessian).max() / np.abs(hessian).max()),
    )


def _formula(factor: Array, outputs: int) -> Array:
    """Return ``(factor factor.T) ⊗ I``, the last lines of the post."""
    return np.kron(factor.dot(factor.T), np.eye(outputs))


def _dense(matrix: Array, repeats: int) -> DenseCondition:
    def compute() -> tuple[NDArray[np.float64], int]:
        values = decompositions.svdvals(matrix.astype(np.float64, copy=False))
        return values, int(np.sum(values > values[0] * len(matrix) * np.finfo(values.dtype).eps))

    (values, rank), seconds = _timed(compute, repeats)
    return DenseCondition(float(values[0] / values[rank - 1]), rank, values, seconds)


def _timed(compute: Callable[[], T], repeats: int) -> tuple[T, float]:
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        result = compute()
        best = min(best, time.perf_counter() - began)
    return result, best
