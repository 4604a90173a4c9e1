"""From a linear network to a PyTorch module whose ``state_dict`` has the network's names."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Named(NamedTuple):
    """One layer of a network, its parameters as tensors."""

    weight: str
    bias: str | None
    tensors: tuple[Tensor, ...]

    @property
    def path(self) -> str | None:
        """The path of an ``nn.Linear`` whose parameters have these names; None if no ``nn.Linear`` has such names."""
        path, _, kind = self.weight.rpartition(".")
        prefix = f"{path}." if path else ""
        return path if kind == "weight" and self.bias in (None, f"{prefix}bias") else None


class LinearChain(nn.Module):
    """Linear layers one after the other, whose parameters may have any names.

    ``LinearNetwork.to_torch`` returns it if no ``nn.Sequential`` of ``nn.Linear`` has such names.
    """

    def __init__(self, layers: Sequence[tuple[str, str | None]], parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self._order = tuple(layers)
        for name, tensor in parameters.items():
            *path, last = name.split(".")
            holder: nn.Module = self
            for step in path:
                if step not in holder._modules:
                    holder.add_module(step, nn.Module())
                holder = holder.get_submodule(step)
            holder.register_parameter(last, nn.Parameter(tensor))

    def forward(self, x: Tensor) -> Tensor:
        """Return the predictions (N, o) of samples (N, i)."""
        for weight, bias in self._order:
            x = functional.linear(x, self._of(weight), None if bias is None else self._of(bias))
        return x

    def _of(self, name: str) -> Any:
        return functools.reduce(getattr, name.split("."), self)

    def extra_repr(self) -> str:
        """Return the names of the weights in the order of their application."""
        return " -> ".join(weight for weight, _ in self._order)


def module_of(weights: Sequence[Any], biases: Sequence[Any], names: Sequence[str]) -> nn.Module:
    """Return a module with copies of a network's parameters under these names, in the order of `named_parameters()`."""
    layers = _named_layers(weights, biases, names)
    paths = [layer.path for layer in layers]
    if None not in paths:
        tree = _sequential(
            [(path.split(".") if path else [], layer) for path, layer in zip(paths, layers, strict=True)]
        )
        if tree is not None:
            return tree
    parameters: dict[str, Tensor] = {}
    for layer in layers:
        parameters |= zip(filter(None, (layer.weight, layer.bias)), layer.tensors, strict=True)
    try:
        return LinearChain([(layer.weight, layer.bias) for layer in layers], parameters)
    except KeyError as error:  # a name that a module has for something else
        raise ValueError(
            f"the network's names {', '.join(names)} cannot be the names of one module's parameters ({error}); "
            "expected other names: pass LinearNetwork(weights, biases, names=...)."
        ) from error


def _named_layers(weights: Sequence[Any], biases: Sequence[Any], names: Sequence[str]) -> list[_Named]:
    remaining = iter(names)
    layers: list[_Named] = []
    for weight, bias in zip(weights, biases, strict=True):
        weight_name, bias_name = next(remaining), None if bias is None else next(remaining)
        arrays = [weight] if bias is None else [weight, bias]
        # New tensors: the network's memory is read-only.
        copies = (array.clone() if isinstance(array, Tensor) else torch.tensor(array, device="cpu") for array in arrays)
        layers.append(_Named(weight_name, bias_name, tuple(copies)))
    return layers


def _sequential(layers: Sequence[tuple[Sequence[str], _Named]]) -> nn.Module | None:
    """Return nested ``nn.Sequential`` with layers at these paths; None if it would apply them in another order."""
    if len(layers) == 1 and not layers[0][0]:
        return _linear(layers[0][1])
    groups: OrderedDict[str, list[tuple[Sequence[str], _Named]]] = OrderedDict()
    before = None
    for path, layer in layers:
        if not path or (path[0] in groups and path[0] != before):
            return None
        before = path[0]
        groups.setdefault(before, []).append((path[1:], layer))
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for name, group in groups.items():
        child = _sequential(group)
        if child is None or hasattr(nn.Sequential, name):
            return None
        children[name] = child
    return nn.Sequential(children)


def _linear(layer: _Named) -> nn.Module:
    weight, *bias = layer.tensors
    # On the meta device nothing is initialised, so the caller's random generator is not used.
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bool(bias), device="meta")
    module.weight = nn.Parameter(weight)
    if bias:
        module.bias = nn.Parameter(bias[0])
    return module
