"""The exact reductions of a training run: the smaller network that is trained, and the transformation back.

The reductions of `hesskern.reductions` are applied in this order: inputs (the samples are reduced before, see
`hesskern.training.reduced_data`), widths, orthogonal start, rotation. Each is a `Stage`. Gradient steps with momentum
and weight decay keep every iterate in what the stages leave. So the run of the small network, transformed back, is the
run of the given network.

With weight decay, what is outside decays. All of it is multiplied by one number c. So the small network gets one more
input, which is zero for every sample, and the norm of all that is outside as a weight of it. This weight has no
gradient but its decay: it is the norm of what is outside, at every step, and the loss, the norm of the gradient and the
distance from the start are those of the network given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hesskern._base.array_types import Array, Matrix
from hesskern._base.flat_layout import join, split_as
from hesskern.backends.protocol import HostBackend, PlainLayers
from hesskern.network.linear_network import LinearNetwork
from hesskern.reductions import orthogonal_start
from hesskern.reductions.input_rank import InputStage
from hesskern.reductions.orthogonal_start import OrthogonalStart
from hesskern.reductions.widths import WidthStage, plain, reduce_widths


class Stage(Protocol):
    """One exact reduction of a network."""

    def lift(self, layers: PlainLayers, decayed: float) -> PlainLayers:
        """Return the larger network at these parameters; what is outside is `decayed` times what it was."""


class ReducedNetwork:
    """The small network that is trained instead of `net`.

    Parameters
    ----------
    net : LinearNetwork
    basis : (i, a) array, optional
        V of the inputs.
    widths : bool
        Whether hidden layers wider than their neighbours are reduced.
    """

    def __init__(self, net: LinearNetwork, *, basis: Matrix | None, widths: bool) -> None:
        self._net = net
        layers = PlainLayers(net.weights, net.biases)
        self.inputs: InputStage | None = None
        if basis is not None:
            self.inputs = InputStage.of(layers, basis)
            layers = self.inputs.reduced(layers)
        self._inner = layers  # on fewer inputs
        self.widths: list[WidthStage] = []
        if widths:
            self.widths, layers = reduce_widths(layers)
        self.start: OrthogonalStart | None = None
        self.turn: InputStage | None = None
        #: Inputs that are zero for every sample, the last ones.
        self.zero_inputs = 0
        self.layers = layers

    def keep_widths(self) -> None:
        """Train the hidden layers as they are after all."""
        self.widths, self.start, self.layers = [], None, self._inner

    def start_from(self, start: OrthogonalStart) -> None:
        """Train the network that starts from orthogonal inner layers."""
        self.start, self.layers = start, start.reduced

    def rotate(self, turn: Matrix) -> None:
        """Rotate the inputs."""
        self.turn = InputStage.of(self.layers, turn)
        self.layers = self.turn.reduced(self.layers)

    def follow_decay(self) -> None:
        """Add the input whose weight is the norm of what is outside."""
        stages = [stage for stage in (self.inputs, self.start) if stage is not None]
        column = np.zeros((len(self.layers.weights[0]), 1), self._net.dtype)
        column[0] = math.hypot(*(stage.decaying for stage in stages))
        weights = np.hstack([self.layers.weights[0], column]), *self.layers.weights[1:]
        self.zero_inputs, self.layers = 1, self.layers._replace(weights=weights)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of the small network, without what stands for all that is outside."""
        spare = self.start is not None and self.start.spare
        inputs = self.layers.weights[0].shape[1] - self.zero_inputs
        hidden = (len(weight) - spare for weight in self.layers.weights[:-1])
        return (inputs, *hidden, len(self.layers.weights[-1]))

    @property
    def reduced_layers(self) -> tuple[int, ...]:
        """Hidden layers that were wider than their neighbours, counted from 1."""
        return tuple(sorted({stage.layer + 1 for stage in self.widths}))

    def left_over(self) -> dict[int, int]:
        """Return how many units of each of these layers (counted from 1) are outside the span."""
        counts: dict[int, int] = {}
        for stage in self.widths:
            units, kept = stage.basis.shape
            counts[stage.layer + 1] = counts.get(stage.layer + 1, 0) + units - kept
        return counts

    def mixes_units(self, backend: HostBackend) -> bool:
        """Return whether hidden units are too different in size; see `HostBackend.mixes_units`."""
        if self.start is not None and self.start.mixes_units(backend):
            return True
        return any(stage.mixes_units(self._inner, backend) for stage in self.widths)

    def lift(self, flat: Array) -> LinearNetwork:
        """Return the network given at the small network's parameters.

        The change of the parameters is transformed back and added to the parameters at the start. So the result is
        exact at the start, and rounding grows only with the distance.
        """
        stages: list[Stage | None] = [self.turn, self.start, *reversed(self.widths), self.inputs]
        if not self.zero_inputs and not any(stage is not None for stage in stages):
            return self._net._with(flat)
        layers, decayed = self._split(flat)
        for stage in stages:
            if stage is not None:
                layers = stage.lift(layers, decayed)
        return self._net._with(join(layers.weights, layers.biases))

    def seen(self, flat: Array) -> PlainLayers:
        """Return the small network on all inputs, without what the loss does not see."""
        layers, _ = self._split(flat)
        for stage in (self.turn, self.inputs):
            if stage is not None:
                layers = stage.seen(layers)
        return layers

    def _split(self, flat: Array) -> tuple[PlainLayers, float]:
        """Return the small network without zero inputs, and c."""
        layers = split(self.layers, flat)
        if not self.zero_inputs:
            return layers, 1.0
        first, norm = layers.weights[0], float(self.layers.weights[0][0, -1])
        decayed = float(first[0, -1]) / norm if norm > 0 else 1.0
        return layers._replace(weights=(np.ascontiguousarray(first[:, :-1]), *layers.weights[1:])), decayed


