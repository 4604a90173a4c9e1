"""The inputs of a model's last linear layer, batch by batch, and the check that the model ends in that layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize

from hesskern.torch.data import batches

#: Operations that change only the shape of a tensor, by autograd's names.
_RESHAPES = ("View", "UnsafeView", "Reshape", "Alias", "Squeeze", "Unsqueeze", "Expand", "Clone", "T", "Transpose")


class Batch(NamedTuple):
    """One batch at the last layer, on the CPU."""

    name: str
    features: Tensor  # (n, d)
    logits: Tensor  # (n, C)
    output: Tensor  # what the model returns, on its device
    targets: Tensor


class _Call(NamedTuple):
    """One application of a linear layer."""

    layer: nn.Linear
    inputs: Tensor
    outputs: Tensor
    version: int  # of the outputs: it grows when they are changed in place


class LastLayer:
    """The linear layer that a model ends in.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, if the mode changes the output.
    layer : nn.Linear or str, optional
        The layer, or its name; default: the last ``nn.Linear`` that forward applies.

    Raises
    ------
    TypeError, ValueError
        If the model is in training mode and that changes its features, or if it has no such layer.
    """

    def __init__(self, model: Any, layer: nn.Linear | str | None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
        _refuse_training(model)
        self._model = model
        #: None until the first batch if no layer was asked for.
        self.layer: nn.Linear | None = None if layer is None else _chosen_layer(model, layer)

    @property
    def name(self) -> str:
        """Its name in the model."""
        return next(str(name) for name, module in self._model.named_modules() if module is self.layer)

    def read(self, data: Any) -> Iterator[Batch]:
        """Run the model on every batch, without a graph; on the first one twice, to check that the result is the same.

        Raises
        ------
        TypeError, ValueError
            If `data` does not hold batches, or the model does not return the output of its last layer.
        """
        first = True
        for name, pair in batches(data):
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], Tensor):
                raise TypeError(f"{name} is a {type(pair).__name__}; expected a pair (X, Y), Y a tensor.")
            X, targets = pair
            call, output = self._run(X)
            if not (call.inputs.isfinite().all() and call.outputs.isfinite().all()):
                raise ValueError(
                    f"the input or the output of the layer {self.name!r} has NaN or infinite numbers in {name}; "
                    "expected finite numbers."
                )
            if first:
                self._check(X, call)
                first = False
            features = call.inputs.reshape(-1, call.inputs.shape[-1])
            logits = call.outputs.reshape(-1, call.outputs.shape[-1])
            yield Batch(name, features.cpu(), logits.cpu(), output, targets.detach())

    def _run(self, X: Any, run: Callable[[Any], Any] | None = None) -> tuple[_Call, Tensor]:
        """Return the call of the last layer, and the model's output; `run` replaces the model."""
        calls: list[_Call] = []

        def hook(module: nn.Linear, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
            calls.append(_Call(module, args[0] if args else kwargs["input"], result, result._version))

        linear = [module for module in self._model.modules() if isinstance(module, nn.Linear)]
        with torch.inference_mode(mode=False), torch.no_grad():
            output = _run_with_hook(run or self._model, X, linear, hook)
        if self.layer is None:
            if not calls:
                raise ValueError("model applies no nn.Linear as a module; expected a model that ends in one.")
            self.layer = calls[-1].layer
        own = [call for call in calls if call.layer is self.layer]
        if len(own) != 1:
            raise ValueError(
                f"the layer {self.name!r} is applied {len(own)} times to one batch; expected once: otherwise "
                "it is not a linear layer on fixed features."
            )
        call = own[0]
        same = isinstance(output, Tensor) and output.numel() == call.outputs.numel() and output.is_contiguous()
        same = same and output.dtype == call.outputs.dtype
        if not same or output.data_ptr() != call.outputs.data_ptr() or call.outputs._version != call.version:
            kind = "a tensor" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(
                f"model returns {kind} that is not the output of its layer {self.name!r}, but the result of "
                f"{self._after(X)} after it; expected a model that ends in the layer: leave that operation to the loss "
                "(CrossEntropyLoss takes logits), or pass a model without it."
            )
        return call, output

    def _after(self, X: Any) -> str:
        """Return the first operation after the last layer, as far as it is known."""
        modules: list[str] = []
        names = {module: name for name, module in self._model.named_modules()}

        def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
            if module is self.layer:
                modules.clear()
                return result.detach().requires_grad_().clone()
            modules.append(f"the module {names[module]!r} ({type(module).__name__})")
            return None

        leaves = [module for module in self._model.modules() if module is self.layer or not [*module.children()]]
        with torch.enable_grad():
            output = _run_with_hook(self._model, X, leaves, hook)
        if modules:
            return modules[0]
        operations = []
        node = getattr(output, "grad_fn", None)
        while node is not None and node.next_functions:
            operations.append(node.name().partition("Backward")[0])
            node = next((function for function, _ in node.next_functions if function is not None), None)
        changing = [name for name in operations[::-1] if name not in _RESHAPES]
        return f"{changing[0]} in its forward" if changing else "another operation"

    def _check(self, X: Any, call: _Call) -> None:
        """Refuse a layer that does not compute its weight times its input, or a model that changes between calls."""
        layer = call.layer
        if parametrize.is_parametrized(layer) or "weight" not in layer._parameters:
            raise ValueError(
                f"the weight of the layer {self.name!r} is computed from other parameters; expected a plain nn.Linear: "
                "call torch.nn.utils.parametrize.remove_parametrizations, prune.remove or remove_weight_norm."
            )
        if layer.weight.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"the layer {self.name!r} is {layer.weight.dtype}; expected torch.float64 or torch.float32: call "
                "model.double()."
            )
        shared = [
            name
            for name, parameter in self._model.named_parameters(remove_duplicate=False)
            if parameter is layer.weight
        ]
        if len(shared) > 1:
            raise ValueError(
                f"the weights {' and '.join(map(repr, shared))} are the same tensor (tied weights); expected a last "
                "layer whose weight is used nowhere else."
            )
        with torch.no_grad():
            expected = nn.functional.linear(call.inputs, layer.weight, layer.bias)
        if call.inputs.dtype != layer.weight.dtype or not _nearly_equal(expected, call.outputs):
            raise ValueError(
                f"the output of the layer {self.name!r} is not its weight times its input plus its bias; expected a "
                "plain nn.Linear in its own precision, without hooks that change its output and without autocast."
            )
        again, _ = self._run(X)
        if not _nearly_equal(again.inputs, call.inputs):
            raise ValueError(
                "model computes other features when it gets the same batch again; expected the same features at each "
                "call: call model.eval(), and remove random operations and state that changes."
            )
        moved = {f"{self.name}.{name}".lstrip("."): 1.5 * p.detach() + 0.5 for name, p in layer.named_parameters()}
        other, _ = self._run(X, lambda X: torch.func.functional_call(self._model, moved, (X,)))
        if not _nearly_equal(other.inputs, call.inputs):
            raise ValueError(
                f"the features of the layer {self.name!r} depend on its own weight or bias, which the model also uses "
                "elsewhere; expected a last layer whose parameters are used nowhere else."
            )
        self._check_gradient(X, call)

    def _check_gradient(self, X: Any, call: _Call) -> None:
        """Refuse a model whose output does not have the derivative of its last layer, because something is detached."""
        layer = call.layer
        names = {f"{self.name}.{name}".lstrip("."): name for name, _ in layer.named_parameters()}
        with torch.inference_mode(mode=False), torch.enable_grad():
            parameters = dict(layer.named_parameters())
            leaves = {name: parameters[own].detach().clone().requires_grad_() for name, own in names.items()}
            output = torch.func.functional_call(self._model, leaves, (X,))
            seed = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device)
            slopes: Any = [None] * len(leaves)
            if output.requires_grad:
                slopes = torch.autograd.grad(output, [*leaves.values()], seed.reshape(output.shape), allow_unused=True)
        rows = seed.reshape(-1, layer.out_features)
        expected = {"weight": rows.T @ call.inputs.reshape(len(rows), -1), "bias": rows.sum(0)}
        for own, slope in zip(names.values(), slopes, strict=True):
            size = float((rows.abs().T @ call.inputs.reshape(len(rows), -1).abs()).max()) + len(rows)
            tolerance = torch.finfo(seed.dtype).eps ** 0.5 * size
            if slope is None or (slope - expected[own]).abs().max() > tolerance:
                raise ValueError(
                    f"model returns the output of its layer {self.name!r}, but not its derivative with respect to the "
                    f"{own}; expected a forward without torch.no_grad and without detach after the layer."
                )


