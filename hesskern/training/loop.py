"""The loop around a training run, wherever it runs: pieces, progress, Ctrl-C, checkpoints.

Nothing here touches a number of the training itself: its results do not depend on where the pieces end.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hesskern._base.interrupt import Interruption
from hesskern._base.progress import Bar, progress_bar
from hesskern.training import checkpoint
from hesskern.training.network_group import NetworkGroup, Status
from hesskern.training.run_state import RunState

#: The loop returns to Python about this often (seconds), to see Ctrl-C and to move the progress bar.
_SHORTEST, _LONGEST = 0.02, 0.1
#: Seconds between checkpoints where the user has not said how many steps.
_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Saving:
    """Where and how often a checkpoint is written."""

    path: Path
    every: int | None
    identity: Mapping[str, Any]  # what the run that goes on must agree with


class Loop:
    """A run of a group of networks to `max_steps`.

    Parameters
    ----------
    group : NetworkGroup
    pauses : bool
        Whether something is recorded between steps, which ends a piece.
    record_every, max_steps : int
    saving : Saving, optional
    """

    def __init__(
        self,
        group: NetworkGroup,
        *,
        pauses: bool,
        record_every: int,
        max_steps: int,
        saving: Saving | None,
    ) -> None:
        self._group, self._pauses, self._every = group, pauses, record_every
        self._max_steps, self._piece, self._saving = max_steps, min(group.first_piece, group.most_steps), saving
        self._step, self._warned = 0, False

    def restore(self, state: RunState) -> None:
        """Continue from the state in a checkpoint."""
        self._group.restore(state)
        self._step = state.step

    def run(self, *, progress: bool) -> None:
        """Run until every network has ended; afterwards each has a status."""
        bar = progress_bar(self._max_steps, initial=self._step) if progress else None
        ended: Status = "max_steps"
        with Interruption() as interruption:
            try:
                ended = self._pieces(bar, interruption)
            except KeyboardInterrupt:  # from the user's function, or of a handler that is the user's own
                if interruption.forced:
                    raise
                ended = "interrupted"
            finally:
                if bar is not None:
                    bar.close()
            if self._saving is not None:
                self._save(self._saving, last=True)
        self._group.finish(ended)

    def _pieces(self, bar: Bar | None, interruption: Interruption) -> Status:
        saved = time.perf_counter()
        while self._group.running() and self._step < self._max_steps:
            if self._pauses and self._step % self._every == 0:
                self._group.measure(interruption)
            if interruption.requested:
                return "interrupted"
            before, began = self._step, time.perf_counter()
            stop = self._next_stop()
            self._group.advance(before, stop)
            self._step = stop
            elapsed = time.perf_counter() - began
            if bar is not None:
                bar.update(stop - before)
            if elapsed < _SHORTEST:
                self._piece = min(2 * self._piece, self._group.most_steps)
            elif elapsed > _LONGEST:
                self._piece = max(1, min(self._piece // 2, int(self._piece * _LONGEST / elapsed)))
            if self._saving is not None and self._checkpoint_due(self._saving, saved):
                self._save(self._saving, last=False)
                saved = time.perf_counter()
        return "max_steps"

    def _next_stop(self) -> int:
        stop = min(self._max_steps, self._step + self._piece)
        if self._pauses:
            stop = min(stop, self._step - self._step % self._every + self._every)
        if self._saving is not None and self._saving.every is not None:
            stop = min(stop, self._step - self._step % self._saving.every + self._saving.every)
        return stop

    def _checkpoint_due(self, saving: Saving, saved: float) -> bool:
        if saving.every is not None:
            return self._step % saving.every == 0
        return time.perf_counter() - saved > _CHECKPOINT_SECONDS

    def _save(self, saving: Saving, *, last: bool) -> None:
        """Write a checkpoint; if this fails, the run continues, because it is worth more than its checkpoint."""
        try:
            checkpoint.write(saving.path, saving.identity, self._group.state().arrays())
        except (OSError, MemoryError) as error:
            if last or not self._warned:
                failure = "last checkpoint was not written" if last else "checkpoint was not written, the run continues"
                why = str(error) or "out of memory"
                message = f"the {failure}: {why} The old content of {str(saving.path)!r} is unchanged."
                warnings.warn(checkpoint.CheckpointWarning(message, last=last), stacklevel=5)
            self._warned = True
