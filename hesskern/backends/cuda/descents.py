"""Gradient descent of many networks of one shape on the device.

Steps are taken by a kernel that keeps each network in shared memory (`shared_memory_kernel`), or, where one does not
fit, by matrix products (`stepwise`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hesskern._base.flat_layout import FlatLayout
from hesskern.backends.cuda import layers
from hesskern.backends.cuda.assembly import Launch
from hesskern.backends.cuda.layers import TensorLayers
from hesskern.backends.cuda.shared_memory_kernel import Limits, network_bytes, packed, plan
from hesskern.backends.cuda.state import DescentProblem, DescentStates, Piece, RecordedColumns, RecordedValues
from hesskern.backends.cuda.stepwise import Stepwise


class Descents:
    """Descents of all networks, and their `states`.

    Parameters
    ----------
    launch : callable
    limits : callable
        The limits of a device; see `hesskern.backends.cuda.launch.limits`.
    layout : FlatLayout
    parameters : (networks, P) tensor
        Where to start; not changed.
    problem : DescentProblem
    watched : RecordedColumns
    """

    def __init__(
        self,
        launch: Launch,
        limits: Callable[[torch.device], Limits],
        layout: FlatLayout,
        parameters: Tensor,
        problem: DescentProblem,
        watched: RecordedColumns,
    ) -> None:
        self._launch, self.layout, self.problem, self._watched = launch, layout, problem, watched
        self.states = DescentStates.at(parameters, momentum=problem.update.momentum != 0)
        rows, itemsize = problem.data.x.shape[1], parameters.element_size()
        self.needed = network_bytes(
            layout.widths, rows, problem.most, velocity=problem.update.momentum != 0, itemsize=itemsize
        )
        self.limits = limits(parameters.device)
        self.plan = plan(len(parameters), layout.widths, max(rows, problem.most), self.needed, itemsize, self.limits)
        device = parameters.device
        self._widths = torch.tensor(layout.widths, dtype=torch.int32, device=device)
        self._has_bias = torch.tensor(layout.biases, dtype=torch.int32, device=device)

    def layers(self) -> TensorLayers:
        """Return the present weights and biases as views."""
        return layers.split(self.layout, self.states.parameters)

    def advance(self, piece: Piece) -> RecordedValues:
        """Take some steps with every network that runs; the records of a network that has stopped are NaN."""
        watched, states = self._watched, self.states
        records = (piece.first + piece.steps - 1) // watched.every - (piece.first - 1) // watched.every
        shape = len(states.parameters), records
        columns = RecordedValues(*(
            states.target.new_full(shape, torch.nan) if recorded and records else None
            for recorded in (watched.loss, watched.batch_loss, watched.gradient_norm)
        ))  # fmt: skip
        if self.plan is None:
            Stepwise(self.problem, watched, self.layout, states, piece, columns).run()
        else:
            fields = packed(self._fields(piece, columns, records), states.parameters)
            self._launch(self.plan.kernel, self.plan.blocks, self.plan.threads, fields, shared=self.plan.shared)
        return columns

    def _fields(self, piece: Piece, columns: RecordedValues, records: int) -> Mapping[str, Tensor | float | int | None]:
        problem, states, order = self.problem, self.states, piece.order
        data, samples, update = problem.data, problem.samples, problem.update
        return {
            "networks": len(states.parameters), "depth": len(self._has_bias), "count_parameters": self.layout.size,
            "widths": self._widths, "has_bias": self._has_bias,
            "parameters": states.parameters, "previous": states.previous,
            "velocity": states.velocity if update.momentum else None,
            "rows": data.x.shape[1], "own_rows": len(data.x) > 1, "x": data.x, "ones": problem.ones, "y": data.y,
            "constants": problem.constants,
            "samples": 0 if samples is None else samples.x.shape[1],
            "own_samples": samples is not None and len(samples.x) > 1, "most": problem.most,
            "sample_x": None if samples is None else samples.x, "sample_y": None if samples is None else samples.y,
            "order": order, "ends": piece.ends, "order_step": 0 if order is None or len(order) == 1 else order.shape[1],
            "scales": piece.scales, "rates": piece.rates,
            "rate_network": piece.rates.shape[1] if len(piece.rates) > 1 else 0,
            "rate_step": int(piece.rates.shape[1] > 1),
            "scale": problem.scale, "rtol": problem.rtol, "decay": update.decay, "momentum": update.momentum,
            "nesterov": update.nesterov,
            "first": piece.first, "count": piece.steps, "every": self._watched.every,
            "loss_wanted": self._watched.loss,
            "losses": columns.losses, "batch_losses": columns.batch_losses,
            "norms": columns.gradient_norms, "records": records,
            "targets": states.target, "status": states.status, "steps": states.steps, "seen": states.seen,
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
