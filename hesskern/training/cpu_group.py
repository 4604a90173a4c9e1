"""The networks of a run in main memory, one descent of a backend each: what the loop has them do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base.interrupt import Interruption
from hesskern.backends.protocol import Backend, Descent, Job
from hesskern.training import run_state
from hesskern.training.learning_rate import Schedule
from hesskern.training.loop import Status, record_steps
from hesskern.training.minibatches import Batches
from hesskern.training.recorder import Recorder, Records, in_range


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


class HostCrew:
    """Some networks and the backend that trains them.

    Parameters
    ----------
    backend : Backend
    members : list of Member
    schedule : Schedule
    records : Records
    record_every : int
    scale : float
        Of the loss of all samples.
    batch_scale : float or None
        Of a batch's loss for each sample in it ("mean"); None: `scale`, whatever the size.
    threads : int
    """

    most_steps = 1 << 14

    def __init__(
        self,
        backend: Backend,
        members: list[Member],
        schedule: Schedule,
        records: Records,
        *,
        record_every: int,
        scale: float,
        batch_scale: float | None,
        threads: int,
    ) -> None:
        self._backend, self._members, self._schedule, self._records = backend, members, schedule, records
        self._every, self._scale, self._batch_scale, self._threads = record_every, scale, batch_scale, threads
        for member in members:
            names = (name for name in ("loss", "batch_loss", "gradient_norm", "sharpness") if self._in_loop(name))
            member.quick = {name: [] for name in (*names, *(["2/lr"] if "2/lr" in records.names else []))}
            member.between = {name: [] for name in records.between}

    def _in_loop(self, name: str) -> bool:
        return name in self._records.names and name not in self._records.between

    def running(self) -> bool:
        """Return whether any network runs."""
        return bool(self._running())

    def measure(self, interruption: Interruption) -> None:
        """Record what is recorded between steps."""
        for member in self._running():
            if not interruption.requested:
                _measure(member)

    def finish(self, ended: Status) -> None:
        """Give each network its status."""
        for member in self._members:
            if member.status != "diverged" and not np.isfinite(member.descent.parameters()).all():
                member.descent.step_back()  # the last update overflowed, and nobody has taken its loss
                member.status = "diverged"
            member.status = member.status or ended

    def _running(self) -> list[Member]:
        return [member for member in self._members if member.status is None]

    def advance(self, start: int, stop: int) -> None:
        """Take steps with all networks that run."""
        active = self._running()
        jobs = self._jobs(active, start, stop)
        results = self._backend.advance([member.descent for member in active], jobs, self._threads)
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
        return chosen.scales(self._scale, self._batch_scale), chosen.order, chosen.ends

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what a checkpoint needs."""
        arrays = run_state.stacked([member.descent.save() for member in self._members])
        arrays["status"] = np.array([member.status or "" for member in self._members])
        arrays["seen"] = np.array([member.seen for member in self._members])
        columns = [history(member, self._every) for member in self._members]
        names = [name for name in columns[0] if name != "step"]
        return arrays | {
            f"history.{name}": run_state.padded([each[name] for each in columns], np.nan) for name in names
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Go on from what a checkpoint holds."""
        run_state.check(arrays, self.state(), self._every, self._records.entries)
        for k, member in enumerate(self._members):
            member.descent.restore(run_state.single(arrays, k))
            member.status = str(arrays["status"][k]) or None  # type: ignore[assignment]
            member.seen = int(arrays["seen"][k])
            count = len(record_steps(member.seen, self._every))
            for name in member.quick:
                member.quick[name] = [arrays[f"history.{name}"][k, :count]]
            for name in member.between:
                member.between[name] = list(arrays[f"history.{name}"][k, :count])
        return max((member.descent.steps for member in self._running()), default=0)


def _measure(member: Member) -> None:
    flat = member.descent.parameters()
    with np.errstate(over="ignore", invalid="ignore"):  # on the way to a divergence
        try:
            found = member.recorder.measure(flat) if np.isfinite(flat).all() else member.recorder.nothing()
        except (np.linalg.LinAlgError, ValueError, OverflowError):  # so large that its Hessian overflows
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
        "sharpness": None if job.sharpness is None else in_range(job.sharpness),
    }
    member.seen = start + finite
    for name, pieces in member.quick.items():
        if name == "2/lr":
            with np.errstate(divide="ignore", over="ignore"):
                pieces.append(2.0 / job.rates[some])
        else:
            values = given[name]
            assert values is not None
            pieces.append(values[some].copy())


def history(member: Member, every: int) -> dict[str, NDArray[Any]]:
    """Return what a network's run has recorded, by name; every array has one entry for each record."""
    steps = record_steps(member.seen, every)
    count = len(steps)
    found: dict[str, NDArray[Any]] = {"step": steps}
    for name, pieces in member.quick.items():
        found[name] = np.concatenate([*pieces, np.empty(0)])
    for name, values in member.between.items():
        # At a divergence, and at Ctrl-C, the last weights were looked at before their loss was.
        found[name] = np.array(values[:count]).reshape(count, *member.recorder.entries.get(name, ()))
        if name.startswith("rank") and np.isfinite(found[name]).all():
            found[name] = found[name].astype(np.int64)
    return found
