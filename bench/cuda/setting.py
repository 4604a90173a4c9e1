"""A problem in tensors of the device, with its curvature in closed form: what a peer who knows the formulas writes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bench.cuda.device import Device
from bench.problems import Array


class Setting:
    """Data and weights, and the formulas of `bench.closed_form` in torch."""

    def __init__(self, device: Device, X: Array, Y: Array, weights: Sequence[Array]) -> None:
        self.device, self.torch = device, device.torch
        self.x, self.y = device.tensor(X), device.tensor(Y)
        self.weights = tuple(device.tensor(weight) for weight in weights)
        ends = np.cumsum([0, *(weight.size for weight in weights)])
        self.parts = [slice(int(a), int(b)) for a, b in pairwise(ends)]

    def loss(self, *weights: Any) -> Any:
        """Half the squared residual."""
        out = self.x
        for weight in weights:
            out = out @ weight.T
        return 0.5 * (out - self.y).square().sum()

    def pieces(self, v: Any) -> tuple[Any, ...]:
        """Return a flat vector, or a stack of them, as one tensor a layer."""
        cut = zip(self.parts, self.weights, strict=True)
        return tuple(v[..., part].reshape(*v.shape[:-1], *weight.shape) for part, weight in cut)

    def product_flat(self, v: Any) -> Any:
        """Return the product with a flat vector by forward over reverse mode."""
        func = self.torch.func
        gradient = func.grad(self.loss, argnums=tuple(range(len(self.weights))))
        found = func.jvp(gradient, self.weights, self.pieces(v))[1]
        return self.torch.cat([part.reshape(-1) for part in found])

    def passes(self) -> tuple[list[Any], list[Any]]:
        """Return each layer's input, and each layer's delta."""
        activations = [self.x]
        for weight in self.weights:
            activations.append(activations[-1] @ weight.T)
        deltas = [activations.pop() - self.y]
        for weight in self.weights[:0:-1]:
            deltas.insert(0, deltas[0] @ weight)
        return activations, deltas

    def product_closed(self, V: Any, activations: Sequence[Any], deltas: Sequence[Any]) -> Any:
        """Return the products with a stack of flat vectors, (k, P), what is fixed being given."""
        directions = self.pieces(V)
        moved: list[Any] = [None]
        for weight, direction, into in zip(self.weights, directions, activations, strict=True):
            output = into @ direction.mT
            if moved[-1] is not None:
                output = output.add_(moved[-1] @ weight.T)
            moved.append(output)
        change, found = moved[-1], list[Any]()
        for layer in reversed(range(len(self.weights))):
            product = change.mT @ activations[layer]
            if moved[layer] is not None:
                product = product.add_(deltas[layer].T @ moved[layer])
            found.insert(0, product.flatten(1))
            if layer > 0:
                change = change @ self.weights[layer] + deltas[layer] @ directions[layer]
        return self.torch.cat(found, dim=1)

    def assemble(self, out: Any) -> Any:
        """Write the dense Hessian, each pair of layers a broadcast product into its part."""
        torch, weights = self.torch, self.weights
        activations, deltas = self.passes()
        above = [torch.eye(len(weights[-1]), dtype=out.dtype, device=out.device)]
        for weight in weights[:0:-1]:
            above.insert(0, above[0] @ weight)
        for m, rows in enumerate(self.parts):
            between = torch.eye(weights[m].shape[1], dtype=out.dtype, device=out.device)
            for k in reversed(range(m + 1)):
                columns = self.parts[k]
                part = out[rows, columns]
                target = part.as_strided(
                    (*weights[m].shape, *weights[k].shape),
                    (part.stride(0) * weights[m].shape[1], part.stride(0), weights[k].shape[1], 1),
                )
                inner = activations[m].T @ activations[k]
                torch.mul((above[m].T @ above[k])[:, None, :, None], inner[:, None, :], out=target)
                if k < m:
                    residual = deltas[m].T @ activations[k]
                    target.addcmul_(between[:, :, None], residual[:, None, None, :])
                    out[columns, rows] = part.T
                    between = between @ weights[k]
        return out