def _run_with_hook(model: Callable[[Any], Any], X: Any, modules: list[Any], hook: Callable[..., Any]) -> Any:
    """Return ``model(X)`` with a forward hook on these modules."""
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in modules]
    try:
        return model(X)
    finally:
        for handle in handles:
            handle.remove()


def _nearly_equal(one: Tensor, other: Tensor) -> bool:
    """Return whether tensors agree up to rounding, which may depend on their place in memory."""
    if one.shape != other.shape or one.numel() == 0:
        return one.shape == other.shape
    tolerance = torch.finfo(one.dtype).eps ** 0.5
    return bool((one - other).abs().max() <= tolerance * one.abs().max())


def _chosen_layer(model: nn.Module, layer: Any) -> nn.Linear:
    chosen = dict(model.named_modules()).get(layer) if isinstance(layer, str) else layer
    if not isinstance(chosen, nn.Linear) or all(module is not chosen for module in model.modules()):
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        shown = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
        raise ValueError(f"layer is {shown}; expected an nn.Linear of the model, or its name: one of {linear}.")
    return chosen


def _refuse_training(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if not module.training:
            continue
        rate: Any = module.p if isinstance(module, _DropoutNd) else getattr(module, "dropout", 0.0)
        reason = None
        if isinstance(rate, float) and rate > 0:
            reason = "drops at random"
        elif isinstance(module, nn.RReLU):
            reason = "draws slopes at random"
        elif isinstance(module, _NormBase) and (module.track_running_stats or "Batch" in type(module).__name__):
            reason = "mixes the samples of a batch and changes its statistics"
        if reason:
            raise ValueError(
                f"the module {name!r} ({type(module).__name__}) {reason} in training mode, so the features do not "
                "depend on the samples alone; call model.eval()."
            )
