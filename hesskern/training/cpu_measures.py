"""The quantities recorded between steps of one network in main memory, measured on the reduced network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.protocol import PlainLayers
from hesskern.losses.least_squares import LeastSquaresLoss
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import select
from hesskern.reductions.orthogonal_start import OrthogonalStart
from hesskern.reductions.widths import reduce_widths
from hesskern.training.recorder import Parts, Records, Values
from hesskern.training.reduced_network import ReducedNetwork, split

if TYPE_CHECKING:
    from hesskern.curvature.hessian import Hessian
    from hesskern.curvature.reduced_problem import ExtremeEigenvalues
    from hesskern.linalg.condition import Condition

#: Parameters up to which all eigenvalues cost no more than the largest.
_DENSE = 300


class CpuMeasures:
    """One network, as `hesskern.training.recorder.MeasuredNetworks` describes it.

    Parameters
    ----------
    records : Records
    loss : LeastSquaresLoss
    net : LinearNetwork
        As given by the user.
    reduced : ReducedNetwork
        The network that is trained instead.
    """

    def __init__(self, records: Records, loss: LeastSquaresLoss, net: LinearNetwork, reduced: ReducedNetwork) -> None:
        self._records, self._loss, self._reduced = records, loss, reduced
        self._left_over, self._start = reduced.left_over(), reduced.start
        self._parameters: Array = np.empty(0)
        self._present: PlainLayers | None = None
        self._seen: PlainLayers | None = None
        self._conditions: dict[Parts, Condition | ExtremeEigenvalues] = {}
        #: What is recorded of a network that has overflowed, or has stopped.
        self.nothing: dict[str, Values] = {
            name: np.full(records.shape(name), np.nan, net.dtype if name == "weights" else np.float64)
            for name in records.between
        }

    def record(self, parameters: Array) -> dict[str, Values]:
        """Return everything that is recorded between steps, at the reduced network's parameters."""
        self._parameters, self._present, self._seen, self._conditions = parameters, None, None, {}
        with np.errstate(over="ignore", invalid="ignore"):  # on the way to a divergence
            if not np.isfinite(parameters).all():
                return self.nothing
            try:
                return {name: how(self) for name, how in self._records.between.items()}
            except (np.linalg.LinAlgError, ValueError, OverflowError):  # so large that its Hessian overflows
                return self.nothing

    @property
    def _layers(self) -> PlainLayers:
        if self._present is None:
            self._present = split(self._reduced.layers, self._parameters)
        return self._present

    def layers(self) -> PlainLayers:
        """Return weights and biases in float64."""
        layers = self._layers
        if self._reduced.inputs is not None or self._start is not None:  # what is outside counts too
            lifted = self._reduced.lift(self._parameters)
            _, layers = reduce_widths(_double(PlainLayers(lifted.weights, lifted.biases)))
        return _double(layers)

    def lifted(self) -> Array:
        """Return the parameters of the network given, flat."""
        return self._reduced.lift(self._parameters).flatten()

    def distance(self) -> float:
        """Return ``‖θ - θ_0‖``."""
        layers, start = self._layers, self._reduced.layers
        pairs = zip((*layers.weights, *layers.biases), (*start.weights, *start.biases), strict=True)
        moved = [now.astype(np.float64) - then for now, then in pairs if now is not None and then is not None]
        return float(np.sqrt(sum(float(np.vdot(change, change)) for change in moved)))

    def sharpness(self) -> float:
        """Return the largest eigenvalue of the full Hessian, of a float32 network too in float64."""
        hessian = self._hessian(None)
        if hessian.shape[0] <= _DENSE:
            return float(hessian.spectrum().max)
        return float(hessian.eigsh(1, certify=False, dense=False).values[0])

    def condition(self, parts: Parts) -> float:
        """Return the condition number of a block."""
        return self._condition(parts).value

    def smallest(self, parts: Parts) -> float:
        """Return the smallest nonzero eigenvalue of a block in absolute value."""
        condition = self._condition(parts)
        return condition.smallest if condition.rank else np.nan

    def rank(self, parts: Parts) -> int:
        """Return the rank of the given network's Hessian; each unit outside the span adds as much as the first."""
        if self._start is not None:
            return self._rank_from_orthogonal(self._start, parts)
        inside = self._hessian(parts)
        if not self._left_over:
            return inside.rank()
        counting = _Counting.of(self._hessian(parts, tuple(self._left_over)))
        rank = counting.rank(inside)
        for layer, units in self._left_over.items():
            rank += units * counting.added(inside, self._hessian(parts, (layer,)))
        return rank

    def _rank_from_orthogonal(self, start: OrthogonalStart, parts: Parts) -> int:
        with_spare, inside = self._hessian(parts), self._hessian(parts, spare=False)
        counting = _Counting.of(with_spare)
        rank = counting.rank(inside) + start.outside * counting.added(inside, with_spare)
        if self._loss.weight_decay:  # between two units outside there is nothing but the decay
            inner = sum(part.weight for part in parts if 0 < part.layer < len(self._layers.weights) - 1)
            rank += inner * (start.outside**2 - start.outside)
        return rank

    def _condition(self, parts: Parts) -> Condition | ExtremeEigenvalues:
        if parts not in self._conditions:
            # A unit of zeros stands for all those outside the span: each adds the same eigenvalues.
            hessian = self._hessian(parts, tuple(self._left_over))
            self._conditions[parts] = hessian.extremes() or hessian.condition()
        return self._conditions[parts]

    def _hessian(self, parts: Parts | None, padded: Sequence[int] = (), *, spare: bool = True) -> Hessian:
        """Return the Hessian of the reduced network on all inputs.

        With one unit of zeros more in each of the hidden layers `padded`; without the spare units of an orthogonal
        start if not `spare`.
        """
        if self._seen is None:
            self._seen = self._reduced.seen(self._parameters)
        weights, biases = list(self._seen.weights), list(self._seen.biases)
        for layer in padded:
            weights[layer - 1] = np.pad(weights[layer - 1], ((0, 1), (0, 0)))
            weights[layer] = np.pad(weights[layer], ((0, 0), (0, 1)))
            bias = biases[layer - 1]
            biases[layer - 1] = None if bias is None else np.append(bias, bias.dtype.type(0))
        if not spare:
            for layer in range(1, len(weights)):
                bias = biases[layer - 1]
                biases[layer - 1] = None if bias is None else bias[:-1]
                weights[layer - 1] = np.ascontiguousarray(weights[layer - 1][:-1])
                weights[layer] = np.ascontiguousarray(weights[layer][:, :-1])
        net = LinearNetwork(weights, biases)
        from hesskern.curvature.hessian import hessian_of  # noqa: PLC0415 - loads scipy.sparse.linalg

        return hessian_of(self._loss, net, select(net, None) if parts is None else parts, "full")


