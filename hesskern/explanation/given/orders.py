"""Orders of the parameters that somebody may have used: permutations of the rows and columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.given.causes import Cause
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part

#: Layers up to which every subset of them is tried with its columns stacked.
_SUBSETS = 4


class Tensor(NamedTuple):
    """A weight or bias and its place in the vector of the parameters."""

    layer: int
    name: str  # "weight" or "bias"
    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + math.prod(self.shape)

    @property
    def full_name(self) -> str:
        """The name in `named_parameters()`."""
        return f"{self.layer}.{self.name}"


class Order(NamedTuple):
    """Entry k of their vector is entry ``source[k]`` of ours (None: the same)."""

    causes: tuple[Cause, ...]
    source: NDArray[np.intp] | None


def tensors(net: LinearNetwork, parts: Sequence[Part]) -> tuple[Tensor, ...]:
    """Return the selected weights and biases in `named_parameters()` order."""
    selected: list[Tensor] = []
    at = 0
    for part in parts:
        shape = net.weights[part.layer].shape
        for name, is_selected, size in (("weight", part.weight, shape), ("bias", part.bias, shape[:1])):
            if is_selected:
                selected.append(Tensor(part.layer, name, at, size))
                at = selected[-1].stop
    return tuple(selected)


def column_order(tensor: Tensor) -> NDArray[np.intp]:
    """Return the order that stacks the columns of a weight."""
    index = np.arange(tensor.start, tensor.stop)
    return index.reshape(tensor.shape).T.ravel() if len(tensor.shape) == 2 else index


def orders(selected: Sequence[Tensor]) -> list[Order]:
    """Return the orders to try, the usual one first, each permutation once."""
    kept: dict[bytes, Order] = {}
    for arrangement, moved in _arrangements(selected):
        for columns, stacked in _stackings(selected):
            if not moved and not stacked:
                kept[_key(np.concatenate([np.arange(t.start, t.stop) for t in selected]))] = Order((), None)
                continue
            index = _index(arrangement, columns)
            if index is None:
                continue
            causes = tuple(filter(None, (moved, stacked)))
            key = _key(index)
            if key not in kept:
                kept[key] = Order(causes, index)
            elif len(kept[key].causes) == 1 == len(causes):
                first = kept[key].causes[0]
                words = causes[0].words
                merged = Cause(first.key, first.words, first.fix, (*first.also, words), first.cost)
                kept[key] = Order((merged,), index)
    return sorted(kept.values(), key=lambda order: len(order.causes))


def _key(index: NDArray[np.intp]) -> bytes:
    return index.tobytes()


def _index(arrangement: Sequence[Tensor | tuple[Tensor, Tensor]], columns: frozenset[int]) -> NDArray[np.intp] | None:
    pieces: list[NDArray[np.intp]] = []
    for item in arrangement:
        if isinstance(item, Tensor):
            stacked = item.layer in columns
            pieces.append(column_order(item) if stacked else np.arange(item.start, item.stop))
            continue
        weight, bias = item
        if weight.layer in columns:
            return None  # columns of [W b]: the weight's columns, then the bias, which is an order of its own already
        both = [np.arange(weight.start, weight.stop).reshape(weight.shape), np.arange(bias.start, bias.stop)[:, None]]
        pieces.append(np.hstack(both).ravel())
    return np.concatenate(pieces)


def _stackings(selected: Sequence[Tensor]) -> list[tuple[frozenset[int], Cause | None]]:
    """Return the sets of layers whose columns may be stacked; none first, then all."""
    weights = [t for t in selected if t.name == "weight" and min(t.shape) > 1]
    layers = [t.layer for t in weights]
    result: list[tuple[frozenset[int], Cause | None]] = [(frozenset(), None)]
    sizes = range(len(layers) - 1, 0, -1) if len(layers) <= _SUBSETS else [1]
    subsets = [tuple(layers)] if layers else []
    subsets += [subset for size in sizes for subset in itertools.combinations(layers, size)]
    for subset in subsets:
        whole = len(subset) == len(layers)
        names = ", ".join(f"W{layer + 1}" for layer in subset)
        also = [f"{names} stored as (in, out) and flattened row after row"]
        if len({t.layer for t in selected}) == 1:
            also.append("the factors of the Kronecker product exchanged (numpy.kron(B, A) for numpy.kron(A, B))")
        result.append(
            (
                frozenset(subset),
                Cause(
                    "vec-column" if whole else f"vec-column[{','.join(map(str, subset))}]",
                    f"vec stacks the columns of {names}, where nn.Linear's order stacks the rows",
                    _fix_columns(subset, selected),
                    tuple(also),
                ),
            )
        )
    return result


def _fix_columns(subset: Sequence[int], selected: Sequence[Tensor]) -> str:
    if len({t.layer for t in selected}) == 1:
        return (
            "numpy.kron(B.T @ B, A) with the output factor first (B the weights above the layer, A its input's Gram "
            f'matrix): W{subset[0] + 1}.reshape(-1) goes row after row; or compare with H.toarray(vec="column")'
        )
    flat = ", ".join(f"W{layer + 1}.reshape(-1)" for layer in subset)
    return f'flatten row after row, {flat} (order="C"), or compare with H.toarray(vec="column")'


Arrangement = Sequence[Tensor | tuple[Tensor, Tensor]]


def _arrangements(selected: Sequence[Tensor]) -> list[tuple[Arrangement, Cause | None]]:
    result: list[tuple[Arrangement, Cause | None]] = [(selected, None)]
    order = "numpy.concatenate([W1.reshape(-1), b1, W2.reshape(-1), b2, ...]), the order of named_parameters()"
    if "bias" not in {t.name for t in selected}:
        order = order.replace("b1, ", "").replace("b2, ", "")
    layers = sorted({t.layer for t in selected})
    by_layer = {layer: [t for t in selected if t.layer == layer] for layer in layers}
    weights, biases = [t for t in selected if t.name == "weight"], [t for t in selected if t.name == "bias"]

    def add(key: str, words: str, arrangement: Arrangement) -> None:
        result.append((arrangement, Cause(key, words, f"concatenate the parameters as {order}")))

    if len(layers) > 1:
        turned = [t for layer in reversed(layers) for t in by_layer[layer]]
        add("layers-reversed", "the layers are in reversed order, the last one first", turned)
    if weights and biases:
        if len(layers) > 1:
            add("all-reversed", "all parameters are in reversed order, the last bias first", list(reversed(selected)))
        add("biases-first", "all biases come before all weights", [*biases, *weights])
        add("biases-last", "all biases come after all weights", [*weights, *biases])
        before = [t for layer in layers for t in reversed(by_layer[layer])]
        add("bias-before-weight", "each bias comes before its weight", before)
        beside: list[Tensor | tuple[Tensor, Tensor]] = []
        for layer in layers:
            pair = by_layer[layer]
            beside += [(pair[0], pair[1])] if len(pair) == 2 else pair
        add("bias-column", "each bias is the last column of its weight, [W b] row after row", beside)
    return result
