"""Products with the Hessian on the device: matrix products of PyTorch, that is cuBLAS, for many vectors at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hesskern.backends.cuda.precision import full_precision
from hesskern.backends.protocol import Layers
from hesskern.problem import Data


def activations(net: Layers, X: Tensor, column: Tensor) -> list[Tensor]:
    """Return Z_0 = X, Z_1, ..., Z_L with ``Z_l = Z_{l-1} W_l.T + column b_l``."""
    weights: Sequence[Any] = net.weights
    biases: Sequence[Any] = net.biases
    found = [X]
    for weight, bias in zip(weights, biases, strict=True):
        found.append(found[-1] @ weight.T)
        if bias is not None:
            found[-1] = found[-1] + torch.outer(column, bias)
    return found


class CudaProduct:
    """The gradient ``D_l.T Z_{l-1}`` differentiated once, in k directions at the same time.

    Everything of a direction has a first index for it: (k, out, in) weights, (k, N, m) activations. A product of small
    matrices takes less time than its launches; the second product of a shape on a GPU is therefore recorded as a CUDA
    graph, and from then on replayed. Its memory is one for all: use one product on one stream at a time.
    """

    def __init__(
        self, net: Layers, data: Data, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> None:
        self._weights: Sequence[Any] = net.weights
        self._biases: Sequence[Any] = net.biases
        column: Any = data.column
        self._column: Tensor = column
        self._scale, self._decay = scale, decay
        self._gauss_newton, self._functional = gauss_newton, functional
        X: Any = data.X
        Y: Any = data.Y
        with full_precision():
            self._activations = activations(net, X, self._column)
            self._deltas = [scale * (self._activations[-1] - Y)]
            for weight in self._weights[:0:-1]:
                self._deltas.insert(0, self._deltas[0] @ weight)
        self._seen: set[int] = set()
        self._graphs: dict[int, tuple[Any, Tensor, Tensor]] = {}

    def apply(self, v: Any, out: Any) -> None:
        """Write H v into `out`; both (P,) or (P, k)."""
        directions = v.reshape(len(v), -1).T
        with full_precision():
            found = self._replayed(directions) if v.is_cuda else self._times(directions)
        out.copy_(found.T.reshape(v.shape))

    def _replayed(self, directions: Tensor) -> Tensor:
        if torch.cuda.is_current_stream_capturing():  # somebody else's graph, which cannot hold a replay of ours
            return self._times(directions)
        count = len(directions)
        if count in self._graphs:
            graph, given, result = self._graphs[count]
            given.copy_(directions)
            graph.replay()
            return result
        if count in self._seen:
            graph, given = torch.cuda.CUDAGraph(), directions.contiguous().clone()
            with torch.cuda.device(given.device):
                torch.cuda.current_stream().synchronize()
                with torch.cuda.graph(graph):
                    result = self._times(given)
                graph.replay()
            self._graphs[count] = graph, given, result
            return result
        self._seen.add(count)
        return self._times(directions)

    def _times(self, v: Tensor) -> Tensor:
        """Return the products (k, P) with the rows of `v` (k, P)."""
        column, deltas = self._column, self._deltas
        directions = self._split(v)
        moved = [torch.zeros_like(self._activations[0]).expand(len(v), -1, -1)]
        for layer, (direction, bias) in enumerate(directions):
            change = moved[-1] @ self._weights[layer].T + self._activations[layer] @ direction.mT
            moved.append(change if bias is None else change + column[:, None] * bias[:, None, :])
        delta = self._scale * moved[-1] if self._gauss_newton else torch.zeros_like(moved[-1])
        products: list[Tensor] = []
        for layer in reversed(range(len(self._weights))):
            product = delta.mT @ self._activations[layer]
            if self._functional:
                product = product + deltas[layer].T @ moved[layer]
            if self._biases[layer] is not None:
                products.append(delta.mT @ column)
            products.append(product.flatten(1))
            delta = delta @ self._weights[layer]
            if self._functional:
                delta = delta + deltas[layer] @ directions[layer][0]
        return torch.cat(products[::-1], dim=1) + self._decay * v

    def _split(self, v: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Return each layer's weights (k, out, in) and biases (k, out)."""
        parts: list[tuple[Tensor, Tensor | None]] = []
        at = 0
        for weight, bias in zip(self._weights, self._biases, strict=True):
            matrix = v[:, at : at + weight.numel()].reshape(len(v), *weight.shape)
            at += weight.numel()
            parts.append((matrix, None if bias is None else v[:, at : at + len(bias)]))
            at += 0 if bias is None else len(bias)
        return parts
