"""Products with the Hessian on the device: matrix products of PyTorch, that is cuBLAS, for many vectors at once."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from hesskern._base.array_types import AnyArray
from hesskern._base.flat_layout import FlatLayout
from hesskern.backends.cuda import layers
from hesskern.backends.cuda.graphs import Recorded
from hesskern.backends.cuda.layers import activations
from hesskern.backends.cuda.precision import full_precision
from hesskern.backends.data import Data
from hesskern.backends.protocol import Layers


class Linearised:
    """The gradient ``D_l.T Z_{l-1}`` at some weights, ready to be differentiated once in any direction.

    Leading dimensions, which are broadcast, count networks; directions have one more, before the last.

    Parameters
    ----------
    layout : FlatLayout
    at : layers.TensorLayers
    X, column, Y : (..., N, i), (..., N), (..., N, o) tensors
    scale, decay : float
    gauss_newton, functional : bool
        Which parts of the Hessian to include.
    """

    def __init__(
        self,
        layout: FlatLayout,
        at: layers.TensorLayers,
        X: Tensor,
        column: Tensor,
        Y: Tensor,
        *,
        scale: float,
        decay: float,
        gauss_newton: bool = True,
        functional: bool = True,
    ) -> None:
        self._layout, self._column = layout, column
        self._weights, self._biases = at
        self._scale, self._decay = scale, decay
        self._gauss_newton, self._functional = gauss_newton, functional
        with full_precision():
            self._activations = activations(at, X, column)
            self._deltas = [scale * (self._activations[-1] - Y)]
            for weight in self._weights[:0:-1]:
                self._deltas.insert(0, self._deltas[0] @ weight)

    def times(self, v: Tensor) -> Tensor:
        """Return the products with the rows of `v` (..., k, P), in the same shape."""
        column, deltas = self._column, self._deltas
        directions = layers.split(self._layout, v)
        first = self._activations[0]
        moved = [torch.zeros_like(first).expand(*v.shape[:-1], *first.shape[-2:])]
        for layer, (direction, bias) in enumerate(zip(*directions, strict=True)):
            change = moved[-1] @ self._weights[layer].mT + self._activations[layer] @ direction.mT
            moved.append(change if bias is None else change + column[..., :, None] * bias[..., None, :])
        delta = self._scale * moved[-1] if self._gauss_newton else torch.zeros_like(moved[-1])
        products: list[Tensor] = []
        for layer in reversed(range(len(self._weights))):
            product = delta.mT @ self._activations[layer]
            if self._functional:
                product = product + deltas[layer].mT @ moved[layer]
            if self._biases[layer] is not None:
                products.append((delta.mT @ column[..., None]).squeeze(-1))
            products.append(product.flatten(-2))
            delta = delta @ self._weights[layer]
            if self._functional:
                delta = delta + deltas[layer] @ directions.weights[layer]
        return torch.cat(products[::-1], dim=-1) + self._decay * v


class CudaProduct:
    """Products with one network's Hessian, in k directions at the same time.

    A product of small matrices takes less time than its launches. So the second product of a shape on a GPU is recorded
    as a CUDA graph, which later products replay. The replays share one memory: use an object on one stream at a time.
    """

    def __init__(
        self, net: Layers, data: Data, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> None:
        weights: AnyArray = net.weights
        biases: AnyArray = net.biases
        parts: AnyArray = data.X, data.column, data.Y
        self._times = Linearised(
            FlatLayout.of(weights, biases),
            layers.TensorLayers(list(weights), list(biases)),
            *parts,
            scale=scale,
            decay=decay,
            gauss_newton=gauss_newton,
            functional=functional,
        ).times
        self._counts: set[int] = set()
        self._graphs: dict[int, tuple[Recorded, Tensor]] = {}

    def apply(self, v: AnyArray, out: AnyArray) -> None:
        """Write H v into `out`; both (P,) or (P, k)."""
        directions = v.reshape(len(v), -1).T
        with full_precision():
            products = self._replayed(directions) if v.is_cuda else self._times(directions)
        out.copy_(products.T.reshape(v.shape))

    def _replayed(self, directions: Tensor) -> Tensor:
        if torch.cuda.is_current_stream_capturing():  # somebody else's graph, which cannot hold a replay of ours
            return self._times(directions)
        count = len(directions)
        if count in self._graphs:
            graph, recorded_input = self._graphs[count]
            recorded_input.copy_(directions)
            graph.replay()
            product: Tensor = graph.result
            return product
        if count in self._counts:
            recorded_input = directions.contiguous().clone()
            graph = Recorded(partial(self._times, recorded_input), recorded_input.device)
            graph.replay()
            self._graphs[count] = graph, recorded_input
            result: Tensor = graph.result
            return result
        self._counts.add(count)
        return self._times(directions)
