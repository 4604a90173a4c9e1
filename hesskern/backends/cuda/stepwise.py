"""Training by matrix products of PyTorch, several launches a step: for networks that do not fit into shared memory.

All networks take each step together, and nothing waits for the device: one that has stopped keeps its parameters.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hesskern.backends.cuda.graphs import Recorded
from hesskern.backends.cuda.layers import gradient, residual
from hesskern.backends.cuda.precision import full_precision

if TYPE_CHECKING:
    from hesskern.backends.cuda.descents import Descents, Piece, Seen

_RUNNING, _CONVERGED, _DIVERGED = range(3)
#: Steps from which recording a CUDA graph of one costs less than launching them all.
_GRAPH_FROM = 30


class Stepwise:
    """Some steps of all networks.

    Parameters
    ----------
    descents : Descents
        Whose tensors are changed in place.
    piece : Piece
    seen : Seen
        What is recorded; filled in.
    """

    def __init__(self, descents: Descents, piece: Piece, seen: Seen) -> None:
        self._all, self._piece, self._seen = descents, piece, seen
        device = descents.parameters.device
        self._step = torch.zeros(1, dtype=torch.int64, device=device)  # of this piece
        self._record = torch.zeros(1, dtype=torch.int64, device=device)
        if piece.ends is not None:
            sizes = torch.diff(piece.ends, prepend=piece.ends.new_zeros(1))
            places = torch.arange(int(sizes.max()), device=device)
            inside = places < sizes[:, None]
            starts = piece.ends - sizes
            self._places = torch.where(inside, starts[:, None] + places, starts[:, None])  # (steps, largest batch)
            self._inside = inside.to(descents.parameters.dtype)

    def run(self) -> None:
        """Take all steps."""
        with full_precision():
            kinds = [self._kind(number) for number in range(self._piece.first, self._piece.first + self._piece.steps)]
            often = Counter(kinds)
            graphs: dict[tuple[bool, bool], Recorded] = {}
            for place, kind in enumerate(kinds):
                if kind in graphs:
                    graphs[kind].replay()
                elif self._all.parameters.is_cuda and often[kind] >= _GRAPH_FROM and kind in kinds[:place]:
                    graphs[kind] = Recorded(partial(self._one, *kind), self._all.parameters.device)
                    graphs[kind].replay()
                else:  # the first time too: what a library sets up on first use cannot be recorded
                    self._one(*kind)

    def _kind(self, number: int) -> tuple[bool, bool]:
        """Return what tells steps from one another: recorded or not, the very first or not."""
        return number % self._all.every == 0, number == 0

    def _one(self, recorded: bool, first: bool) -> None:
        """Take one step; in place, so that it can be recorded and replayed."""
        a, seen = self._all, self._seen
        k = self._step
        whole = a.samples is None
        layers = a.layers()
        decayed: Tensor | float = 0.0
        if a.update.decay:
            decayed = 0.5 * a.update.decay * a.parameters.double().square().sum(1)
        watched = whole or a.rtol >= 0 or (recorded and a.loss_wanted)
        data = a.x, a.ones, a.y
        used = loss = torch.zeros_like(a.targets)
        scale: Tensor | float = a.scale
        kept: tuple[list[Tensor], Tensor] | None = None
        if watched:
            kept = residual(layers, *data)
            used = loss = 0.5 * a.scale * _squares(kept[1]) + decayed + a.constants
        if not whole:
            assert self._piece.scales is not None
            scale = self._piece.scales.index_select(0, k)
            data = self._batch(k)
            batch = residual(layers, *data)
            used = 0.5 * scale * _squares(batch[1]) + decayed
        norm: Tensor | None = None
        if recorded and seen.norms is not None:
            full = kept or residual(layers, a.x, a.ones, a.y)
            plain = gradient(layers, *full, a.ones, a.scale)
            norm = (plain + a.update.decay * a.parameters).double().norm(dim=1)
        at = batch if not whole else kept
        assert at is not None
        slope = gradient(layers, *at, data[1], scale)
        if recorded:
            for target, value in ((seen.losses, loss), (seen.batch_losses, used), (seen.norms, norm)):
                if target is not None and value is not None:
                    target.index_copy_(1, self._record, value[:, None])
            self._record += 1
        self._update(slope, loss, used, k, first=first)
        k += 1

    def _update(self, slope: Tensor, loss: Tensor, used: Tensor, k: Tensor, *, first: bool) -> None:
        a = self._all
        runs = a.status == _RUNNING
        lost = runs & ~used.isfinite()
        goes = runs & ~lost
        a.parameters.copy_(torch.where(lost[:, None], a.previous, a.parameters))
        each = self._piece.rates
        rates = (each if each.shape[1] == 1 else each.index_select(1, k)).to(slope.dtype)
        step = slope + a.update.decay * a.parameters
        if a.velocity is not None:
            moved = a.update.momentum * a.velocity + step
            a.velocity.copy_(torch.where(goes[:, None], moved, a.velocity))
            step = step + a.update.momentum * moved if a.update.nesterov else moved
        after = a.parameters - rates * step
        a.previous.copy_(torch.where(goes[:, None], a.parameters, a.previous))
        a.parameters.copy_(torch.where(goes[:, None], after, a.parameters))
        a.steps += goes.long() - (lost & (a.steps > 0)).long()
        a.seen.copy_(torch.where(goes, self._piece.first + k + 1, a.seen))
        if first and a.rtol >= 0:
            a.targets.copy_(a.rtol * loss)
        # Sums, since a choice between numbers would copy these from main memory, which no graph can hold.
        a.status += _DIVERGED * lost.long()
        if a.rtol >= 0:
            a.status += _CONVERGED * (goes & (loss <= a.targets)).long()

    def _batch(self, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the samples of a step, with rows of zeros behind those of a shorter batch."""
        a, piece = self._all, self._piece
        assert a.samples is not None and piece.order is not None
        inside = self._inside.index_select(0, k)[0]
        chosen = piece.order[:, self._places.index_select(0, k)[0]]  # (networks or 1, batch)
        x, y = (
            torch.take_along_dim(part.expand(len(chosen), -1, -1), chosen[:, :, None], 1) if len(chosen) > 1
            else part[:, chosen[0]]
            for part in a.samples
        )  # fmt: skip
        return x * inside[:, None], inside.expand(len(x), -1), y * inside[:, None]


def _squares(values: Tensor) -> Tensor:
    return values.double().square().sum((1, 2))
