"""Training many networks of one shape at once, each on its own, in threads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks
from hesskern._base.array_types import Array
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.network_stack import NetworkStack
from hesskern.training.driver import train
from hesskern.training.learning_rate import LearningRate
from hesskern.training.network_group import NetworkGroup
from hesskern.training.options import StrPath, TrainingOptions
from hesskern.training.reduction import Reduction


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """The result of `fit_ensemble` for B networks.

    Attributes
    ----------
    weights : list of (B, out, in) arrays
        One array for each layer; on a GPU, tensors there. Everything else is in main memory.
    biases : list of (B, out) arrays or None
    steps : (B,) array of int
        Number of updates of each network; see `Run`.
    status : (B,) array of str
        "converged", "max_steps", "diverged" or "interrupted".
    history : dict of arrays
        "step" (K,); all other arrays are (B, K, ...), with NaN after a network has stopped.
    reduction : Reduction
        Size of the data and the networks after the reductions; its leak is the largest of the networks that did not
        diverge.
    parameter_names : tuple of str
        Names of the weights and biases.
    execution : str
        On a GPU, the method: many steps in one launch, or several launches for each step and the reason; else empty.
    """

    weights: list[Array]
    biases: list[Array | None]
    steps: NDArray[np.int64]
    status: NDArray[np.str_]
    history: dict[str, NDArray[Any]]
    reduction: Reduction
    parameter_names: tuple[str, ...]
    execution: str = ""

    def __len__(self) -> int:
        return len(self.steps)

    def network(self, index: int) -> LinearNetwork:
        """Return one of the networks."""
        index = checks.index(index, len(self), "networks")
        return LinearNetwork(
            [weight[index] for weight in self.weights],
            [None if bias is None else bias[index] for bias in self.biases],
            names=self.parameter_names,
        )

    def __repr__(self) -> str:
        counts = Counter(map(str, self.status))
        return f"Ensemble({len(self)} networks: {', '.join(f'{count} {status}' for status, count in counts.items())})"


def fit_ensemble(
    nets: Sequence[LinearNetwork],
    loss: LeastSquaresLoss | Sequence[LeastSquaresLoss],
    *,
    lr: LearningRate,
    max_steps: int,
    rtol: float | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int | Sequence[int] = 0,
    momentum: float = 0.0,
    nesterov: bool = False,
    record: Sequence[str] = ("loss",),
    record_every: int = 1,
    reduce: str = "auto",
    backend: str | None = None,
    progress: bool = False,
    checkpoint: StrPath | None = None,
    checkpoint_every: int | None = None,
    resume: StrPath | None = None,
    threads: int | None = None,
) -> Ensemble:
    """Train many networks of one shape, each as `fit` would train it.

    Small networks (full batch, float64) are trained several at a time, one in each lane of the processor's vectors. The
    lanes add in another order than `fit`, so results agree with `fit` to rounding. The result of a network does not
    depend on the other networks, not even in the last bit. The only exception are the reductions, which are decided for
    all networks together: all are trained at one size (see `Reduction`).

    Parameters
    ----------
    nets : sequence of LinearNetwork, or NetworkStack
        B networks of the same widths, biases and dtype; they are not changed. On a GPU together with the losses, or in
        main memory.
    loss : SquaredLoss or sequence of them
        One loss for all networks, or one for each. Their data must have the same shapes, and their kind and weight
        decay must be the same.
    lr : float, (B,) array, (B, max_steps) array or callable
        One learning rate for all networks, one for each network, one for each network and step, or a function of the
        step that returns one rate or B rates. (To change one common rate from step to step, pass a function.)
    seed : int or (B,) sequence of int
        An int: all networks see the same batches.
    threads : int, optional
        How many networks are trained at the same time; default: the cores this process may use. Results do not depend
        on it.
    max_steps, rtol, batch_size, shuffle, momentum, nesterov, record, record_every
        As in `fit`.
    reduce, backend, progress, checkpoint, checkpoint_every, resume
        As in `fit`. Each network stops on its own; the others continue.

    Returns
    -------
    Ensemble

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above.

    Examples
    --------
    >>> import hesskern as hk
    >>> case = hk.datasets.two_layer_case()
    >>> nets = [hk.LinearNetwork.random([5, 100, 5], seed=seed) for seed in range(4)]
    >>> runs = hk.fit_ensemble(nets, hk.SquaredLoss(case.X, case.Y), lr=[1e-4, 2e-4, 3e-4, 1e3], max_steps=50)
    >>> [str(status) for status in runs.status]
    ['max_steps', 'max_steps', 'max_steps', 'diverged']
    >>> runs.weights[0].shape, runs.history["loss"].shape
    ((4, 100, 5), (4, 50))
    """
    nets = _networks(nets)
    losses = _losses(loss, nets)
    options = TrainingOptions(
        lr=lr, max_steps=max_steps, rtol=rtol, batch_size=batch_size, shuffle=shuffle, momentum=momentum,
        nesterov=nesterov, record=record, record_every=record_every, reduce=reduce, backend=backend,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume,
    )  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = cores if threads is None else checks.integer(threads, "threads", 1)
    progress = checks.boolean(progress, "progress")
    seeds = _seeds(seed, len(nets))
    as_ensemble = partial(_ensemble, parameter_names=nets[0].parameter_names)
    return train(options, nets, losses, seeds, ensemble=True, threads=workers, progress=progress, result=as_ensemble)


def _ensemble(group: NetworkGroup, parameter_names: tuple[str, ...]) -> Ensemble:
    weights, biases = group.layers()
    return Ensemble(
        weights=weights,
        biases=biases,
        steps=np.array(group.steps(), dtype=np.int64),
        status=np.array(group.status()),
        history=group.histories(),
        reduction=group.reduction(),
        parameter_names=parameter_names,
        execution=group.execution(),
    )


def _networks(nets: Sequence[LinearNetwork]) -> Sequence[LinearNetwork]:
    if isinstance(nets, NetworkStack):
        return nets if nets.device != "cpu" else list(nets)
    expected = "a list of at least one hesskern.LinearNetwork, or a NetworkStack"
    if isinstance(nets, LinearNetwork) or not isinstance(nets, Sequence):
        raise TypeError(f"nets is a {type(nets).__name__}; expected {expected}.")
    if len(nets) == 0:
        raise ValueError(f"nets is empty; expected {expected}.")
    for k, net in enumerate(nets):
        if not isinstance(net, LinearNetwork):
            raise TypeError(f"nets[{k}] is a {type(net).__name__}; expected a hesskern.LinearNetwork.")
        if net.device != nets[0].device:
            checks.same_kind(nets[0].weights[0], "nets[0]", net.weights[0], f"nets[{k}]")
        same_layers = net.widths == nets[0].widths and net.parameter_names == nets[0].parameter_names
        if not same_layers or net.dtype != nets[0].dtype:
            raise ValueError(
                f"nets[{k}] is {net}, but nets[0] is {nets[0]}; expected networks of one shape and dtype, "
                "with the same parameter names."
            )
    return list(nets)


def _losses(
    loss: LeastSquaresLoss | Sequence[LeastSquaresLoss], nets: Sequence[LinearNetwork]
) -> list[LeastSquaresLoss]:
    losses = [loss] if isinstance(loss, LeastSquaresLoss) else loss
    if not isinstance(losses, Sequence) or not all(isinstance(own_loss, LeastSquaresLoss) for own_loss in losses):
        raise TypeError(f"loss is a {type(loss).__name__}; expected a hesskern.SquaredLoss, or one for each network.")
    if len(losses) not in (1, len(nets)):
        raise ValueError(f"loss has {len(losses)} losses for {len(nets)} networks; expected one, or one for each.")
    for k, own_loss in enumerate(losses):
        own_loss.check_network(nets[k])
        first = losses[0]
        if _signature(own_loss) != _signature(first):
            raise ValueError(
                f"loss[{k}] is {own_loss}, but loss[0] is {first}; expected the same class, shapes, options, scale and "
                "weight decay."
            )
    return list(losses)


def _signature(loss: LeastSquaresLoss) -> object:
    """Return what the losses of an ensemble must share."""
    shapes = {name: tuple(array.shape) for name, array in loss.arrays.items()}
    return type(loss), shapes, loss.options, loss.weight_decay, loss.scale, loss.scale_per_sample


def _seeds(seed: int | Sequence[int], count: int) -> list[int]:
    if not isinstance(seed, list | tuple | range | np.ndarray) or (isinstance(seed, np.ndarray) and seed.ndim == 0):
        return [checks.seed(seed)] * count
    seeds = [checks.seed(number, f"seed[{k}]") for k, number in enumerate(checks.read(seed, "seed"))]
    if len(seeds) != count:
        raise ValueError(f"seed has {len(seeds)} numbers for {count} networks; expected one, or one for each.")
    return seeds
