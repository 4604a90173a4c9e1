"""The arguments that `fit` and `fit_ensemble` share, checked once, and the descents made of them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hesskern import backends, checkpoint, checks
from hesskern._array import Array
from hesskern.backends.protocol import Update, Watch
from hesskern.batches import Batches
from hesskern.blas_threads import one_thread
from hesskern.driver import Drive, Member, Saving
from hesskern.loss import SquaredLoss
from hesskern.network import LinearNetwork
from hesskern.problem import Data
from hesskern.recording import Recorder, Records
from hesskern.reduction import ReducedNetwork, Reduction
from hesskern.schedule import LearningRate, Schedule

#: ``exp`` of more than this is infinite.
_OVERFLOWS = 709.0
#: Seconds before the loop first sees Ctrl-C, and multiply-adds per second, both roughly: it corrects itself later.
_FIRST_PIECE, _MULTIPLY_ADDS = 0.02, 2.5e9

StrPath = str | os.PathLike[str]


class Trained(NamedTuple):
    """One network after training."""

    network: LinearNetwork
    member: Member


@dataclass(slots=True, kw_only=True)
class Settings:
    """How to train; see `hesskern.fit` for each."""

    lr: LearningRate
    max_steps: int
    rtol: float | None
    batch_size: int | None
    shuffle: bool
    momentum: float
    nesterov: bool
    record: Sequence[str]
    record_every: int
    reduce: str
    backend: str | None
    checkpoint: StrPath | None
    checkpoint_every: int | None
    resume: StrPath | None
    saving_path: Path | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.max_steps = checks.integer(self.max_steps, "max_steps", 1)
        self.record_every = checks.integer(self.record_every, "record_every", 1)
        self.rtol = None if self.rtol is None else checks.non_negative(self.rtol, "rtol")
        self.batch_size = None if self.batch_size is None else checks.integer(self.batch_size, "batch_size", 1)
        self.momentum = checks.non_negative(self.momentum, "momentum")
        for name in ("shuffle", "nesterov"):
            checks.boolean(getattr(self, name), name)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is True, but momentum is 0; expected momentum > 0, as torch.optim.SGD does.")
        checks.one_of(self.reduce, "reduce", ("auto", "none"))
        if self.checkpoint_every is not None:
            self.checkpoint_every = checks.integer(self.checkpoint_every, "checkpoint_every", 1)
            if self.checkpoint is None:
                raise ValueError("checkpoint_every is given, but checkpoint is None; expected checkpoint=path as well.")
        if self.checkpoint is not None:
            self.saving_path = checkpoint.check_writable(self.checkpoint)

    def train(
        self,
        nets: Sequence[LinearNetwork],
        losses: Sequence[SquaredLoss],
        seeds: Sequence[int],
        *,
        several: bool,
        threads: int,
        progress: bool,
    ) -> tuple[list[Trained], Reduction]:
        """Train these networks; `losses` has one for each, or one for all."""
        with one_thread(self._largest(losses[0]) or len(losses[0].X), *nets[0].widths):
            drive, members, reduced = self._drive(nets, losses, seeds, several=several, threads=threads)
            drive.run(progress=progress)
            trained = [
                Trained(small.lift(member.descent.parameters()), member)
                for small, member in zip(reduced, members, strict=True)
            ]
        return trained, self._reduction(losses[0], nets[0], reduced[0], members)

    def _drive(
        self,
        nets: Sequence[LinearNetwork],
        losses: Sequence[SquaredLoss],
        seeds: Sequence[int],
        *,
        several: bool,
        threads: int,
    ) -> tuple[Drive, list[Member], list[ReducedNetwork]]:
        name = backends.resolve(losses[0].backend if self.backend is None else self.backend)
        if name not in backends.host_names():
            known = ", ".join(map(repr, backends.host_names()))
            raise TypeError(f"the backend {name!r} does not train; expected one of {known}.")
        backend = backends.get(name)
        net, loss = nets[0], losses[0]
        schedule = Schedule(self.lr, self.max_steps, len(nets) if several else None)
        records = Records(self.record, net, minibatches=self.batch_size is not None)
        update = Update(self.momentum, self.nesterov, loss.weight_decay)
        reduced = [ReducedNetwork(each, reduce=self.reduce == "auto") for each in nets]
        watch = Watch(
            every=self.record_every,
            loss="loss" in records.names,
            sharpness=records.sharpness_in_loop,
            leak_layers=reduced[0].reduced_layers,
        )
        batches: dict[int, Batches] = {}
        members = []
        for index, (each, seed) in enumerate(zip(reduced, seeds, strict=True)):
            own = losses[index if len(losses) > 1 else 0]
            data, samples = self._data(own, records, net.has_bias)
            if samples is not None and seed not in batches:
                batches[seed] = Batches(len(own.X), self._largest(own), shuffle=self.shuffle, seed=seed)
            descent = backend.descent(
                each.layers,
                data,
                samples,
                self._largest(own),
                scale=own.scale,
                rtol=-1.0 if self.rtol is None else self.rtol,
                update=update,
                watch=watch,
                ensemble=several,
            )
            recorder = Recorder(records, own, nets[index], each)
            members.append(Member(index, descent, batches.get(seed), recorder))
        problem = self._problem(nets, losses, seeds, schedule, name, several) if self._saves else {}
        work = sum(w.size for w in reduced[0].layers.weights) * (self._largest(loss) or len(data.X))
        step = len(nets) * (backend.step_seconds + work / _MULTIPLY_ADDS) / threads
        drive = Drive(
            backend,
            members,
            schedule,
            records,
            record_every=self.record_every,
            max_steps=self.max_steps,
            first_piece=max(1, min(4096, int(_FIRST_PIECE / step))),
            scale=loss.scale,
            batch_scale=2.0 / loss.Y.shape[1] if loss.kind == "mean" else None,
            threads=threads,
            saving=None if self.saving_path is None else Saving(self.saving_path, self.checkpoint_every, problem),
        )
        if self.resume is not None:
            drive.restore(checkpoint.read(self.resume, problem))
        return drive, members, reduced

    @property
    def _saves(self) -> bool:
        return self.saving_path is not None or self.resume is not None

    def _largest(self, loss: SquaredLoss) -> int:
        return 0 if self.batch_size is None else min(self.batch_size, len(loss.X))

    def _data(self, loss: SquaredLoss, records: Records, bias: bool) -> tuple[Data, Data | None]:
        """Return the data of the full loss, and the samples that minibatches are taken from."""
        reduced = self.reduce == "auto"
        if self.batch_size is None:
            return loss.data(bias=bias, reduced=reduced), None
        samples = loss.data(bias=bias, reduced=False)
        if self.rtol is None and not {"loss", "gradient_norm", "sharpness"} & set(records.names):
            return Data(samples.X[:1], None, samples.Y[:1], 0.0), samples  # nobody looks at the full loss
        return loss.data(bias=bias, reduced=reduced), samples

    def _reduction(
        self, loss: SquaredLoss, net: LinearNetwork, reduced: ReducedNetwork, members: Sequence[Member]
    ) -> Reduction:
        """Return what was reduced, with the largest leak of these networks."""
        samples = widths = None
        if self.batch_size is None and self.reduce == "auto":
            rows = len(loss.data(bias=net.has_bias, reduced=True).X)
            samples = (len(loss.X), rows) if rows < len(loss.X) else None
        if reduced.widths != net.widths:
            widths = net.widths, reduced.widths
        leak = 0.0
        if widths is not None:
            kept = [member for member in members if member.status != "diverged"] or members
            growth = max(value for member in kept for value in member.descent.growth)
            leak = float(np.finfo(net.dtype).eps) * math.exp(growth) if growth < _OVERFLOWS else math.inf
        return Reduction(samples, widths, leak)

    def _problem(
        self,
        nets: Sequence[LinearNetwork],
        losses: Sequence[SquaredLoss],
        seeds: Sequence[int],
        schedule: Schedule,
        backend: str,
        several: bool,
    ) -> dict[str, Any]:
        """Return what a checkpoint must agree with, by the name of the argument, as JSON holds it."""
        starts: list[Array | None] = [part for net in nets for part in (*net.weights, *net.biases)]
        return {
            "number of nets": len(nets),
            "nets" if several else "net": checkpoint.digest(starts),
            "X": checkpoint.digest([loss.X for loss in losses]),
            "Y": checkpoint.digest([loss.Y for loss in losses]),
            "kind": losses[0].kind,
            "weight_decay": losses[0].weight_decay,
            "lr": schedule.describe(),
            "rtol": self.rtol,
            "batch_size": self.batch_size,
            "shuffle": bool(self.shuffle),
            "seed": list(seeds),
            "momentum": self.momentum,
            "nesterov": bool(self.nesterov),
            "record": list(self.record),
            "record_every": self.record_every,
            "reduce": self.reduce,
            "backend": backend,
            "isa": backends.get(backend).instructions,
        }
