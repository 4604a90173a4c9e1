"""The data of a run's losses after the reductions of samples and inputs, and rotated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hesskern._base.array_types import Matrix
from hesskern.backends.data import Data
from hesskern.backends.protocol import HostBackend
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.reductions import rotation
from hesskern.reductions.input_rank import RowSpan, mixes_inputs, sees_what_is_left_out
from hesskern.reductions.samples import reduce_samples
from hesskern.training.options import TrainingOptions
from hesskern.training.recorder import Records
from hesskern.training.reduced_network import ReducedNetwork


class RunData(NamedTuple):
    """The data of one loss."""

    full: Data  # of the loss of all samples
    batches: Data | None  # the samples that minibatches are taken from
    basis: Matrix | None  # V of the inputs, (i, a); None: the inputs as given

    def with_zero_inputs(self, count: int) -> RunData:
        """Return the data with inputs more that are zero for every sample."""
        if count == 0:
            return self
        batches = None if self.batches is None else _padded(self.batches, count)
        return self._replace(full=_padded(self.full, count), batches=batches)


class ReducedInputs(NamedTuple):
    """The data of all losses, and why the inputs are as given although they look reducible."""

    data: list[RunData]
    reason: str


def reduced_inputs(
    options: TrainingOptions,
    losses: Sequence[LeastSquaresLoss],
    networks: Sequence[LinearNetwork],
    records: Records,
    backend: HostBackend,
) -> ReducedInputs:
    """Return the data on which the networks are trained, all of one shape.

    The inputs are reduced for all networks or for none.
    """
    bias = networks[0].has_bias
    given = [RunData(*options.data(loss, records, bias), None) for loss in losses]
    if options.reduce == "none":
        return ReducedInputs(given, "")
    spans = [_span(loss, data, bias) for loss, data in zip(losses, given, strict=True)]
    reasons = [span.reason for span in spans if span.reason]
    reason = f"inputs not reduced: {reasons[0]}" if reasons else ""
    if len({span.rank for span in spans}) > 1:
        return ReducedInputs(given, reason or "inputs not reduced: the data of the networks have different ranks")
    if spans[0].rank is None:
        return ReducedInputs(given, reason)
    few = losses[0].X.shape[0] < losses[0].X.shape[1]
    for k, net in enumerate(networks):
        own = k if len(losses) > 1 else 0
        X = losses[own].rows().X if few else given[own].full.X
        if spans[own].mixes and mixes_inputs(X, net.weights[0], samples=few):
            mixing = "inputs not reduced: the weights of the inputs differ by orders of magnitude"
            return ReducedInputs(given, mixing)
        basis = spans[own].basis
        if not few and basis is not None and sees_what_is_left_out(X, net.weights[0], basis):
            seen = "inputs not reduced: the weights are large where the data are almost dependent"
            return ReducedInputs(given, seen)
    reduced = [
        RunData(
            _on_basis(data.full, span.basis, bias, backend),
            None if data.batches is None else _coordinates(data.batches, span.basis),
            span.basis,
        )
        for data, span in zip(given, spans, strict=True)
        if span.basis is not None
    ]
    return ReducedInputs(reduced, reason)


def rotate(
    options: TrainingOptions,
    losses: Sequence[LeastSquaresLoss],
    data: list[RunData],
    reduced: Sequence[ReducedNetwork],
) -> list[RunData]:
    """Rotate the data of all losses and all networks, or nothing; return the data."""
    small, (rows, inputs) = reduced[0], data[0].full.X.shape
    if options.reduce == "none" or options.batch_size is not None or inputs < rotation.FEWEST:
        return data
    bias = any(bias is not None for bias in small.layers.biases)
    if not rotation.pays(small.sizes, rows, bias=bias):
        return data
    rotations = []
    for loss, own in zip(losses, data, strict=True):
        turned = rotation.rotated(own.full, mixed=len(own.full.X) < len(loss.X))
        if turned is None:
            return data
        rotations.append(turned)
    of_networks = rotations if len(rotations) > 1 else rotations * len(reduced)
    of_data = data if len(data) > 1 else data * len(reduced)
    for network, own in zip(reduced, of_data, strict=True):
        if mixes_inputs(own.full.X, network.layers.weights[0], samples=False):
            return data
    for network, turned in zip(reduced, of_networks, strict=True):
        network.rotate(turned.turn)
    return [
        own._replace(full=turned.data.astype(own.full.X.dtype)) for own, turned in zip(data, rotations, strict=True)
    ]


def _span(loss: LeastSquaresLoss, data: RunData, bias: bool) -> RowSpan:
    """Return the space of the rows of X; with minibatches only where that takes no pass over many samples."""
    if len(loss.X) < loss.X.shape[1] or data.batches is None or len(data.full.X) > 1:
        return loss.row_span(bias=bias)
    return RowSpan(None)


def _on_basis(data: Data, basis: Matrix, bias: bool, backend: HostBackend) -> Data:
    """Return the data on coordinates of its inputs, with no more rows than these."""
    moved = _coordinates(data, basis)
    if len(moved.X) <= basis.shape[1] + bias:
        return moved
    fewer = reduce_samples(moved, bias=bias, triangular_factor=backend.triangular_factor)
    return fewer._replace(constant=fewer.constant + data.constant).astype(data.X.dtype)


def _coordinates(data: Data, basis: Matrix) -> Data:
    return data._replace(X=np.ascontiguousarray(data.X.astype(np.float64) @ basis, data.X.dtype))


def _padded(data: Data, count: int) -> Data:
    """Return the data with inputs more that are zero."""
    return data._replace(X=np.pad(data.X, ((0, 0), (0, count))))
