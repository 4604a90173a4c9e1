"""What a training run records: the quick things in the backend's loop, everything else between steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks
from hesskern._base.array_types import Array
from hesskern.backends.protocol import PlainLayers
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, select
from hesskern.training.reduced_network import ReducedNetwork, split

if TYPE_CHECKING:
    from hesskern.curvature.hessian import Hessian
    from hesskern.linalg.condition import Condition
    from hesskern.losses.squared import SquaredLoss

#: Of the whole network only.
PLAIN = ("loss", "batch_loss", "gradient_norm", "sharpness", "2/lr", "balance", "distance", "weights")
#: Of the whole Hessian, or of the block in brackets.
SPECTRAL = ("condition", "rank", "smallest")

#: Parameters up to which all eigenvalues cost no more than the largest.
_DENSE = 300
#: Eigenvalues below this come from products that have lost digits in subnormal numbers.
_LEAST = 1e-290

_BLOCK = re.compile(rf"({'|'.join(SPECTRAL)})(?:\[(.*)\])?")


class Records:
    """The names asked for, checked.

    Parameters
    ----------
    record : sequence of str
        See `hesskern.fit`.
    net : LinearNetwork
    minibatches : bool
    sharpness_in_loop : bool
        Whether the backend's loop can take the sharpness; it is taken between steps otherwise, and for float32.
    """

    def __init__(
        self, record: Sequence[str], net: LinearNetwork, *, minibatches: bool, sharpness_in_loop: bool = True
    ) -> None:
        if isinstance(record, str) or not isinstance(record, Sequence):
            shown = record if isinstance(record, str) and len(record) < 60 else "loss"
            raise TypeError(f'record is {checks.shown(record)}; expected a list of names, for instance ("{shown}",).')
        self.names: list[str] = []
        self.blocks: dict[str, tuple[str, tuple[Part, ...]]] = {}
        for name in record:
            self._take(name, net)
            if name == "batch_loss" and not minibatches:
                raise ValueError('record holds "batch_loss", but batch_size is None; "loss" is that of all samples.')
            if name not in self.names:
                self.names.append(name)
        if "sharpness" in self.names and "2/lr" not in self.names:
            self.names.insert(self.names.index("sharpness") + 1, "2/lr")
        # The backends' loops work in the network's own precision, which must not be that of a sharpness.
        self.sharpness_in_loop = sharpness_in_loop and "sharpness" in self.names and net.dtype == np.float64
        quick = {"loss", "batch_loss", "gradient_norm", "2/lr"} | ({"sharpness"} if self.sharpness_in_loop else set())
        self.between = [name for name in self.names if name not in quick]
        #: The shape of a record that is not one number.
        self.entries = {"weights": (net.num_parameters,), "balance": (net.depth - 1,)}

    def _take(self, name: object, net: LinearNetwork) -> None:
        found = _BLOCK.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            if not isinstance(name, str) or name not in PLAIN:
                known = ", ".join(map(repr, (*PLAIN, *SPECTRAL)))
                raise ValueError(
                    f"record holds {checks.shown(name)}; expected names of {known}; the last {len(SPECTRAL)} also of a "
                    f'block, for instance "condition[1.weight]".'
                )
            return
        params: list[int | str] | None = None
        if found[2] is not None:
            params = [int(part) if part.isdecimal() else part for part in map(str.strip, found[2].split(","))]
        try:
            self.blocks[found[0]] = found[1], select(net, params)
        except (TypeError, ValueError) as error:
            raise ValueError(f"record holds {name!r}: {error}") from error


class Recorder:
    """Measures one network between two pieces of its run, on the reduced network.

    Parameters
    ----------
    records : Records
    loss : SquaredLoss
    net : LinearNetwork
        As given by the user.
    reduced : ReducedNetwork
        What is trained in its place.
    """

    def __init__(self, records: Records, loss: SquaredLoss, net: LinearNetwork, reduced: ReducedNetwork) -> None:
        self._records, self._loss, self._net, self._reduced = records, loss, net, reduced
        self.entries = records.entries
        self._left_over = reduced.left_over()

    def measure(self, flat: Array) -> dict[str, Any]:
        """Return everything that is recorded between steps, at the small network's parameters."""
        found: dict[str, Any] = {}
        conditions: dict[tuple[Part, ...], Condition] = {}
        for name in self._records.between:
            if name == "weights":
                found[name] = self._reduced.lift(flat).flatten()
            elif name == "distance":
                found[name] = self._distance(split(self._reduced.layers, flat))
            elif name == "balance":
                found[name] = _balance(split(self._reduced.layers, flat))
            elif name == "sharpness":
                found[name] = _largest_eigenvalue(self._hessian(flat, None))
            else:
                what, parts = self._records.blocks[name]
                if parts not in conditions:
                    # A unit of zeros stands for all those outside the span: each adds the same eigenvalues.
                    conditions[parts] = self._hessian(flat, parts, tuple(self._left_over)).condition()
                if what == "condition":
                    found[name] = conditions[parts].value
                elif what == "smallest":
                    found[name] = conditions[parts].smallest if conditions[parts].rank else np.nan
                else:
                    found[name] = float(self._rank(flat, parts))
        return found

    def _distance(self, layers: PlainLayers) -> float:
        start = self._reduced.layers
        pairs = zip((*layers.weights, *layers.biases), (*start.weights, *start.biases), strict=True)
        moved = [now.astype(np.float64) - then for now, then in pairs if now is not None and then is not None]
        return float(np.sqrt(sum(float(np.vdot(each, each)) for each in moved)))

    def nothing(self) -> dict[str, Any]:
        """Return what is recorded of a network that has overflowed."""
        found: dict[str, Any] = dict.fromkeys(self._records.between, np.nan)
        found["weights"] = np.full(self._net.num_parameters, np.nan, self._net.dtype)
        found["balance"] = np.full(self._net.depth - 1, np.nan)
        return {name: found[name] for name in self._records.between}

    def _rank(self, flat: Array, parts: tuple[Part, ...]) -> int:
        """Return the rank of the network's Hessian; each unit outside the span adds as much as the first."""
        inside = self._hessian(flat, parts).rank()
        padded = {layer: self._hessian(flat, parts, (layer,)).rank() for layer in self._left_over}
        return inside + sum(units * (padded[layer] - inside) for layer, units in self._left_over.items())

    def _hessian(self, flat: Array, parts: tuple[Part, ...] | None, padded: Sequence[int] = ()) -> Hessian:
        """Return the Hessian of the small network, with one unit of zeros more in each of these hidden layers."""
        layers = split(self._reduced.layers, flat)
        weights, biases = list(layers.weights), list(layers.biases)
        for layer in padded:
            weights[layer - 1] = np.pad(weights[layer - 1], ((0, 1), (0, 0)))
            weights[layer] = np.pad(weights[layer], ((0, 0), (0, 1)))
            bias = biases[layer - 1]
            biases[layer - 1] = None if bias is None else np.append(bias, bias.dtype.type(0))
        net = LinearNetwork(weights, biases)
        from hesskern.curvature.hessian import hessian_of  # noqa: PLC0415 - loads scipy.sparse.linalg

        return hessian_of(self._loss, net, select(net, None) if parts is None else parts, "full")


