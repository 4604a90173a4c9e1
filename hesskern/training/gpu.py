"""Training on a GPU: the networks stacked, reduced, and handed to a crew that trains all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern import backends
from hesskern._base import devices, memory
from hesskern.backends.data import Data
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.network_stack import NetworkStack
from hesskern.training.gpu_group import DeviceCrew, Orders
from hesskern.training.learning_rate import Schedule
from hesskern.training.loop import Status
from hesskern.training.minibatches import Batches
from hesskern.training.options import Settings, batch_scale
from hesskern.training.recorder import Records
from hesskern.training.reduced_network import ReducedNetwork, Reduction

#: Steps that are taken first, at most, and multiply-adds after which a launch ends first: some 20 ms at a tenth of what
#: a card can do. The loop corrects it.
_FIRST_PIECE, _FIRST_WORK = 256, 1e10


class TrainedStack(NamedTuple):
    """Networks after training on a GPU."""

    weights: list[Any]  # (B, out, in) tensors
    biases: list[Any]
    steps: NDArray[np.int64]
    status: list[Status]
    history: dict[str, NDArray[Any]]  # (B, K, ...)
    reduction: Reduction
    execution: str

    def network(self, index: int) -> tuple[list[Any], list[Any]]:
        """Return weights and biases of one network."""
        return [weight[index] for weight in self.weights], [None if b is None else b[index] for b in self.biases]

    def history_of(self, index: int) -> dict[str, NDArray[Any]]:
        """Return what was recorded of one network, up to where it stopped."""
        found = {name: column if name == "step" else column[index] for name, column in self.history.items()}
        whole = (name for name, column in found.items() if name.startswith("rank") and np.isfinite(column).all())
        return found | {name: found[name].astype(np.int64) for name in whole}


def train(
    settings: Settings,
    nets: Sequence[LinearNetwork],
    losses: list[SquaredLoss],
    seeds: Sequence[int],
    *,
    several: bool,
    progress: bool,
) -> TrainedStack:
    """Train these networks, which are on a GPU; `losses` has one for each, or one for all.

    Raises
    ------
    MemoryError
        If the device has not enough memory free; the message says about how much it takes.
    """
    first = nets[0]
    # Parameters as given and lifted, before the last update, velocity, and the stacks of the reduction.
    needed = memory.human(6 * 8 * len(nets) * first.num_parameters)
    what = f"training {len(nets)} networks (about {needed}, and what is recorded)"
    with devices.enough_memory(first.weights[0], what, "train fewer at a time, or record less."):
        return _train(settings, NetworkStack.of(nets), first, losses, seeds, several=several, progress=progress)


def _train(
    settings: Settings,
    stack: NetworkStack,
    first: LinearNetwork,
    losses: list[SquaredLoss],
    seeds: Sequence[int],
    *,
    several: bool,
    progress: bool,
) -> TrainedStack:
    from hesskern.backends.cuda.batched_curvature import Rows  # noqa: PLC0415 - loads torch
    from hesskern.backends.cuda.descents import Problem, Samples, Watched  # noqa: PLC0415

    loss = losses[0]
    kernels: Any = backends.get_for(settings.chosen_backend(loss), loss.device, "the networks and samples are")
    minibatches = settings.batch_size is not None
    schedule = Schedule(settings.lr, settings.max_steps, len(stack) if several else None)
    records = Records(settings.record, first, minibatches=minibatches, sharpness_in_loop=False)
    small = _reduced(kernels, stack, reduce=settings.reduce == "auto")
    data, ones, constants = _stacked([settings.data(each, records, first.has_bias)[0] for each in losses])
    samples = Samples(*_rows([Data(each.X, None, each.Y, 0.0) for each in losses])) if minibatches else None
    largest = settings.largest(loss)
    problem = Problem(
        data=Samples(*data),
        ones=ones,
        constants=loss.scale * ones.new_tensor(constants, dtype=_float64(ones)).expand(len(stack)).contiguous(),
        samples=samples,
        most=largest,
        scale=loss.scale,
        rtol=-1.0 if settings.rtol is None else settings.rtol,
        update=settings.update(loss),
    )
    quick = set(records.names)
    watched = Watched(settings.record_every, "loss" in quick, "batch_loss" in quick, "gradient_norm" in quick)
    orders = None
    if minibatches:
        kinds = [seeds[0]] if len(set(seeds)) == 1 else seeds
        orders = Orders(
            batches=[Batches(len(loss.X), largest, shuffle=settings.shuffle, seed=seed) for seed in kinds],
            scale=loss.scale,
            each=batch_scale(loss),
        )
    whole, column, _ = _stacked([each.data(bias=first.has_bias, reduced=True) for each in losses])
    whole_data = Rows(whole[0].double(), column.double(), whole[1].double())
    crew = DeviceCrew(
        kernels.descents(small, problem, watched),
        small,
        losses,
        kernels,
        whole_data,
        schedule,
        records,
        record_every=settings.record_every,
        orders=orders,
    )
    # A checkpoint knows the networks by their digest, for which they are copied into main memory.
    starts = [*stack.weights, *stack.biases] if settings.saves else []
    identity = settings.problem(starts, len(stack), losses, seeds, schedule, "cuda", several) if settings.saves else {}
    rows = largest or data[0].shape[1]
    step = 3 * len(stack) * rows * sum(a * b for a, b in zip(small.widths[:-1], small.widths[1:], strict=True))
    loop = settings.loop(crew, records, identity, max(1, min(_FIRST_PIECE, int(_FIRST_WORK / step))))
    loop.run(progress=progress)
    weights, biases = crew.layers()
    return TrainedStack(
        list(weights),
        list(biases),
        crew.steps,
        crew.status,
        crew.history(),
        settings.reduction(loss, first.has_bias, first.widths, small.widths, np.nan, small.unbalanced),
        crew.execution,
    )


def _reduced(kernels: Any, stack: NetworkStack, *, reduce: bool) -> Any:
    """Return the small networks; one whose stack of weights has a lower rank gets its basis from the CPU.

    There, directions that hold nothing but rounding errors are found by a QR decomposition with pivots.
    """
    small = kernels.reduced(stack.weights, stack.biases, reduce=reduce)
    for index in np.flatnonzero(devices.to_host(small.suspicious)):
        one = ReducedNetwork(stack[int(index)].cpu(), reduce=True)
        small.replace(int(index), [stage.basis for stage in one.stages], [stage.after for stage in one.stages])
    return small


def _rows(data: Sequence[Data]) -> tuple[Any, Any]:
    return devices.stack([each.X for each in data]), devices.stack([each.Y for each in data])


def _stacked(data: Sequence[Data]) -> tuple[tuple[Any, Any], Any, list[float]]:
    """Return X and Y, the columns of ones, and the constants, with one row for each loss."""
    return _rows(data), devices.stack([each.column for each in data]), [each.constant for each in data]


def _float64(like: Any) -> Any:
    return devices.namespace(like).float64
