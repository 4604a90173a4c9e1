"""The selection of the parameters that a Hessian is taken with respect to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks
from hesskern._base.flat_layout import FlatLayout, Place
from hesskern._base.formatting import shortened
from hesskern.network.linear_network import LinearNetwork


class Part(NamedTuple):
    """The selected parameters of one layer."""

    layer: int
    weight: bool
    bias: bool


def select(net: LinearNetwork, params: Sequence[int | str] | None) -> tuple[Part, ...]:
    """Return the selected parameters, in `named_parameters()` order.

    Parameters
    ----------
    net : LinearNetwork
    params : sequence of int or str, or None
        Layer numbers (0-based, all parameters of the layer) or names ("1.weight", as in ``net.parameter_names``);
        None: all parameters.
    """
    if params is None:
        return tuple(Part(layer, True, bias is not None) for layer, bias in enumerate(net.biases))
    if isinstance(params, np.ndarray) and params.ndim == 1:
        params = list(params)
    expected = "a list of layer numbers or parameter names, for instance [1]"
    if isinstance(params, str | bytes | memoryview) or not isinstance(params, Sequence):
        raise TypeError(f"params is {checks.shown(params)}; expected {expected}.")
    if len(params) == 0:
        raise ValueError(f"params is empty; expected {expected}.")
    weights: set[int] = set()  # layers whose weights are selected
    biases: set[int] = set()  # layers whose biases are selected
    by_name: dict[str, Place] = {}
    for entry in params:
        if isinstance(entry, str):
            by_name = by_name or places(net)
            if entry not in by_name:
                raise ValueError(f"params holds {entry!r}; the network has {', '.join(by_name)}.")
            (biases if by_name[entry].bias else weights).add(by_name[entry].layer)
            continue
        number = checks.integer(entry, "params", -(2**63))
        if not 0 <= number < net.depth:
            raise ValueError(f"params holds layer {number}; layers are counted from 0 to {net.depth - 1}.")
        weights.add(number)
        if net.biases[number] is not None:
            biases.add(number)
    return tuple(Part(layer, layer in weights, layer in biases) for layer in sorted(weights | biases))


def places(net: LinearNetwork) -> dict[str, Place]:
    """Return the place of each parameter by its name, in `named_parameters()` order."""
    layout = FlatLayout.of(net.weights, net.biases)
    return dict(zip(net.parameter_names, layout.places(), strict=True))


def positions(net: LinearNetwork, parts: Sequence[Part]) -> NDArray[np.intp] | None:
    """Return the indices of the selected parameters in ``net.flatten()``; None: all of them, in order."""
    return FlatLayout.of(net.weights, net.biases).positions(parts)


def part_size(net: LinearNetwork, part: Part) -> int:
    """Return the number of parameters of a part."""
    outputs, inputs = net.weights[part.layer].shape
    size: int = outputs * (inputs * part.weight + part.bias)
    return size


def parts_in_words(net: LinearNetwork, parts: Sequence[Part]) -> str:
    """Return "layer 1", "layers 0, 2", or names if a layer is selected only in part."""
    if all(part.weight and (part.bias or net.biases[part.layer] is None) for part in parts):
        layers = [part.layer for part in parts]
        return f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(shortened(layers))}"
    selected = [(part.layer, name) for part in parts for name in ("weight", "bias") if getattr(part, name)]
    return ", ".join(shortened([f"{layer}.{name}" for layer, name in selected]))
