"""The parts of a training run on the device: the problem, the steps of a piece, and the state of all networks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hesskern.backends.protocol import Update

#: What `DescentStates.status` holds, as in the kernel.
RUNNING, CONVERGED, DIVERGED = range(3)


class Samples(NamedTuple):
    """Rows of inputs and targets, (networks or 1, rows, ...)."""

    x: Tensor
    y: Tensor


class DescentProblem(NamedTuple):
    """The loss to train on: ``scale/2 ‖E‖² + decay/2 ‖θ‖² + constant``."""

    data: Samples
    ones: Tensor  # what biases multiply, (networks or 1, rows)
    constants: Tensor  # (networks,) float64
    samples: Samples | None  # what minibatches are taken from; None: steps use `data`
    most: int  # samples in the largest minibatch, or 0
    scale: float
    rtol: float  # < 0: never converged
    update: Update


class RecordedColumns(NamedTuple):
    """The quantities recorded in the loop, at the steps divisible by `every`."""

    every: int
    loss: bool
    batch_loss: bool
    gradient_norm: bool


class Piece(NamedTuple):
    """Some steps: the first, their number, and their inputs, on the device."""

    first: int
    steps: int
    rates: Tensor  # (networks or 1, steps or 1) float64
    order: Tensor | None  # (networks or 1, samples of all steps) int64
    ends: Tensor | None  # (steps,) int64
    scales: Tensor | None  # (steps,) float64, of a batch's loss


class RecordedValues(NamedTuple):
    """The records, (networks, records) float64; None for quantities that are not recorded."""

    losses: Tensor | None
    batch_losses: Tensor | None
    gradient_norms: Tensor | None


class DescentStates(NamedTuple):
    """The state of all networks, one row for each; steps change these tensors in place.

    The first five are fields of `hesskern.backends.protocol.State`, under the same names.
    """

    steps: Tensor  # (networks,) int64
    target: Tensor  # (networks,) float64
    parameters: Tensor  # (networks, P)
    previous: Tensor  # (networks, P)
    velocity: Tensor  # (networks, P), (networks, 0) without momentum
    status: Tensor  # (networks,) int64: RUNNING, CONVERGED or DIVERGED
    seen: Tensor  # (networks,) int64, steps whose loss was finite

    @classmethod
    def at(cls, parameters: Tensor, *, momentum: bool) -> DescentStates:
        """Return the states before the first step from these parameters, which are copied."""
        status, steps, seen = parameters.new_zeros((3, len(parameters)), dtype=torch.int64).unbind()
        return cls(
            steps=steps,
            target=parameters.new_full((len(parameters),), -torch.inf, dtype=torch.float64),
            parameters=parameters.clone(),
            previous=parameters.clone(),
            velocity=torch.zeros_like(parameters) if momentum else parameters.new_zeros((len(parameters), 0)),
            status=status,
            seen=seen,
        )

    def step_back(self, diverged: Tensor) -> None:
        """Return these networks, (networks,) bool, to the parameters before their last update; they have diverged."""
        self.parameters.copy_(torch.where(diverged[:, None], self.previous, self.parameters))
        self.steps.sub_((diverged & (self.steps > 0)).long())
        self.status.masked_fill_(diverged, DIVERGED)
