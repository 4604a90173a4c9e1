"""Layers of one network or of many at once, over flat vectors; the passes that both share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Layers(NamedTuple):
    """Weights (..., out, in) and biases (..., out); leading dimensions count networks or directions."""

    weights: list[Tensor]
    biases: list[Tensor | None]


class Shapes(NamedTuple):
    """What a flat vector of parameters is made of, in `named_parameters()` order."""

    widths: tuple[int, ...]
    has_bias: tuple[bool, ...]

    @property
    def size(self) -> int:
        """Number of parameters."""
        pairs = zip(self.widths[:-1], self.widths[1:], self.has_bias, strict=True)
        return sum(out * (into + bias) for into, out, bias in pairs)

    def split(self, flat: Tensor) -> Layers:
        """Return views of a (..., P) tensor as layers."""
        weights: list[Tensor] = []
        biases: list[Tensor | None] = []
        at = 0
        for into, out, bias in zip(self.widths[:-1], self.widths[1:], self.has_bias, strict=True):
            weights.append(flat[..., at : at + out * into].reshape(*flat.shape[:-1], out, into))
            at += out * into
            biases.append(flat[..., at : at + out] if bias else None)
            at += out * bias
        return Layers(weights, biases)


def shapes(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Shapes:
    """Return the shapes of layers, whatever their leading dimensions."""
    widths = (weights[0].shape[-1], *(weight.shape[-2] for weight in weights))
    return Shapes(widths, tuple(bias is not None for bias in biases))


def flat(layers: Layers) -> Tensor:
    """Return all parameters of networks, (networks, P)."""
    pieces: list[Tensor] = []
    for weight, bias in zip(layers.weights, layers.biases, strict=True):
        pieces.append(weight.flatten(-2))
        if bias is not None:
            pieces.append(bias)
    return torch.cat(pieces, dim=-1)


def activations(layers: Layers, X: Tensor, column: Tensor) -> list[Tensor]:
    """Return Z_0 = X, Z_1, ..., Z_L with ``Z_l = Z_{l-1} W_l.T + column b_l``."""
    found = [X]
    for weight, bias in zip(layers.weights, layers.biases, strict=True):
        found.append(found[-1] @ weight.mT)
        if bias is not None:
            found[-1] = found[-1] + column[..., :, None] * bias[..., None, :]
    return found


def residual(layers: Layers, X: Tensor, column: Tensor, Y: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the activations and ``E = prediction - Y``."""
    values = activations(layers, X, column)
    return values, values[-1] - Y


def gradient(layers: Layers, values: list[Tensor], E: Tensor, column: Tensor, scale: Tensor | float) -> Tensor:
    """Return the gradient (..., P) of ``scale/2 ‖E‖²`` at these activations."""
    delta = (scale * E).to(E.dtype)
    pieces: list[Tensor] = []
    for layer in reversed(range(len(layers.weights))):
        if layers.biases[layer] is not None:
            pieces.append((delta.mT @ column[..., None]).squeeze(-1))
        pieces.append((delta.mT @ values[layer]).flatten(-2))
        delta = delta @ layers.weights[layer]
    return torch.cat(pieces[::-1], dim=-1)
