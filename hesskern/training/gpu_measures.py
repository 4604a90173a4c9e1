"""The quantities recorded between steps of networks on a GPU, of all of them at once where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hesskern._base import devices
from hesskern._base.flat_layout import join
from hesskern._base.interrupt import Interruption
from hesskern.backends.cuda.batched_curvature import Rows
from hesskern.backends.cuda.batched_width_reduction import ReducedStack
from hesskern.backends.cuda.descents import Descents
from hesskern.backends.cuda.layers import TensorLayers
from hesskern.backends.cuda.operations import CudaBackend
from hesskern.backends.cuda.state import RUNNING
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, part_size
from hesskern.training.recorder import Column, Parts, Records, Values, in_range

if TYPE_CHECKING:
    from torch import Tensor


class GpuMeasures:
    """All networks, as `hesskern.training.recorder.MeasuredNetworks` describes them.

    Parameters
    ----------
    records : Records
    net : LinearNetwork
        The first of the networks given, for its shape.
    losses : sequence of LeastSquaresLoss
        One for each network, or one for all.
    backend : CudaBackend
    descents : Descents
    small : ReducedStack
        The networks that are trained instead.
    data : Rows
        All data, float64.
    """

    def __init__(
        self,
        records: Records,
        net: LinearNetwork,
        losses: Sequence[LeastSquaresLoss],
        backend: CudaBackend,
        descents: Descents,
        small: ReducedStack,
        data: Rows,
    ) -> None:
        self._records, self._net, self._losses, self._backend = records, net, losses, backend
        self._descents, self._small, self._data = descents, small, data
        self._start = descents.states.parameters.clone() if "distance" in records.between else None
        #: Of the present networks, what is known of each block: by its parts and by the quantity.
        self._blocks: dict[Parts, dict[str, Column]] = {}

    def record(self, interruption: Interruption) -> dict[str, NDArray[np.floating]] | None:
        """Return everything that is recorded between steps; None after Ctrl-C.

        Of a network that has stopped the values are anything.
        """
        self._blocks = {}
        values: dict[str, NDArray[np.floating]] = {}
        for name, how in self._records.between.items():
            if interruption.requested:
                return None
            values[name] = np.asarray(devices.to_host(how(self)))
        return values

    def layers(self) -> TensorLayers:
        """Return weights and biases of the reduced networks in float64."""
        weights, biases = self._descents.layers()
        return TensorLayers(
            [weight.double() for weight in weights], [None if bias is None else bias.double() for bias in biases]
        )

    def lifted(self) -> Tensor:
        """Return the parameters of the networks given, (networks, P)."""
        lifted: Tensor = join(*self._small.lift(self._descents.layers()))
        return lifted

    def distance(self) -> Values:
        """Return ``‖θ - θ_0‖`` of each network."""
        assert self._start is not None
        change = self._descents.states.parameters.double() - self._start.double()
        return devices.to_host(change.norm(dim=1))

    def sharpness(self) -> Values:
        """Return the largest eigenvalue of each network's Hessian."""
        descents = self._descents
        largest = self._backend.sharpness(
            descents.layout,
            descents.states.parameters.double(),
            self._data,
            scale=descents.problem.scale,
            decay=descents.problem.update.decay,
        )
        return in_range(devices.to_host(largest))

    def condition(self, parts: Parts) -> Column:
        """Return the condition number of each network's block."""
        return self._block(parts)["condition"]

    def smallest(self, parts: Parts) -> Column:
        """Return the smallest nonzero eigenvalue of each network's block, in absolute value."""
        return self._block(parts)["smallest"]

    def rank(self, parts: Parts) -> Column:
        """Return the rank of each network's block."""
        return self._block(parts)["rank"]

    def _block(self, parts: Parts) -> dict[str, Column]:
        """Return condition number, smallest nonzero eigenvalue and rank of each network's block, if asked for.

        One layer's block comes from its factors on the device. If these are so badly conditioned that their singular
        values would have fewer than about nine right digits, and for several layers, `Hessian.condition` computes the
        numbers on the CPU, one network after another.
        """
        if parts in self._blocks:
            return self._blocks[parts]
        states = self._descents.states
        columns = {name: np.full(len(states.parameters), np.nan) for name in ("condition", "smallest", "rank")}
        unfinished = devices.to_host(states.status == RUNNING)
        if len(parts) == 1:
            unfinished = unfinished & ~self._on_device(parts[0], columns)
        weights, biases = self._small.lift(self._descents.layers())
        unfinished = unfinished & devices.to_host(states.parameters.isfinite().all(1))
        quantities = {name for name, block in self._records.blocks.values() if block == parts}
        for k in np.flatnonzero(unfinished):
            own_weights = [devices.to_host(weight[k]) for weight in weights]
            if all(np.isfinite(weight).all() for weight in own_weights):  # lifting may overflow
                own_biases = [None if bias is None else devices.to_host(bias[k]) for bias in biases]
                self._on_cpu(LinearNetwork(own_weights, own_biases), int(k), parts, quantities, columns)
        self._blocks[parts] = columns
        return columns

    def _on_device(self, part: Part, columns: dict[str, Column]) -> NDArray[np.bool_]:
        """Fill in what can be known on the device; return of which networks."""
        descents = self._descents
        decay = descents.problem.update.decay
        extremes = self._backend.block(
            descents.layout,
            descents.states.parameters.double(),
            self._data,
            scale=descents.problem.scale,
            layer=part.layer,
            parts=(part.weight, part.bias),
        )
        largest, smallest, rank, trusted = map(devices.to_host, extremes)
        size = part_size(self._net, part)
        with np.errstate(all="ignore"):
            if decay:  # eigenvalues that were zero are the decay
                smallest = np.where(rank == size, smallest, 0.0) + decay
                rank = np.full_like(rank, size)
            columns["condition"][trusted] = ((largest + decay) / smallest)[trusted]
        columns["smallest"][trusted] = smallest[trusted]
        columns["rank"][trusted] = rank[trusted]
        return trusted

    def _on_cpu(
        self, net: LinearNetwork, index: int, parts: Parts, quantities: set[str], columns: dict[str, Column]
    ) -> None:
        from hesskern.curvature.hessian import hessian_of  # noqa: PLC0415 - loads scipy.sparse.linalg

        loss = self._losses[index if len(self._losses) > 1 else 0].cpu()
        with np.errstate(over="ignore", invalid="ignore"):  # on the way to a divergence
            try:
                hessian = hessian_of(loss, net, parts, "full")
                if quantities & {"condition", "smallest"}:
                    condition = hessian.condition()
                    columns["condition"][index] = condition.value
                    columns["smallest"][index] = condition.smallest if condition.rank else np.nan
                if "rank" in quantities:
                    columns["rank"][index] = hessian.rank()
            except (np.linalg.LinAlgError, ValueError, OverflowError):  # so large that its Hessian overflows
                return
