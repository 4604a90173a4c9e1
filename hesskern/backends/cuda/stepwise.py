"""Training by matrix products of PyTorch, several launches a step: for networks that do not fit into shared memory.

All networks take each step together, and nothing waits for the device: a stopped network keeps its parameters.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import torch
from torch import Tensor

from hesskern._base.flat_layout import FlatLayout
from hesskern.backends.cuda.graphs import Recorded
from hesskern.backends.cuda.layers import gradient, residual, split
from hesskern.backends.cuda.precision import full_precision
from hesskern.backends.cuda.state import (
    CONVERGED,
    DIVERGED,
    RUNNING,
    DescentProblem,
    DescentStates,
    Piece,
    RecordedColumns,
    RecordedValues,
)

#: Steps from which recording a CUDA graph of one costs less than launching them all.
_GRAPH_FROM = 30


class Stepwise:
    """Some steps of all networks.

    Parameters
    ----------
    problem : DescentProblem
    watched : RecordedColumns
    layout : FlatLayout
    states : DescentStates
        Changed in place.
    piece : Piece
    columns : RecordedValues
        The records; filled in.
    """

    def __init__(
        self,
        problem: DescentProblem,
        watched: RecordedColumns,
        layout: FlatLayout,
        states: DescentStates,
        piece: Piece,
        columns: RecordedValues,
    ) -> None:
        self._problem, self._watched, self._layout = problem, watched, layout
        self._states, self._piece, self._columns = states, piece, columns
        device = states.parameters.device
        self._step = torch.zeros(1, dtype=torch.int64, device=device)  # of this piece
        self._record = torch.zeros(1, dtype=torch.int64, device=device)
        if piece.ends is not None:
            sizes = torch.diff(piece.ends, prepend=piece.ends.new_zeros(1))
            places = torch.arange(int(sizes.max()), device=device)
            inside = places < sizes[:, None]
            starts = piece.ends - sizes
            self._places = torch.where(inside, starts[:, None] + places, starts[:, None])  # (steps, largest batch)
            self._inside = inside.to(states.parameters.dtype)

    def run(self) -> None:
        """Take all steps."""
        with full_precision():
            kinds = [self._kind(number) for number in range(self._piece.first, self._piece.first + self._piece.steps)]
            often = Counter(kinds)
            graphs: dict[tuple[bool, bool], Recorded] = {}
            for place, kind in enumerate(kinds):
                if kind in graphs:
                    graphs[kind].replay()
                elif self._states.parameters.is_cuda and often[kind] >= _GRAPH_FROM and kind in kinds[:place]:
                    graphs[kind] = Recorded(partial(self._one, *kind), self._states.parameters.device)
                    graphs[kind].replay()
                else:  # the first time too: what a library sets up on first use cannot be recorded
                    self._one(*kind)

    def _kind(self, number: int) -> tuple[bool, bool]:
        """Return the kind of a step: recorded or not, the very first or not."""
        return number % self._watched.every == 0, number == 0

    def _one(self, recorded: bool, first: bool) -> None:
        """Take one step; in place, so that it can be recorded and replayed."""
        problem, states, columns = self._problem, self._states, self._columns
        k, decay = self._step, problem.update.decay
        whole = problem.samples is None
        layers = split(self._layout, states.parameters)
        decayed: Tensor | float = 0.0
        if decay:
            decayed = 0.5 * decay * states.parameters.double().square().sum(1)
        all_data = problem.data.x, problem.ones, problem.data.y
        data = all_data
        used = loss = torch.zeros_like(states.target)
        scale: Tensor | float = problem.scale
        kept: tuple[list[Tensor], Tensor] | None = None
        if whole or problem.rtol >= 0 or (recorded and self._watched.loss):
            kept = residual(layers, *data)
            used = loss = 0.5 * problem.scale * _squares(kept[1]) + decayed + problem.constants
        if not whole:
            assert self._piece.scales is not None
            scale = self._piece.scales.index_select(0, k)
            data = self._batch(k)
            batch = residual(layers, *data)
            used = 0.5 * scale * _squares(batch[1]) + decayed
        norm: Tensor | None = None
        if recorded and columns.gradient_norms is not None:
            full = kept or residual(layers, *all_data)
            plain = gradient(layers, *full, problem.ones, problem.scale)
            norm = (plain + decay * states.parameters).double().norm(dim=1)
        at = batch if not whole else kept
        assert at is not None
        slope = gradient(layers, *at, data[1], scale)
        if recorded:
            for target, value in ((columns.losses, loss), (columns.batch_losses, used), (columns.gradient_norms, norm)):
                if target is not None and value is not None:
                    target.index_copy_(1, self._record, value[:, None])
            self._record += 1
        self._update(slope, loss, used, k, first=first)
        k += 1

    def _update(self, slope: Tensor, loss: Tensor, used: Tensor, k: Tensor, *, first: bool) -> None:
        states, update, rtol = self._states, self._problem.update, self._problem.rtol
        runs = states.status == RUNNING
        lost = runs & ~used.isfinite()
        goes = runs & ~lost
        states.parameters.copy_(torch.where(lost[:, None], states.previous, states.parameters))
        piece_rates = self._piece.rates
        rates = (piece_rates if piece_rates.shape[1] == 1 else piece_rates.index_select(1, k)).to(slope.dtype)
        step = slope + update.decay * states.parameters
        if update.momentum:
            moved = update.momentum * states.velocity + step
            states.velocity.copy_(torch.where(goes[:, None], moved, states.velocity))
            step = step + update.momentum * moved if update.nesterov else moved
        after = states.parameters - rates * step
        states.previous.copy_(torch.where(goes[:, None], states.parameters, states.previous))
        states.parameters.copy_(torch.where(goes[:, None], after, states.parameters))
        states.steps.add_(goes.long() - (lost & (states.steps > 0)).long())
        states.seen.copy_(torch.where(goes, self._piece.first + k + 1, states.seen))
        if first and rtol >= 0:
            states.target.copy_(rtol * loss)
        # Sums, since a choice between numbers would copy these from main memory, which no graph can hold.
        states.status.add_(DIVERGED * lost.long())
        if rtol >= 0:
            states.status.add_(CONVERGED * (goes & (loss <= states.target)).long())

    def _batch(self, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the samples of a step, with rows of zeros after the samples of a shorter batch."""
        samples, piece = self._problem.samples, self._piece
        assert samples is not None and piece.order is not None
        inside = self._inside.index_select(0, k)[0]
        chosen = piece.order[:, self._places.index_select(0, k)[0]]  # (networks or 1, batch)
        x, y = (
            torch.take_along_dim(part.expand(len(chosen), -1, -1), chosen[:, :, None], 1) if len(chosen) > 1
            else part[:, chosen[0]]
            for part in samples
        )  # fmt: skip
        return x * inside[:, None], inside.expand(len(x), -1), y * inside[:, None]


def _squares(values: Tensor) -> Tensor:
    return values.double().square().sum((1, 2))
