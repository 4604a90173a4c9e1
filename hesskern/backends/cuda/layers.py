"""Layers of one network or of many at once, over flat vectors; the passes that both share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hesskern._base.flat_layout import FlatLayout


class TensorLayers(NamedTuple):
    """Weights (..., out, in) and biases (..., out); leading dimensions count networks or directions."""

    weights: list[Tensor]
    biases: list[Tensor | None]


def split(layout: FlatLayout, flat: Tensor) -> TensorLayers:
    """Return views of a (..., P) tensor as layers."""
    return TensorLayers(*layout.split(flat))


def activations(layers: TensorLayers, X: Tensor, column: Tensor) -> list[Tensor]:
    """Return Z_0 = X, Z_1, ..., Z_L with ``Z_l = Z_{l-1} W_l.T + column b_l``."""
    values = [X]
    for weight, bias in zip(layers.weights, layers.biases, strict=True):
        values.append(values[-1] @ weight.mT)
        if bias is not None:
            values[-1] = values[-1] + column[..., :, None] * bias[..., None, :]
    return values


def residual(layers: TensorLayers, X: Tensor, column: Tensor, Y: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the activations and ``E = prediction - Y``."""
    values = activations(layers, X, column)
    return values, values[-1] - Y


def gradient(layers: TensorLayers, values: list[Tensor], E: Tensor, column: Tensor, scale: Tensor | float) -> Tensor:
    """Return the gradient (..., P) of ``scale/2 ‖E‖²`` at these activations."""
    delta = (scale * E).to(E.dtype)
    pieces: list[Tensor] = []
    for layer in reversed(range(len(layers.weights))):
        if layers.biases[layer] is not None:
            pieces.append((delta.mT @ column[..., None]).squeeze(-1))
        pieces.append((delta.mT @ values[layer]).flatten(-2))
        delta = delta @ layers.weights[layer]
    return torch.cat(pieces[::-1], dim=-1)
