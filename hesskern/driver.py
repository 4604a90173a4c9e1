"""The loop around the backends' loops, for one network or many: pieces, records, progress, Ctrl-C, checkpoints.

All networks that still run have taken the same number of steps. Nothing here touches a number of the training itself:
its results do not depend on where the pieces end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hesskern import checkpoint
from hesskern.backends.protocol import Backend, Descent, Job
from hesskern.batches import Batches
from hesskern.interruption import Interruption
from hesskern.recording import Recorder, Records
from hesskern.schedule import Schedule

Status = Literal["converged", "max_steps", "diverged", "interrupted"]

#: The loop returns to Python about this often (seconds), to see Ctrl-C and to move the progress bar.
_SHORTEST, _LONGEST = 0.02, 0.1
#: Steps that have their losses in the cache: longer pieces would only ask the system for memory.
_MOST_STEPS = 1 << 14
#: Seconds between checkpoints where the user has not said how many steps.
_CHECKPOINT_SECONDS = 60.0


@dataclass(slots=True)
class Member:
    """One network of a run."""

    index: int
    descent: Descent
    batches: Batches | None
    recorder: Recorder
    status: Status | None = None  # None: it runs
    seen: int = 0  # steps whose loss was finite
    quick: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    between: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Saving:
    """Where and how often a checkpoint is written."""

    path: Path
    every: int | None
    problem: Mapping[str, Any]


class Drive:
    """A run of `members` to `max_steps`.

    Parameters
    ----------
    backend : Backend
    members : list of Member
    schedule : Schedule
    records : Records
    record_every, max_steps : int
    first_piece : int
        A first guess at how many steps take 20 ms; the loop corrects it.
    scale : float
        Of the loss of all samples.
    batch_scale : float or None
        Of a batch's loss for each sample in it ("mean"); None: `scale`, whatever the size.
    threads : int
    """

    def __init__(
        self,
        backend: Backend,
        members: list[Member],
        schedule: Schedule,
        records: Records,
        *,
        record_every: int,
        max_steps: int,
        first_piece: int,
        scale: float,
        batch_scale: float | None,
        threads: int,
        saving: Saving | None,
    ) -> None:
        self._backend, self._members, self._schedule, self._records = backend, members, schedule, records
        self._every, self._max_steps, self._piece = record_every, max_steps, first_piece
        self._scale, self._batch_scale, self._threads, self._saving = scale, batch_scale, threads, saving
        self._step = 0
        for member in members:
            names = (name for name in ("loss", "batch_loss", "gradient_norm", "sharpness") if self._in_loop(name))
            member.quick = {name: [] for name in (*names, *(["2/lr"] if "2/lr" in records.names else []))}
            member.between = {name: [] for name in records.between}

    def _in_loop(self, name: str) -> bool:
        return name in self._records.names and name not in self._records.between

    def run(self, *, progress: bool) -> None:
        """Run until every network has ended; afterwards each has a status."""
        bar = _bar(self._max_steps, self._step) if progress else None
        ended: Status = "max_steps"
        with Interruption() as interruption:
            try:
                ended = self._loop(bar, interruption)
            except KeyboardInterrupt:  # from the user's function, or of a handler that is the user's own
                if interruption.forced:
                    raise
                ended = "interrupted"
            finally:
                if bar is not None:
                    bar.close()
            if self._saving is not None:
                self._save()
        for member in self._members:
            if member.status is None and not np.isfinite(member.descent.parameters()).all():
                member.descent.step_back()  # the last update overflowed, and nobody has taken its loss yet
                member.status = "diverged"
            member.status = member.status or ended

    def _loop(self, bar: Any, interruption: Interruption) -> Status:
        saved = time.perf_counter()
        while (active := self._running()) and self._step < self._max_steps:
            if self._records.between and self._step % self._every == 0:
                for member in active:
                    if not interruption.wished:
                        _measure(member)
            if interruption.wished:
                return "interrupted"
            before, began = self._step, time.perf_counter()
            self._advance(active, self._next_stop())
            took = time.perf_counter() - began
            if bar is not None:
                bar.update(self._step - before)
            if took < _SHORTEST:
                self._piece = min(2 * self._piece, _MOST_STEPS)
            elif took > _LONGEST:
                self._piece = max(1, self._piece // 2)
            if self._checkpoint_due(saved):
                self._save()
                saved = time.perf_counter()
        return "max_steps"

    def _running(self) -> list[Member]:
        return [member for member in self._members if member.status is None]

    def _next_stop(self) -> int:
        stop = min(self._max_steps, self._step + self._piece)
        if self._records.between:
            stop = min(stop, self._step - self._step % self._every + self._every)
        if self._saving is not None and self._saving.every is not None:
            stop = min(stop, self._step - self._step % self._saving.every + self._saving.every)
        return stop

    def _advance(self, active: list[Member], stop: int) -> None:
        start = self._step
        jobs = self._jobs(active, start, stop)
        results = self._backend.advance([member.descent for member in active], jobs, self._threads)
        self._step = stop
        for member, job, (how, finite) in zip(active, jobs, results, strict=True):
            member.status = None if how == "running" else how
            _keep(member, job, start, finite, self._every)

    def _jobs(self, active: list[Member], start: int, stop: int) -> list[Job]:
        count = stop - start
        rates = self._schedule.rates(start, stop)
        losses = np.empty((len(active), count))
        nothing = [None] * len(active)
        batch_losses = nothing if active[0].batches is None else np.empty(losses.shape)
        norms = np.empty(losses.shape) if self._in_loop("gradient_norm") else nothing
        sharpness = np.empty(losses.shape) if self._in_loop("sharpness") else nothing
        samples = {id(member.batches): self._samples(member.batches, start, stop) for member in active}
        jobs = []
        for k, member in enumerate(active):
            scales, order, ends = samples[id(member.batches)]
            own = rates[member.index if len(rates) > 1 else 0]
            jobs.append(Job(own, scales, order, ends, losses[k], batch_losses[k], norms[k], sharpness[k]))
        return jobs

    def _samples(self, batches: Batches | None, start: int, stop: int) -> tuple[Any, ...]:
        """Return scales, order and ends of a `Job`."""
        if batches is None:
            return np.full(stop - start, self._scale), None, None
        chosen = batches.steps(start, stop)
        scales = np.full(stop - start, self._scale) if self._batch_scale is None else self._batch_scale / chosen.sizes
        return scales, chosen.order, chosen.ends

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def _checkpoint_due(self, saved: float) -> bool:
        if self._saving is None:
            return False
        if self._saving.every is not None:
            return self._step % self._saving.every == 0
        return time.perf_counter() - saved > _CHECKPOINT_SECONDS

    def _save(self) -> None:
        assert self._saving is not None
        arrays: dict[str, NDArray[Any]] = {
            "status": np.array([member.status or "" for member in self._members]),
            "seen": np.array([member.seen for member in self._members]),
        }
        states = [member.descent.save() for member in self._members]
        for key in states[0]:
            arrays[f"state.{key}"] = np.concatenate([state[key] for state in states])
            arrays[f"length.{key}"] = np.array([len(state[key]) for state in states])
        for name, columns in self._columns().items():
            filled = [column for column in columns if len(column)]
            arrays[f"history.{name}"] = np.concatenate(filled) if filled else np.empty(0)
            arrays[f"length.history.{name}"] = np.array([len(column) for column in columns])
        checkpoint.write(self._saving.path, self._saving.problem, arrays)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what a checkpoint holds."""
        states: list[dict[str, Any]] = [{} for _ in self._members]
        for key in [name.removeprefix("state.") for name in arrays if name.startswith("state.")]:
            for state, piece in zip(states, _pieces(arrays[f"state.{key}"], arrays[f"length.{key}"]), strict=True):
                state[key] = np.ascontiguousarray(piece)
        for k, member in enumerate(self._members):
            member.descent.restore(states[k])
            member.status = str(arrays["status"][k]) or None  # type: ignore[assignment]
            member.seen = int(arrays["seen"][k])
        for name in self._columns():
            pieces = _pieces(arrays[f"history.{name}"], arrays[f"length.history.{name}"])
            for member, piece in zip(self._members, pieces, strict=True):
                if name in member.quick:
                    member.quick[name] = [piece]
                else:
                    member.between[name] = list(piece)
        self._step = max((member.descent.steps for member in self._running()), default=0)

    def _columns(self) -> dict[str, list[NDArray[Any]]]:
        """Return what has been recorded, by name, one array for each network."""
        each = [history(member, self._every) for member in self._members]
        return {name: [columns[name] for columns in each] for name in each[0] if name != "step"}


