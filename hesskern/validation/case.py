"""One problem to validate: a network with its data, in float64 for the witnesses, and the ways to train it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hesskern._base.cached import cached_property
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """A few steps of ``torch.optim.SGD``."""

    name: str
    lr: float
    steps: int
    momentum: float = 0.0
    nesterov: bool = False
    decay: float = 0.0
    batch_size: int | None = None
    seed: int = 7

    def batches(self, samples: int) -> Iterator[slice | NDArray[np.intp]]:
        """Yield the samples of each step, as docs/conventions.md defines them, without the code that is checked."""
        step = epoch = 0
        while step < self.steps:
            if self.batch_size is None:
                yield slice(None)
                step += 1
                continue
            order = np.random.default_rng([self.seed, epoch]).permutation(samples)
            for start in range(0, min(samples, self.batch_size * (self.steps - step)), self.batch_size):
                yield order[start : start + self.batch_size]
                step += 1
            epoch += 1


class Trajectory:
    """Parameters before each step and after the last, (steps + 1, P), and the loss of all samples before each."""

    def __init__(self, thetas: Sequence[Matrix], losses: Sequence[float]) -> None:
        self.thetas, self.losses = np.array(thetas), np.array(losses)


class ValidationCase:
    """A network and its loss, with the same numbers in float64 for the witnesses.

    Every float32 number is a float64 number, so nothing is rounded: the witnesses differentiate the same function as
    hesskern, more precisely than float32 could.
    """

    def __init__(self, name: str, net: LinearNetwork, loss: SquaredLoss) -> None:
        self.name, self.net, self.loss = name, net, loss
        self.weights: list[Matrix] = [weight.astype(np.float64) for weight in net.weights]
        self.biases = [None if bias is None else bias.astype(np.float64) for bias in net.biases]
        self.X: Matrix = loss.X.astype(np.float64)
        self.Y: Matrix = loss.Y.astype(np.float64)
        self.kind, self.decay = loss.kind, loss.weight_decay
        self.size, self.samples = net.num_parameters, len(self.X)

    @cached_property
    def theta(self) -> Matrix:
        """All parameters, flat."""
        return self.net.flatten().astype(np.float64)

    @property
    def unit(self) -> float:
        """Rounding unit of hesskern's results: half the distance from 1 to the next number of the network's dtype."""
        return float(np.finfo(self.net.dtype).eps) / 2

    @property
    def work(self) -> int:
        """Multiply-adds of one pass of the samples through the layers."""
        return self.samples * sum(weight.size for weight in self.weights)

    @cached_property
    def names(self) -> dict[str, slice]:
        """The position of each parameter in the flat vector."""
        slices, at = {}, 0
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            slices[f"{layer}.weight"] = slice(at, at + weight.size)
            at += weight.size
            if bias is not None:
                slices[f"{layer}.bias"] = slice(at, at + bias.size)
                at += bias.size
        return slices

    @cached_property
    def layers(self) -> list[slice]:
        """The position of each layer's parameters in the flat vector."""
        slices = []
        for layer in range(len(self.weights)):
            own = [where for name, where in self.names.items() if name.startswith(f"{layer}.")]
            slices.append(slice(own[0].start, own[-1].stop))
        return slices

    def parameter(self, position: int) -> str:
        """Return the name of an entry of the flat vector, ``0.weight[2,1]``."""
        name, where = next((n, w) for n, w in self.names.items() if w.start <= position < w.stop)
        layer, kind = name.split(".")
        if kind == "bias":
            return f"{name}[{position - where.start}]"
        row, column = divmod(position - where.start, self.weights[int(layer)].shape[1])
        return f"{name}[{row},{column}]"

    def with_loss(self, kind: str, decay: float) -> ValidationCase:
        """Return the same network and data with another kind of loss."""
        return ValidationCase(self.name, self.net, SquaredLoss(self.loss.X, self.loss.Y, kind, decay))

    def __str__(self) -> str:
        widths = "-".join(map(str, self.net.widths))
        bias = (
            "biases" if all(b is not None for b in self.biases) else "some biases" if self.net.has_bias else "no bias"
        )
        decay = f", weight decay {self.decay:g}" if self.decay else ""
        return f"{widths}, {bias}, N = {self.samples}, {self.kind}{decay}, {self.net.dtype}"
