"""Gradient descent of many networks of one shape on the device: their state, and the steps.

Steps are taken by a kernel that keeps each network in shared memory (`shared_memory_kernel`), or, where one does not
fit, by matrix products (`stepwise`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hesskern._base.flat_layout import FlatLayout
from hesskern.backends.cuda import layers
from hesskern.backends.cuda.assembly import Launch
from hesskern.backends.cuda.layers import TensorLayers
from hesskern.backends.cuda.shared_memory_kernel import Limits, network_bytes, packed, plan
from hesskern.backends.cuda.stepwise import Stepwise
from hesskern.backends.protocol import Update

#: Of networks, in `Descents.status`.
STATUS = ("running", "converged", "diverged")


class Samples(NamedTuple):
    """Rows of inputs and targets, (networks or 1, rows, ...)."""

    x: Tensor
    y: Tensor


class Problem(NamedTuple):
    """What is trained on: ``scale/2 ‖E‖² + decay/2 ‖θ‖² + constant``."""

    data: Samples
    ones: Tensor  # what biases multiply, (networks or 1, rows)
    constants: Tensor  # (networks,) float64
    samples: Samples | None  # what minibatches are taken from; None: steps use `data`
    most: int  # samples in the largest minibatch, or 0
    scale: float
    rtol: float  # < 0: never converged
    update: Update


class Watched(NamedTuple):
    """What is recorded in the loop, at the steps divisible by `every`."""

    every: int
    loss: bool
    batch_loss: bool
    norm: bool


class Piece(NamedTuple):
    """Some steps: the first, how many, and what they need, on the device."""

    first: int
    steps: int
    rates: Tensor  # (networks or 1, steps or 1) float64
    order: Tensor | None  # (networks or 1, samples of all steps) int64
    ends: Tensor | None  # (steps,) int64
    scales: Tensor | None  # (steps,) float64, of a batch's loss


class Seen(NamedTuple):
    """What was recorded, (networks, records) float64."""

    losses: Tensor | None
    batch_losses: Tensor | None
    norms: Tensor | None


class Descents:
    """The state of all networks; every tensor has one row for each.

    Parameters
    ----------
    launch : callable
    limits : callable
        What a device has; see `hesskern.backends.cuda.launch.limits`.
    layout : FlatLayout
    parameters : (networks, P) tensor
        Where to start; not changed.
    problem : Problem
    watched : Watched
    """

    def __init__(
        self,
        launch: Launch,
        limits: Callable[[torch.device], Limits],
        layout: FlatLayout,
        parameters: Tensor,
        problem: Problem,
        watched: Watched,
    ) -> None:
        self._launch, self.layout, self._watched = launch, layout, watched
        self.x, self.y = problem.data
        self.ones, self.constants, self.samples = problem.ones, problem.constants, problem.samples
        self.scale, self.rtol, self.update, self._most = problem.scale, problem.rtol, problem.update, problem.most
        self.every, self.loss_wanted = watched.every, watched.loss
        count = len(parameters)
        self.parameters = parameters.clone()
        self.previous = parameters.clone()
        self.velocity = torch.zeros_like(parameters) if problem.update.momentum else None
        self.status, self.steps, self.seen = parameters.new_zeros((3, count), dtype=torch.int64).unbind()
        self.targets = parameters.new_full((count,), -torch.inf, dtype=torch.float64)
        rows, itemsize = self.x.shape[1], parameters.element_size()
        self.needed = network_bytes(
            layout.widths, rows, problem.most, velocity=self.velocity is not None, itemsize=itemsize
        )
        self.limits = limits(parameters.device)
        self.plan = plan(count, layout.widths, max(rows, problem.most), self.needed, itemsize, self.limits)
        device = parameters.device
        self._widths = torch.tensor(layout.widths, dtype=torch.int32, device=device)
        self._has_bias = torch.tensor(layout.biases, dtype=torch.int32, device=device)

    def layers(self) -> TensorLayers:
        """Return the present weights and biases as views."""
        return layers.split(self.layout, self.parameters)

    def advance(self, piece: Piece) -> Seen:
        """Take some steps with every network that runs; what one that has stopped would have recorded is NaN."""
        records = (piece.first + piece.steps - 1) // self.every - (piece.first - 1) // self.every
        watched = self._watched
        shape = len(self.parameters), records
        seen = Seen(*(
            self.targets.new_full(shape, torch.nan) if wanted and records else None
            for wanted in (watched.loss, watched.batch_loss, watched.norm)
        ))  # fmt: skip
        if self.plan is None:
            Stepwise(self, piece, seen).run()
        else:
            fields = packed(self._fields(piece, seen, records), self.parameters)
            self._launch(self.plan.kernel, self.plan.blocks, self.plan.threads, fields, shared=self.plan.shared)
        return seen

    def _fields(self, piece: Piece, seen: Seen, records: int) -> Mapping[str, Tensor | float | int | None]:
        samples, order = self.samples, piece.order
        return {
            "networks": len(self.parameters), "depth": len(self._has_bias), "count_parameters": self.layout.size,
            "widths": self._widths, "has_bias": self._has_bias,
            "parameters": self.parameters, "previous": self.previous, "velocity": self.velocity,
            "rows": self.x.shape[1], "own_rows": len(self.x) > 1, "x": self.x, "ones": self.ones, "y": self.y,
            "constants": self.constants,
            "samples": 0 if samples is None else samples.x.shape[1],
            "own_samples": samples is not None and len(samples.x) > 1, "most": self._most,
            "sample_x": None if samples is None else samples.x, "sample_y": None if samples is None else samples.y,
            "order": order, "ends": piece.ends, "order_step": 0 if order is None or len(order) == 1 else order.shape[1],
            "scales": piece.scales, "rates": piece.rates,
            "rate_network": piece.rates.shape[1] if len(piece.rates) > 1 else 0,
            "rate_step": int(piece.rates.shape[1] > 1),
            "scale": float(self.scale), "rtol": float(self.rtol), "decay": float(self.update.decay),
            "momentum": float(self.update.momentum), "nesterov": self.update.nesterov,
            "first": piece.first, "count": piece.steps, "every": self.every, "loss_wanted": self.loss_wanted,
            "losses": seen.losses, "batch_losses": seen.batch_losses, "norms": seen.norms, "records": records,
            "targets": self.targets, "status": self.status, "steps": self.steps, "seen": self.seen,
            "bytes": self.needed,
        }  # fmt: skip

    @property
    def execution(self) -> str:
        """How steps are taken, in words."""
        if self.plan is None:
            return (
                f"several launches a step: the training of one network takes {self.needed} bytes of shared memory, and "
                f"a block has {self.limits.block_bytes}"
            )
        threads = self.plan.threads * self.needed // self.plan.shared
        return f"many steps in one launch, {threads} threads for each network"

    def step_back(self, which: Tensor) -> None:
        """Return these networks, (networks,) bool, to the parameters before their last update; they have diverged."""
        self.parameters = torch.where(which[:, None], self.previous, self.parameters)
        self.steps = self.steps - (which & (self.steps > 0)).long()
        self.status = torch.where(which, STATUS.index("diverged"), self.status)

    def save(self) -> dict[str, Tensor]:
        """Return where the networks stand, by the names of `hesskern.backends.protocol.State`."""
        velocity = self.parameters[:, :0] if self.velocity is None else self.velocity
        return {
            "steps": self.steps,
            "target": self.targets,
            "parameters": self.parameters,
            "previous": self.previous,
            "velocity": velocity,
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `save` returned, with "status" and "seen" beside it."""
        for name, tensor in (self.save() | {"status": self.status, "seen": self.seen}).items():
            tensor.copy_(state[name])