def _pieces(joined: NDArray[Any], lengths: NDArray[Any]) -> list[NDArray[Any]]:
    return np.split(joined, np.cumsum(lengths)[:-1])


def _measure(member: Member) -> None:
    flat = member.descent.parameters()
    with np.errstate(over="ignore", invalid="ignore"):  # on the way to a divergence
        try:
            found = member.recorder.measure(flat) if np.isfinite(flat).all() else member.recorder.nothing()
        except (np.linalg.LinAlgError, ValueError):  # so large that its Hessian overflows
            found = member.recorder.nothing()
    for name, value in found.items():
        member.between[name].append(value)


def _keep(member: Member, job: Job, start: int, finite: int, every: int) -> None:
    """Keep what was recorded in the steps whose loss was finite."""
    some = slice(-start % every, finite, every)
    given = {
        "loss": job.losses,
        "batch_loss": job.batch_losses,
        "gradient_norm": job.gradient_norms,
        "sharpness": job.sharpness,
    }
    member.seen = start + finite
    for name, pieces in member.quick.items():
        if name == "2/lr":
            with np.errstate(divide="ignore"):
                pieces.append(2.0 / job.rates[some])
        else:
            values = given[name]
            assert values is not None
            pieces.append(values[some].copy())


def history(member: Member, every: int) -> dict[str, NDArray[Any]]:
    """Return what a network's run has recorded, by name; every array has one entry for each record."""
    count = -(-member.seen // every)
    found: dict[str, NDArray[Any]] = {"step": np.arange(0, every * count, every, dtype=np.int64)}
    for name, pieces in member.quick.items():
        found[name] = np.concatenate([*pieces, np.empty(0)])
    for name, values in member.between.items():
        # At a divergence, and at Ctrl-C, the last weights were looked at before their loss was.
        found[name] = np.array(values[:count])
        if name.startswith("rank") and np.isfinite(found[name]).all():
            found[name] = found[name].astype(np.int64)
    return found


def _bar(total: int, initial: int) -> Any:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ImportError('progress=True needs tqdm; install it with pip install "hesskern[progress]".') from error
    return tqdm(total=total, initial=initial, unit="step", unit_scale=True)