#: Rounding errors of an eigenvalue, in units of rounding times the size of the matrix.
_UNITS = 8.0


class _Counting(NamedTuple):
    """Which eigenvalues count, the same way for a Hessian and for that with one unit more."""

    zero: float  # absolute values up to this one are zero
    error: float  # how far two computations of one eigenvalue may be apart
    noise: bool  # whether the functional part is rounding noise
    shift: float

    @classmethod
    def of(cls, hessian: Hessian) -> _Counting:
        """Return how `condition` counts those of this one."""
        condition, noise = hessian.condition(), hessian.residual_is_noise
        zero = condition.tolerance * condition.largest if condition.rank else condition.tolerance
        error = max(zero, _UNITS * condition.size * float(np.finfo(np.float64).eps) * condition.largest)
        return cls(zero, error, noise, hessian.decay if noise else 0.0)

    def values(self, hessian: Hessian) -> NDArray[np.float64]:
        """Return all eigenvalues, ascending."""
        return (hessian.gauss_newton() if self.noise else hessian).spectrum().shifted(self.shift).expand()

    def rank(self, hessian: Hessian) -> int:
        """Return how many of them count."""
        return int(np.sum(np.abs(self.values(hessian)) > self.zero))

    def added(self, inside: Hessian, padded: Hessian) -> int:
        """Return how many of the eigenvalues that a unit adds count.

        The others are those of `inside`, up to rounding: each of them is taken out, so that one of them near the limit
        is not counted once for each unit.
        """
        known, count, at = self.values(inside), 0, 0
        for value in self.values(padded):
            if at < len(known) and known[at] <= value + self.error:
                at += 1
            else:
                count += abs(value) > self.zero
        return int(count)


def _double(layers: PlainLayers) -> PlainLayers:
    if layers.weights[0].dtype == np.float64:
        return layers
    weights = tuple(weight.astype(np.float64) for weight in layers.weights)
    return PlainLayers(weights, tuple(None if bias is None else bias.astype(np.float64) for bias in layers.biases))
