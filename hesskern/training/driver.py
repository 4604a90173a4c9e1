"""The common part of `fit` and `fit_ensemble`: it trains networks on any device."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hesskern import backends
from hesskern._base.array_types import Array
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.network_stack import NetworkStack
from hesskern.training import checkpoint, run_state
from hesskern.training.cpu_group import CpuGroup
from hesskern.training.learning_rate import Schedule
from hesskern.training.loop import Loop, Saving
from hesskern.training.network_group import NetworkGroup, TrainingProblem
from hesskern.training.options import StrPath, TrainingOptions
from hesskern.training.recorder import Records

Result = TypeVar("Result")


def train(
    options: TrainingOptions,
    networks: Sequence[LinearNetwork],
    losses: Sequence[LeastSquaresLoss],
    seeds: Sequence[int],
    *,
    ensemble: bool,
    threads: int,
    progress: bool,
    result: Callable[[NetworkGroup], Result],
) -> Result:
    """Train networks and return what `result` makes of them.

    Parameters
    ----------
    options : TrainingOptions
    networks : sequence of LinearNetwork
        Of one shape. On a GPU, with the losses, or in main memory.
    losses : sequence of LeastSquaresLoss
        One for each network, or one for all.
    seeds : sequence of int
        One for each network.
    ensemble : bool
        Whether this is a call of `fit_ensemble`.
    threads : int
        In main memory, how many networks are trained at the same time.
    progress : bool
    result : callable
        Takes the group of networks. It is called where BLAS is still on one thread, and where "out of memory" of a
        device still becomes a MemoryError.
    """
    net, loss = networks[0], losses[0]
    group_type: type[NetworkGroup] = CpuGroup
    if loss.device != "cpu":
        from hesskern.training.gpu_group import GpuGroup  # noqa: PLC0415 - loads torch

        group_type = GpuGroup
    with group_type.surroundings(options, networks, loss):
        if loss.device != "cpu":
            networks = NetworkStack.of(networks)
        problem = TrainingProblem(
            options=options,
            networks=networks,
            losses=losses,
            seeds=seeds,
            backend=backends.get_for(options.chosen_backend(loss), loss.device, "the networks and samples are"),
            schedule=Schedule(options.lr, options.max_steps, len(networks) if ensemble else None),
            records=Records(
                options.record,
                net,
                minibatches=options.batch_size is not None,
                sharpness_in_loop=group_type.sharpness_in_loop,
            ),
            ensemble=ensemble,
            threads=threads,
        )
        group = group_type(problem)
        identity = _identity(problem) if options.saves else {}
        loop = Loop(
            group,
            pauses=bool(problem.records.between),
            record_every=options.record_every,
            max_steps=options.max_steps,
            saving=None
            if options.saving_path is None
            else Saving(options.saving_path, options.checkpoint_every, identity),
        )
        if options.resume is not None:
            _resume(options.resume, identity, problem, group, loop)
        loop.run(progress=progress)
        return result(group)


def _resume(path: StrPath, identity: dict[str, Any], problem: TrainingProblem, group: NetworkGroup, loop: Loop) -> None:
    """Continue from a checkpoint."""
    arrays = checkpoint.read(path, identity)
    try:
        loop.restore(run_state.read(arrays, group.state(), problem.options.record_every, problem.records.shapes))
    except ValueError as error:
        name = os.fspath(path)
        raise ValueError(f"resume is {name!r}, which is not a checkpoint of such a run: {error}.") from error


def _identity(problem: TrainingProblem) -> dict[str, Any]:
    """Return the values that must agree with a checkpoint, by the name of the argument, as JSON holds them."""
    options, losses = problem.options, problem.losses
    return {
        "number of nets": len(problem.networks),
        "training (one net, or an ensemble)": "fit_ensemble" if problem.ensemble else "fit",
        "nets" if problem.ensemble else "net": checkpoint.digest(_parameters(problem.networks)),
        "X": checkpoint.digest([loss.X for loss in losses]),
        "Y": checkpoint.digest([loss.Y for loss in losses]),
        **_identity_of_loss(losses),
        "weight_decay": losses[0].weight_decay,
        "lr": problem.schedule.describe(),
        "rtol": options.rtol,
        "batch_size": options.batch_size,
        "shuffle": bool(options.shuffle),
        "seed": list(problem.seeds),
        "momentum": options.momentum,
        "nesterov": bool(options.nesterov),
        "record": list(options.record),
        "record_every": options.record_every,
        "reduce": options.reduce,
        "backend": problem.backend.name,
        "isa": problem.backend.instructions,
    }


def _identity_of_loss(losses: Sequence[LeastSquaresLoss]) -> dict[str, object]:
    first = losses[0]
    if type(first) is SquaredLoss:
        return {"kind": first.kind}
    others = {name: checkpoint.digest([loss.arrays[name] for loss in losses]) for name in first.arrays}
    scales = [(loss.scale, loss.scale_per_sample) for loss in losses]
    return {"loss": checkpoint.as_json([type(first).__qualname__, first.options, others, scales])}


def _parameters(networks: Sequence[LinearNetwork]) -> list[Array | None]:
    if isinstance(networks, NetworkStack):
        return [*networks.weights, *networks.biases]
    return [part for net in networks for part in (*net.weights, *net.biases)]
