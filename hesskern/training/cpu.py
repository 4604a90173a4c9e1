"""Training in main memory: each network reduced, a descent of a backend made of it, and all handed to a crew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hesskern import backends
from hesskern._base.array_types import Array
from hesskern._base.blas_threads import one_thread
from hesskern.backends.protocol import Watch
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.training.cpu_group import HostCrew, Member
from hesskern.training.learning_rate import Schedule
from hesskern.training.loop import Loop
from hesskern.training.minibatches import Batches
from hesskern.training.options import Settings, batch_scale
from hesskern.training.recorder import Recorder, Records
from hesskern.training.reduced_network import ReducedNetwork, Reduction, reduced_networks

#: ``exp`` of more than this is infinite.
_OVERFLOWS = 709.0
#: Seconds before the loop first sees Ctrl-C, and multiply-adds per second, both roughly: it corrects itself later.
_FIRST_PIECE, _MULTIPLY_ADDS = 0.02, 2.5e9


class Trained(NamedTuple):
    """One network after training."""

    network: LinearNetwork
    member: Member


def train(
    settings: Settings,
    nets: Sequence[LinearNetwork],
    losses: Sequence[SquaredLoss],
    seeds: Sequence[int],
    *,
    several: bool,
    threads: int,
    progress: bool,
) -> tuple[list[Trained], Reduction]:
    """Train these networks; `losses` has one for each, or one for all."""
    with one_thread(settings.largest(losses[0]) or len(losses[0].X), *nets[0].widths):
        loop, members, reduced = _loop(settings, nets, losses, seeds, several=several, threads=threads)
        loop.run(progress=progress)
        trained = [
            Trained(small.lift(member.descent.parameters()), member)
            for small, member in zip(reduced, members, strict=True)
        ]
    net = nets[0]
    leak = _leak(members, net) if reduced[0].widths != net.widths else 0.0
    unbalanced = sum(each.unbalanced for each in reduced)
    return trained, settings.reduction(losses[0], net.has_bias, net.widths, reduced[0].widths, leak, unbalanced)


def _loop(
    settings: Settings,
    nets: Sequence[LinearNetwork],
    losses: Sequence[SquaredLoss],
    seeds: Sequence[int],
    *,
    several: bool,
    threads: int,
) -> tuple[Loop, list[Member], list[ReducedNetwork]]:
    net, loss = nets[0], losses[0]
    backend = backends.get_for(settings.chosen_backend(loss), loss.device, "the networks and samples are")
    schedule = Schedule(settings.lr, settings.max_steps, len(nets) if several else None)
    records = Records(settings.record, net, minibatches=settings.batch_size is not None)
    reduced = reduced_networks(nets, backend, reduce=settings.reduce == "auto")
    watch = Watch(
        every=settings.record_every,
        loss="loss" in records.names,
        sharpness=records.sharpness_in_loop,
        leak_layers=reduced[0].reduced_layers,
    )
    batches: dict[int, Batches] = {}
    members = []
    for index, (each, seed) in enumerate(zip(reduced, seeds, strict=True)):
        own = losses[index if len(losses) > 1 else 0]
        data, samples = settings.data(own, records, net.has_bias)
        if samples is not None and seed not in batches:
            batches[seed] = Batches(len(own.X), settings.largest(own), shuffle=settings.shuffle, seed=seed)
        descent = backend.descent(
            each.layers,
            data,
            samples,
            settings.largest(own),
            scale=own.scale,
            rtol=-1.0 if settings.rtol is None else settings.rtol,
            update=settings.update(loss),
            watch=watch,
            ensemble=several,
        )
        recorder = Recorder(records, own, nets[index], each)
        members.append(Member(index, descent, batches.get(seed), recorder))
    starts: list[Array | None] = [part for net in nets for part in (*net.weights, *net.biases)]
    problem = (
        settings.problem(starts, len(nets), losses, seeds, schedule, backend.name, several) if settings.saves else {}
    )
    work = sum(w.size for w in reduced[0].layers.weights) * (settings.largest(loss) or len(data.X))
    step = len(nets) * (backend.step_seconds + work / _MULTIPLY_ADDS) / threads
    crew = HostCrew(
        backend,
        members,
        schedule,
        records,
        record_every=settings.record_every,
        scale=loss.scale,
        batch_scale=batch_scale(loss),
        threads=threads,
    )
    loop = settings.loop(crew, records, problem, max(1, min(4096, int(_FIRST_PIECE / step))))
    return loop, members, reduced


def _leak(members: Sequence[Member], net: LinearNetwork) -> float:
    """Return the largest leak of these networks; see `Reduction`."""
    kept = [member for member in members if member.status != "diverged"] or members
    growth = max(value for member in kept for value in member.descent.growth)
    return float(np.finfo(net.dtype).eps) * math.exp(growth) if growth < _OVERFLOWS else math.inf
