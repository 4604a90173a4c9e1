"""The loop around a training run, wherever it runs: pieces, progress, Ctrl-C, checkpoints.

Nothing here touches a number of the training itself: its results do not depend on where the pieces end.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hesskern._base.interrupt import Interruption
from hesskern.training import checkpoint

Status = Literal["converged", "max_steps", "diverged", "interrupted"]

#: The loop returns to Python about this often (seconds), to see Ctrl-C and to move the progress bar.
_SHORTEST, _LONGEST = 0.02, 0.1
#: Seconds between checkpoints where the user has not said how many steps.
_CHECKPOINT_SECONDS = 60.0


class Crew(Protocol):
    """The networks of a run; all that still run have taken the same number of steps."""

    #: Steps of a piece that still have their losses where they cost nothing: longer ones would only ask for memory.
    most_steps: int

    def running(self) -> bool:
        """Return whether any network runs."""

    def measure(self, interruption: Interruption) -> None:
        """Record what is recorded between steps, unless an interruption is requested meanwhile."""

    def advance(self, start: int, stop: int) -> None:
        """Take the steps from `start` to before `stop`."""

    def finish(self, ended: Status) -> None:
        """Give each network that still runs this status, unless its last update overflowed."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that a checkpoint needs."""

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Go on from what `state` returned; return how many steps those that run have taken."""


@dataclass(frozen=True, slots=True)
class Saving:
    """Where and how often a checkpoint is written."""

    path: Path
    every: int | None
    problem: Mapping[str, Any]


class Loop:
    """A run of a crew to `max_steps`.

    Parameters
    ----------
    crew : Crew
    pauses : bool
        Whether something is recorded between steps, which ends a piece.
    record_every, max_steps : int
    first_piece : int
        A first guess at how many steps take 20 ms; the loop corrects it.
    saving : Saving, optional
    """

    def __init__(
        self,
        crew: Crew,
        *,
        pauses: bool,
        record_every: int,
        max_steps: int,
        first_piece: int,
        saving: Saving | None,
    ) -> None:
        self._crew, self._pauses, self._every = crew, pauses, record_every
        self._max_steps, self._piece, self._saving = max_steps, min(first_piece, crew.most_steps), saving
        self._step, self._warned = 0, False

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what a checkpoint holds."""
        self._step = self._crew.restore(arrays)

    def run(self, *, progress: bool) -> None:
        """Run until every network has ended; afterwards each has a status."""
        bar = progress_bar(self._max_steps, self._step) if progress else None
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
        self._crew.finish(ended)

    def _pieces(self, bar: Any, interruption: Interruption) -> Status:
        saved = time.perf_counter()
        while self._crew.running() and self._step < self._max_steps:
            if self._pauses and self._step % self._every == 0:
                self._crew.measure(interruption)
            if interruption.requested:
                return "interrupted"
            before, began = self._step, time.perf_counter()
            stop = self._next_stop()
            self._crew.advance(before, stop)
            self._step = stop
            took = time.perf_counter() - began
            if bar is not None:
                bar.update(stop - before)
            if took < _SHORTEST:
                self._piece = min(2 * self._piece, self._crew.most_steps)
            elif took > _LONGEST:
                self._piece = max(1, min(self._piece // 2, int(self._piece * _LONGEST / took)))
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
        """Write a checkpoint; where that fails the run is worth more than its checkpoint, and goes on."""
        try:
            checkpoint.write(saving.path, saving.problem, self._crew.state())
        except (OSError, MemoryError) as error:
            if last or not self._warned:
                what = "last checkpoint was not written" if last else "checkpoint was not written, the run goes on"
                why = str(error) or "out of memory"
                message = f"the {what}: {why} What {str(saving.path)!r} held before is left as it was."
                warnings.warn(checkpoint.CheckpointWarning(message, last=last), stacklevel=5)
            self._warned = True


def record_steps(seen: int, every: int) -> NDArray[np.int64]:
    """Return which of the first `seen` steps are recorded."""
    return np.arange(0, seen, every, dtype=np.int64)


def progress_bar(total: int, initial: int) -> Any:
    """Return a bar of steps; ImportError without tqdm."""
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError('progress=True needs tqdm; install it with pip install "hesskern[progress]".') from error
    return tqdm(total=total, initial=initial, unit="step", unit_scale=True)