def in_range(sharpness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a sharpness that products with the Hessian gave, NaN where their entries leave the range of float64."""
    size = np.abs(sharpness)
    return np.where((size < np.inf) & ((size > _LEAST) | (size == 0)), sharpness, np.nan)


def _largest_eigenvalue(hessian: Hessian) -> float:
    """Return the sharpness of a float32 network; products with float64 vectors are in float64."""
    size = hessian.shape[0]
    if size <= _DENSE:
        return float(hessian.spectrum().max)
    from scipy.sparse.linalg import LinearOperator, eigsh  # noqa: PLC0415 - `import hesskern` need not wait for it

    start = np.random.default_rng(0).standard_normal(size)
    # ARPACK takes what is small beside one for zero: the Hessian is multiplied by a power of two.
    exponent = int(np.frexp(np.abs(hessian @ start).max())[1])
    products = LinearOperator(hessian.shape, matvec=lambda v: np.ldexp(hessian @ v, -exponent), dtype=np.float64)
    value = eigsh(products, k=1, which="LA", v0=start, tol=1e-12, return_eigenvectors=False)[0]
    return float(np.ldexp(value, exponent))


def _balance(layers: PlainLayers) -> Array:
    """Return ``‖W_{l+1}.T W_{l+1} - W_l W_l.T - b_l b_l.T‖_F`` of each hidden layer, which gradient flow keeps."""
    norms = []
    for layer in range(len(layers.weights) - 1):
        lower, upper = layers.weights[layer].astype(np.float64), layers.weights[layer + 1].astype(np.float64)
        difference = upper.T @ upper - lower @ lower.T
        bias = layers.biases[layer]
        if bias is not None:
            difference -= np.outer(bias.astype(np.float64), bias.astype(np.float64))
        norms.append(float(np.linalg.norm(difference)))
    return np.array(norms)
