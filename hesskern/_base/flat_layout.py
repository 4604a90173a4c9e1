"""The order of a network's parameters in one vector: the order of `named_parameters()`.

Layer after layer; for each layer the weight (out, in) row by row, then the bias (out,). All conversions between
parameters and vectors use this module. Compiled kernels have the same order (`csrc/kernels/network.hpp`,
`hesskern.backends.numba_kernels.layout`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import devices
from hesskern._base.array_types import AnyArray


class Place(NamedTuple):
    """The weight or the bias of one layer."""

    layer: int
    bias: bool
    shape: tuple[int, ...]
    start: int
    stop: int


class FlatLayout(NamedTuple):
    """Which weights and biases a vector holds: all of a network, or those selected.

    Examples
    --------
    >>> layout = FlatLayout.of_widths((3, 2, 1), biases=(True, False))
    >>> layout.size
    10
    >>> [(place.layer, place.bias, place.start, place.stop) for place in layout.places()]
    [(0, False, 0, 6), (0, True, 6, 8), (1, False, 8, 10)]
    >>> weights, biases = layout.split(np.arange(10.0))
    >>> weights[1], biases
    (array([[8., 9.]]), [array([6., 7.]), None])
    """

    shapes: tuple[tuple[int, int], ...]  # (out, in) of each layer
    weights: tuple[bool, ...]  # whether the vector holds the layer's weight
    biases: tuple[bool, ...]  # whether it holds the layer's bias

    @classmethod
    def of(cls, weights: Sequence[AnyArray], biases: Sequence[AnyArray]) -> FlatLayout:
        """Return the layout of these arrays or tensors (..., out, in) and (..., out), None for no bias."""
        shapes = tuple((weight.shape[-2], weight.shape[-1]) for weight in weights)
        return cls(shapes, (True,) * len(shapes), tuple(bias is not None for bias in biases))

    @classmethod
    def of_widths(cls, widths: Sequence[int], biases: Sequence[bool]) -> FlatLayout:
        """Return the layout of a network of these widths ``(m_0, ..., m_L)``."""
        shapes = tuple((outputs, inputs) for inputs, outputs in itertools.pairwise(widths))
        return cls(shapes, (True,) * len(shapes), tuple(biases))

    def select(self, parts: Iterable[tuple[int, bool, bool]]) -> FlatLayout:
        """Return the layout of some parameters: of ``(layer, whether its weight, whether its bias)``."""
        weights, biases = [False] * len(self.shapes), [False] * len(self.shapes)
        for layer, weight, bias in parts:
            weights[layer], biases[layer] = weight, bias
        return FlatLayout(self.shapes, tuple(weights), tuple(biases))

    @property
    def widths(self) -> tuple[int, ...]:
        """``(m_0, ..., m_L)``."""
        return (self.shapes[0][1], *(outputs for outputs, _ in self.shapes))

    @property
    def size(self) -> int:
        """Number of parameters."""
        layers = zip(self.shapes, self.weights, self.biases, strict=True)
        return sum(outputs * (inputs * weight + bias) for (outputs, inputs), weight, bias in layers)

    def places(self) -> Iterator[Place]:
        """Yield what the vector holds, in order."""
        at = 0
        for layer, (outputs, inputs) in enumerate(self.shapes):
            if self.weights[layer]:
                yield Place(layer, False, (outputs, inputs), at, at + outputs * inputs)
                at += outputs * inputs
            if self.biases[layer]:
                yield Place(layer, True, (outputs,), at, at + outputs)
                at += outputs

    def split(self, vectors: AnyArray, axis: int = -1) -> tuple[list[AnyArray], list[AnyArray]]:
        """Return the weights and the biases of each layer as views of the vectors; None where one is not selected.

        Parameters
        ----------
        vectors : (..., P) or, with ``axis=0``, (P, ...) array or tensor
        axis : {-1, 0}
            Which axis counts the parameters; the others stay where they are.
        """
        before, after = (vectors.shape[:-1], ()) if axis else ((), vectors.shape[1:])
        weights: list[AnyArray] = []
        biases: list[AnyArray] = []
        at = 0
        for (outputs, inputs), weight, bias in zip(self.shapes, self.weights, self.biases, strict=True):
            for split_arrays, selected, shape in ((weights, weight, (outputs, inputs)), (biases, bias, (outputs,))):
                if not selected:
                    split_arrays.append(None)
                    continue
                end = at + math.prod(shape)
                piece = vectors[..., at:end] if axis else vectors[at:end]
                split_arrays.append(piece.reshape(*before, *shape, *after))
                at = end
        return weights, biases

    def positions(self, parts: Iterable[tuple[int, bool, bool]]) -> NDArray[np.intp] | None:
        """Return the positions of the selected parameters in this vector; None: all of them, in order."""
        selected = self.select(parts)
        if selected == self:
            return None
        pieces = [
            np.arange(start, stop)
            for layer, bias, _, start, stop in self.places()
            if (selected.biases if bias else selected.weights)[layer]
        ]
        return np.concatenate(pieces)


def count(weights: Sequence[AnyArray], biases: Sequence[AnyArray]) -> int:
    """Return how many numbers these arrays have, None for no bias."""
    return sum(map(devices.size, weights)) + sum(devices.size(bias) for bias in biases if bias is not None)


def split_as(
    weights: Sequence[AnyArray], biases: Sequence[AnyArray], vector: AnyArray
) -> tuple[list[AnyArray], list[AnyArray]]:
    """Return the weights and biases in one vector, of the shapes of these; quicker than by way of a `FlatLayout`."""
    split_weights: list[AnyArray] = []
    split_biases: list[AnyArray] = []
    at = 0
    for (outputs, inputs), bias in zip([weight.shape for weight in weights], biases, strict=True):
        end = at + outputs * inputs
        split_weights.append(vector[at:end].reshape(outputs, inputs))
        at = end if bias is None else end + outputs
        split_biases.append(None if bias is None else vector[end:at])
    return split_weights, split_biases


def join(weights: Sequence[AnyArray], biases: Sequence[AnyArray], axis: int = -1) -> AnyArray:
    """Return the vectors of these weights and biases, None for what they do not hold; the inverse of `split`.

    Parameters
    ----------
    weights, biases : sequences of arrays or tensors, or None
        (..., out, in) and (..., out); with ``axis=0`` (out, in, ...) and (out, ...).
    axis : {-1, 0}
    """
    pieces = []
    for weight, bias in zip(weights, biases, strict=True):
        if weight is not None:
            flat = weight.reshape(*weight.shape[:-2], -1) if axis else weight.reshape(-1, *weight.shape[2:])
            pieces.append(flat)
        if bias is not None:
            pieces.append(bias)
    return devices.concatenate(pieces, axis)
