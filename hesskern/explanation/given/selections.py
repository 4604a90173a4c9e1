"""Which parameters a matrix of a given size can belong to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hesskern.explanation.given.causes import Cause, listed
from hesskern.explanation.given.orders import Tensor, tensors
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, select

#: Layers up to which every subset of them is a selection of its own.
_SUBSETS = 4


class Selection(NamedTuple):
    """Some parameters, and the cause if they were taken in place of those asked for."""

    causes: tuple[Cause, ...]
    tensors: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.tensors[-1].stop


def selections(net: LinearNetwork, parts: Sequence[Part], names: Sequence[str]) -> list[Selection]:
    """Return the selections to try, the one asked for first; `names` are the user's names of the parameters."""
    called = dict(zip(net.parameter_names, names, strict=True))
    requested = tensors(net, parts)
    by_names = {_names(requested): Selection((), requested)}
    layers = range(net.depth)
    sizes = range(1, net.depth + 1) if net.depth <= _SUBSETS else (1, net.depth)
    choices: list[list[int | str]] = [list(subset) for size in sizes for subset in itertools.combinations(layers, size)]
    choices += [[name] for name in net.parameter_names]
    weights = [name for name in net.parameter_names if name.endswith("weight")]
    choices += [list(weights), [name for name in net.parameter_names if name not in weights]]
    everything = _names(tensors(net, select(net, None)))
    for chosen in filter(None, choices):
        candidate = tensors(net, select(net, chosen))
        key = _names(candidate)
        if key in by_names:
            continue
        description = "the whole Hessian" if key == everything else f"the block of {shown(candidate)}"
        word = "whole" if key == everything else f"block[{','.join(key)}]"
        call = f"loss.hessian(net, params={_params(candidate, everything, called)})"
        fix = f"compare with {call}, or take the derivatives of {shown(requested)}"
        by_names[key] = Selection(
            (Cause(word, f"it is {description}, not that of {shown(requested)}", fix),), candidate
        )
    return list(by_names.values())


def _names(selected: Sequence[Tensor]) -> tuple[str, ...]:
    return tuple(tensor.full_name for tensor in selected)


def _params(selected: Sequence[Tensor], everything: Sequence[str], called: Mapping[str, str]) -> str:
    """Return the argument as a user writes it."""
    names = _names(selected)
    return "None" if names == everything else str([called[name] for name in names])


def shown(selected: Sequence[Tensor]) -> str:
    """Return the selected parameters in words: "W1, b1 and W2"."""
    return listed([symbol(tensor) for tensor in selected])


def symbol(tensor: Tensor) -> str:
    """Return W1, b1, ... as in formulas, counted from 1."""
    return f"{'W' if tensor.name == 'weight' else 'b'}{tensor.layer + 1}"
