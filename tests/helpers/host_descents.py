"""Networks that are trained on the GPU's path with tensors in main memory, beside the plain loop."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

from hesskern._base.flat_layout import FlatLayout
from hesskern.backends.protocol import Update

pytest.importorskip("torch")
import torch

from hesskern.backends.cuda.descents import Descents
from hesskern.backends.cuda.state import DescentProblem, Piece, RecordedColumns, Samples

NETS, LR, STEPS = 3, 0.02, 8
PROBLEM = problems.normal([3, 5, 2], 9, bias=True, weight_decay=0.1)


def starts() -> np.ndarray:
    """Parameters of some networks around the problem's, (networks, P)."""
    theta = oracle.flatten(PROBLEM.weights, PROBLEM.biases)
    return theta + 0.2 * np.random.default_rng(0).standard_normal((NETS, len(theta)))


def descents(launch, limits, *, momentum=0.0, nesterov=False, rtol=-1.0) -> Descents:
    """All networks on the same samples, each loss and gradient norm watched."""
    X, Y = (torch.tensor(part)[None] for part in (PROBLEM.X, PROBLEM.Y))
    problem = DescentProblem(
        Samples(X, Y), X.new_ones(1, X.shape[1]), X.new_zeros(NETS), None, 0, 1.0, rtol,
        Update(momentum, nesterov, PROBLEM.weight_decay),
    )  # fmt: skip
    layout = FlatLayout.of(PROBLEM.weights, PROBLEM.biases)
    return Descents(launch, limits, layout, torch.tensor(starts()), problem, RecordedColumns(1, True, False, True))


def piece(first: int, steps: int, rate: float = LR) -> Piece:
    """Some steps of one rate."""
    return Piece(first, steps, torch.full((1, 1), rate, dtype=torch.float64), None, None, None)


def plain(theta: np.ndarray, steps: int = STEPS, **method: object) -> oracle.Trajectory:
    """The plain loop from this start."""
    weights, biases = oracle.split(theta, PROBLEM)
    there = problems.Problem(weights, biases, PROBLEM.X, PROBLEM.Y, weight_decay=PROBLEM.weight_decay)
    return oracle.train(there, LR, steps, **method)
