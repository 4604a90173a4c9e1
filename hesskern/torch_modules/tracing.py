"""From a PyTorch module to its chain of linear layers, or to the first operation that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from hesskern._base import devices
from hesskern.torch_modules.chain import (
    FUNCTIONS,
    Layer,
    Parameter,
    TracedSamples,
    UnsupportedError,
    apply,
    described,
    passed,
)
from hesskern.torch_modules.origin import (
    AttributePath,
    Origin,
    changed_parameter,
    effective,
    is_computed,
    known_hooks,
    state_kept,
)
from hesskern.torch_modules.plain_modules import plain_modules

_EXPECTED = (
    "expected a chain of nn.Linear, nn.Sequential, nn.Identity, nn.Flatten, dropout in eval mode, and functions that "
    "multiply with a weight or add a bias"
)


@dataclass(frozen=True, slots=True)
class Chain:
    """A module as a chain: its layers in the order of their application.

    `flat`: samples are flattened to rows first. `origin`: the module; None for the chain of a function.
    """

    layers: tuple[Layer, ...]
    flat: bool
    origin: Origin | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Weights and biases in the order of `LinearNetwork.flatten`."""
        return tuple(parameter for layer in self.layers for parameter in layer.parameters)

    @property
    def reference(self) -> Tensor:
        """The first weight (out, in): all others have its dtype and device."""
        return self.layers[0].weight.matrix

    @property
    def outputs(self) -> int:
        """Number of columns of the predictions."""
        return len(self.layers[-1].weight.matrix)

    def replaced(self, tensors: Mapping[str, Tensor]) -> Chain:
        """Return the chain with other tensors instead of the module's parameters, by their names."""
        assert self.origin is not None
        chain = replace(self, origin=replace(self.origin, replaced=dict(tensors))).current()
        check(chain)
        return chain

    def current(self) -> Chain:
        """Return the chain with the current values of the parameters and of the weights computed from them.

        Raises
        ------
        ValueError
            If the module no longer has the parameters that it had when it was traced.
        """
        if self.origin is None:
            return self
        try:
            with torch.no_grad():
                tensors = self.origin.tensors_at({})
        except UnsupportedError as error:
            raise ValueError(f"module is refused: {error}.") from error

        def now(parameter: Parameter) -> Parameter:
            tensor = tensors.get(parameter.name)
            if tensor is None or tensor.shape != parameter.tensor.shape:
                raise changed_parameter(parameter.name)
            return replace(parameter, tensor=tensor)

        layers = [
            layer._replace(weight=now(layer.weight), bias=None if layer.bias is None else now(layer.bias))
            for layer in self.layers
        ]
        return replace(self, layers=tuple(layers))

    def predicted(self, X: Tensor, moved: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the predictions for samples in rows; `moved`: other tensors for some of the parameters."""
        tensors = {parameter.name: parameter.tensor for parameter in self.parameters} | dict(moved or {})
        for weight, bias in self.layers:
            matrix = replace(weight, tensor=tensors[weight.name]).matrix
            X = nn.functional.linear(X, matrix, None if bias is None else tensors[bias.name])
        return X


def trace(module: Any) -> Chain:
    """Return a module as a chain of linear layers.

    Raises
    ------
    TypeError
        If it is not a module, or if its parameters are not all float32 or all float64, or not all on the CPU or on one
        CUDA device.
    ValueError
        If it is not a chain of linear layers; the message names the first operation that does not fit.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is a {type(module).__name__}; expected a torch.nn.Module.")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError("module is a ScriptModule, which torch.fx cannot trace; pass the original module.")
    if isinstance(getattr(module, "_orig_mod", None), nn.Module):
        raise TypeError("module was compiled by torch.compile, so it cannot be traced; pass module._orig_mod.")
    # Inside an nn.Sequential the module itself is an operation like others, with its hooks; names begin with "0.".
    root = nn.Sequential(module)
    applied = plain_modules(module)
    if applied is not None:
        chain = _chain(module, _Reader(root).applied(applied))
        check(chain)
        return chain
    try:
        graph = _Tracer().trace(root)
    except UnsupportedError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # a user's forward may raise anything
        raise ValueError(
            f"module cannot be traced ({type(error).__name__}: {error}); expected a forward without control flow that "
            "depends on the samples."
        ) from error
    reader = _Reader(root)
    with state_kept(module):
        chain = _chain(module, reader.read(graph), reader.computed)
        check(chain)
        _verify(chain, module)
    return chain


def _chain(module: nn.Module, samples: TracedSamples, computed: Mapping[str, AttributePath] | None = None) -> Chain:
    if not samples.layers:
        raise ValueError(f"module applies no linear layer; {_EXPECTED}.")
    return Chain(samples.layers, samples.flat, Origin(module, computed or {}))


class NetworkArrays(NamedTuple):
    """Copies of a chain's parameters, from which to create a `LinearNetwork`: arrays, or tensors on a GPU."""

    weights: list[Any]
    biases: list[Any]
    names: list[str]


def imported(module: Any) -> NetworkArrays:
    """Return the parameters of a module that is a chain, with weights that are stored as (out, in)."""
    chain = trace(module)
    for parameter in chain.parameters:
        if parameter.transposed:
            raise ValueError(
                f"module multiplies with {parameter.name!r} of shape {tuple(parameter.tensor.shape)} without "
                "transposing it, but weights of a network are (out, in); expected x @ W.T (hesskern.torch takes both)."
            )
    return network_arrays(chain)


def network_arrays(chain: Chain, dtype: torch.dtype | None = None) -> NetworkArrays:
    """Return copies of a chain's parameters, in their dtype or another."""
    return NetworkArrays(
        [_array(layer.weight.matrix, dtype) for layer in chain.layers],
        [None if layer.bias is None else _array(layer.bias.tensor, dtype) for layer in chain.layers],
        [parameter.name for parameter in chain.parameters],
    )


def _array(tensor: Tensor, dtype: torch.dtype | None) -> Any:
    converted = tensor.detach().to(dtype or tensor.dtype)
    return converted if devices.on_device(converted) else converted.numpy()


def check(chain: Chain) -> None:
    """Refuse parameters that are not all float32 or all float64, or not all on the CPU or on one CUDA device."""
    first = chain.parameters[0]
    for parameter in chain.parameters:
        name, tensor = parameter.name, parameter.tensor
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.layout != torch.strided:
            kind = tensor.dtype if tensor.layout == torch.strided else f"layout {tensor.layout}"
            raise TypeError(f"{name} is {kind}; expected torch.float64 (or torch.float32): call model.double().")
        if tensor.device.type not in ("cpu", "cuda"):
            raise TypeError(f"{name} is on {tensor.device}; expected cpu or cuda: call model.cpu().")
        if (tensor.dtype, tensor.device) != (first.tensor.dtype, first.tensor.device):
            raise TypeError(
                f"{name} is {tensor.dtype} on {tensor.device}, but {first.name} is {first.tensor.dtype} on "
                f"{first.tensor.device}; expected one dtype and one device: call model.to(...)."
            )


def _verify(chain: Chain, module: nn.Module) -> None:
    """Refuse a module whose predictions differ from its chain's, because of hooks or changes in place."""
    reference = chain.reference
    with torch.no_grad():
        generator = torch.Generator(reference.device).manual_seed(0)
        X = torch.randn(3, reference.shape[1], generator=generator, dtype=reference.dtype, device=reference.device)
        predicted = chain.predicted(X)
        size = chain.predicted(X.abs(), {parameter.name: parameter.tensor.abs() for parameter in chain.parameters})
        output = module(X)
        unit = torch.finfo(reference.dtype).eps * (8 + sum(layer.weight.matrix.shape[1] for layer in chain.layers))
        if output.shape != predicted.shape or ((output - predicted).abs() > 4 * unit * size).any():
            raise ValueError(
                "module computes something else than the chain of linear layers that torch.fx traces; expected a "
                "forward without hooks and without changes in place."
            )
    _verify_gradient(chain, module, X)


def _verify_gradient(chain: Chain, module: nn.Module, X: Tensor) -> None:
    """Refuse a module that has the values of its chain, but other derivatives."""
    assert chain.origin is not None
    names = [name for name, _ in module.named_parameters()]
    with torch.inference_mode(mode=False), torch.enable_grad():
        X = X.clone()
        module_leaves = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
        chain_leaves = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
        # Inside an nn.Sequential, because functional_call does not take nn.DataParallel itself.
        output = torch.func.functional_call(
            nn.Sequential(module), {f"0.{name}": p for name, p in module_leaves.items()}, (X,)
        )
        predicted = chain.predicted(X, chain.origin.tensors_at(chain_leaves))
        direction = torch.randn(
            output.shape, generator=torch.Generator(X.device).manual_seed(1), dtype=X.dtype, device=X.device
        )
        slopes = [
            torch.autograd.grad(value, list(leaves.values()), direction, allow_unused=True)
            if value.requires_grad
            else [None] * len(names)
            for value, leaves in ((output, module_leaves), (predicted, chain_leaves))
        ]
    for name, slope, expected in zip(names, *slopes, strict=True):
        off, size = difference(slope, expected)
        if off > torch.finfo(X.dtype).eps ** 0.5 * size:
            raise ValueError(
                f"module has the values of a chain of linear layers, but another derivative with respect to {name!r}; "
                "expected a forward without torch.no_grad, without custom backward functions, and with weights that "
                "depend on nothing but the parameters of their layer."
            )


def difference(one: Tensor | None, other: Tensor | None) -> tuple[float, float]:
    """Return the largest difference of two gradients, and their largest entry; None is a gradient of zeros."""
    present = [slope for slope in (one, other) if slope is not None and slope.numel()]
    size = max((float(slope.abs().max()) for slope in present), default=0.0)
    if one is None or other is None:
        return size, size
    return float((one - other).abs().max()), size


class _Tracer(fx.Tracer):
    """Treats modules of PyTorch as operations; traces into all others, and into subclasses with their own forward."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Sequential):
            return False
        if isinstance(m, nn.DataParallel):
            return False
        return type(m).__module__.startswith("torch.nn") or type(m).forward is nn.Linear.forward

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace the module that ``nn.DataParallel`` runs on parts of each batch."""
        if isinstance(m, nn.DataParallel) and not m._forward_hooks and not m._forward_pre_hooks:
            return m.module(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


class _Reader:
    """Reads a graph with the rules of a chain."""

    def __init__(self, root: nn.Module) -> None:
        self._modules = dict(root.named_modules())
        self._parameters = dict(root.named_parameters())
        #: Weights and biases that are computed, not parameters, and where they are.
        self.computed: dict[str, AttributePath] = {}

    def applied(self, targets: Sequence[str]) -> TracedSamples:
        """Return the samples after these modules, one after the other."""
        samples = TracedSamples()
        for target in targets:
            try:
                samples = self._module(target, samples)
            except UnsupportedError as error:
                kind = type(self._modules[target]).__name__
                raise ValueError(_refusal(f"the module {_plain(target)!r} ({kind})", str(error))) from error
        return samples

    def read(self, graph: fx.Graph) -> TracedSamples:
        # Operations whose result is not used are read like others: they may change their argument in place.
        values: dict[fx.Node, Any] = {}
        inputs = 0
        for node in graph.nodes:
            if node.op == "output":
                break
            if node.op == "placeholder":
                inputs += 1
                values[node] = TracedSamples()
                continue
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            try:
                values[node] = self._value(node, args, kwargs)
            except UnsupportedError as error:
                raise ValueError(_refusal(self._named(node), str(error))) from error
        output = fx.node.map_arg(node.args[0], values.__getitem__)
        if inputs != 1 or not isinstance(output, TracedSamples):
            raise ValueError(
                f"module takes {inputs} inputs and returns a {type(output).__name__}; expected a forward that takes "
                "the samples and returns the predictions."
            )
        return output

    def _value(self, node: fx.Node, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if node.op == "get_attr":
            target = str(node.target)
            if target not in self._parameters:
                raise UnsupportedError("it is a buffer or a constant; expected parameters of the model")
            return Parameter(_plain(target), self._parameters[target])
        if node.op == "call_module":
            return self._module(str(node.target), *args, **kwargs)
        name = str(node.target) if node.op == "call_method" else FUNCTIONS.get(node.target, "")
        return apply(name, args, kwargs)

    def _module(self, target: str, x: Any) -> Any:
        module = self._modules[target]
        if any(map(is_lazy, module.parameters())):
            raise UnsupportedError("its shape is not known yet; call the model once")
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        if hooks and not (isinstance(module, nn.Linear) and known_hooks(module)):
            raise UnsupportedError(
                f"its forward hook {type(hooks[0]).__name__} may change what it computes; remove the hook"
            )
        if isinstance(module, nn.Linear) and isinstance(x, TracedSamples):
            return passed(x, self._layer(module, target))
        if isinstance(module, nn.Identity):
            return x
        if isinstance(module, _DropoutNd):
            return apply("dropout", (x, module.p, module.training), {})
        if isinstance(module, nn.Flatten):
            return apply("flatten", (x, module.start_dim, module.end_dim), {})
        raise UnsupportedError

    def _layer(self, module: nn.Linear, target: str) -> Layer:
        path = _plain(target)
        with torch.no_grad():
            weight, bias = (self._of_layer(module, path, attribute) for attribute in ("weight", "bias"))
        assert weight is not None
        return Layer(weight, bias)

    def _of_layer(self, module: nn.Linear, path: str, attribute: str) -> Parameter | None:
        name = f"{path}.{attribute}" if path else attribute
        if is_computed(module, attribute):
            self.computed[name] = AttributePath(path, attribute)
        tensor = effective(module, attribute)
        return None if tensor is None else Parameter(name, tensor)

    def _named(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"the module {_plain(str(node.target))!r} ({type(self._modules[str(node.target)]).__name__})"
        if node.op == "get_attr":
            return f"the tensor {_plain(str(node.target))!r}"
        if node.target is getattr:
            name = f"the attribute Tensor.{node.args[1]}"
        else:
            name = f"the method Tensor.{node.target}" if node.op == "call_method" else described(node.target)
        stack = node.meta.get("nn_module_stack") or {}
        path = next(reversed(stack), "")
        inside = type(self._modules[path]).__name__ if path in self._modules else "forward"
        return f"{name} in the forward of {inside}"


def _refusal(where: str, reason: str) -> str:
    if reason:
        return f"module is refused at {where}: {reason}."
    return f"module is not a chain of linear layers: the first operation that does not fit is {where}; {_EXPECTED}."


def _plain(target: str) -> str:
    return target.removeprefix("0").removeprefix(".")