def reduced_networks(
    nets: Sequence[LinearNetwork],
    bases: Sequence[Matrix | None],
    backend: HostBackend,
    *,
    reduce: bool,
    curvature: bool,
) -> tuple[list[ReducedNetwork], int, str]:
    """Return the networks to train instead of these, all of one shape.

    Parameters
    ----------
    nets : sequence of LinearNetwork
    bases : sequence of (i, a) arrays or None
        Of the inputs of each network.
    backend : HostBackend
    reduce : bool
        Whether widths are reduced at all.
    curvature : bool
        Whether the curvature is recorded: then an orthogonal start leaves a spare unit in every hidden layer.

    Returns
    -------
    list of ReducedNetwork
    unbalanced : int
        How many networks have hidden units of too different sizes. If any has, all keep their widths.
    reason : str
        Why widths that look reducible are not.
    """
    reduced = [ReducedNetwork(net, basis=basis, widths=reduce) for net, basis in zip(nets, bases, strict=True)]
    reason = _use_orthogonal_starts(reduced, curvature=curvature) if reduce and not reduced[0].widths else ""
    unbalanced = sum(small.mixes_units(backend) for small in reduced)
    if unbalanced:
        for small in reduced:
            small.keep_widths()
    return reduced, unbalanced, reason


def follow_decay(reduced: Sequence[ReducedNetwork]) -> None:
    """Follow what is outside the small networks, if anything is."""
    if any(small.start is not None or (small.inputs is not None and small.inputs.decaying) for small in reduced):
        for small in reduced:
            small.follow_decay()


def _use_orthogonal_starts(reduced: Sequence[ReducedNetwork], *, curvature: bool) -> str:
    """Reduce all networks if every one has orthogonal inner layers; else return why not, if that would have helped."""
    layers = [small.layers for small in reduced]
    hidden = zip(*(some.biases[:-1] for some in layers), strict=True)
    biased = [any(map(_is_nonzero, biases)) for biases in hidden]
    if not orthogonal_start.may_reduce(layers[0], biased):
        return ""
    factors = []
    for some in layers:
        found = orthogonal_start.orthogonal_factors(some)
        if isinstance(found, str):
            return f"widths not reduced: {found}"
        factors.append(found)
    for small, some, own in zip(reduced, layers, factors, strict=True):
        small.start_from(orthogonal_start.orthogonal_start(some, own, biased, spare=curvature))
    return ""


def _is_nonzero(bias: Array | None) -> bool:
    return bias is not None and bool(bias.any())


def split(layers: PlainLayers, flat: Array) -> PlainLayers:
    """Return weights and biases of these shapes over a flat vector."""
    return plain(*split_as(layers.weights, layers.biases, flat))
