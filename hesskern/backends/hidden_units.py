"""The weights around a hidden layer, one row for each unit; an orthogonal change of units multiplies them.

For a hidden layer l with h units, ``S = [W_l, b_l, W_{l+1}.T]`` (h, touching). The prediction depends on products of
columns of S only, so ``Q.T S`` gives the same function for any orthogonal Q (h, h). With the thin QR ``S = Q R``, a
layer of more units than weights that touch each of them becomes the smaller layer R. All reductions of width use these
functions. They take arrays, and tensors with leading dimensions for many networks.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Protocol

import numpy as np

from hesskern._base import devices
from hesskern._base.array_types import AnyArray

#: A stack of lower rank has a pivot of the size of rounding errors times its condition, whatever its order of rows.
LOWER_RANK = 1e-8


class AnyLayers(Protocol):
    """Weights (..., out, in) and biases (..., out), arrays or tensors."""

    @property
    def weights(self) -> Sequence[AnyArray]: ...  # noqa: D102
    @property
    def biases(self) -> Sequence[AnyArray]: ...  # noqa: D102


def reducible(net: AnyLayers, selected: Container[int] | None = None) -> list[int]:
    """Return the layers with more outputs than weights that touch each of them.

    No two of them are neighbours, and reducing one neither makes another nor takes one away.

    Parameters
    ----------
    net : AnyLayers
    selected : container of int, optional
        Layers of which one must touch those outputs. If no selected layer touches a hidden layer, curvature depends
        only on the product of the weights on both sides, and a reduction would leave out no parameter.
    """
    layers = []
    for layer in range(len(net.weights) - 1):
        touched = selected is None or layer in selected or layer + 1 in selected
        bias = net.biases[layer] is not None
        units, inputs = net.weights[layer].shape[-2:]
        if touched and units > inputs + bias + net.weights[layer + 1].shape[-2]:
            layers.append(layer)
    return layers


def stacked(net: AnyLayers, layer: int) -> AnyArray:
    """Return ``[W_l, b_l, W_{l+1}.T]`` (..., units, touching) in float64, arrays in Fortran order for LAPACK."""
    weight, bias, upper = net.weights[layer], net.biases[layer], net.weights[layer + 1]
    middle = [] if bias is None else [bias[..., None]]
    if not isinstance(weight, np.ndarray):
        return devices.concatenate([weight, *middle, upper.mT], -1).double()
    columns = np.concatenate([part.T for part in (weight, *middle, upper.T)])
    return columns.astype(np.float64, copy=False).T


def replaced(net: AnyLayers, layer: int, stack: AnyArray) -> tuple[list[AnyArray], list[AnyArray]]:
    """Return the weights and biases with this stack around a hidden layer, in the network's dtype."""
    weights, biases = list(net.weights), list(net.biases)
    inputs, outputs = weights[layer].shape[-1], weights[layer + 1].shape[-2]
    below, above = stack[..., :inputs], stack[..., stack.shape[-1] - outputs :].mT
    if isinstance(stack, np.ndarray):  # the short way: training lifts small networks
        dtype = weights[layer].dtype
        weights[layer], weights[layer + 1] = np.ascontiguousarray(below, dtype), np.ascontiguousarray(above, dtype)
    else:
        dtype = devices.numpy_dtype(weights[layer])
        weights[layer], weights[layer + 1] = devices.converted(below, dtype), devices.converted(above, dtype)
    if biases[layer] is not None:
        biases[layer] = devices.converted(stack[..., inputs], dtype)
    return weights, biases
