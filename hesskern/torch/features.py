"""What goes into the last linear layer of a model, batch by batch, and whether that layer is what the model ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize

from hesskern.torch.data import batches

#: Operations that change the shape of a tensor only, as autograd names them.
_RESHAPES = ("View", "UnsafeView", "Reshape", "Alias", "Squeeze", "Unsqueeze", "Expand", "Clone", "T", "Transpose")


class Batch(NamedTuple):
    """One batch at the last layer, on the CPU."""

    name: str
    features: Tensor  # (n, d)
    logits: Tensor  # (n, C)
    output: Tensor  # what the model returns, where it is
    targets: Tensor


class _Call(NamedTuple):
    """One application of a linear layer."""

    layer: nn.Linear
    given: Tensor
    found: Tensor
    version: int


class LastLayer:
    """The linear layer that a model ends in.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode, as far as that makes a difference.
    layer : nn.Linear or str, optional
        The layer, or its name; default: the last ``nn.Linear`` that forward applies.

    Raises
    ------
    TypeError, ValueError
        If the model does something else in training mode, or has no such layer.
    """

    def __init__(self, model: Any, layer: nn.Linear | str | None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
        _refuse_training(model)
        self._model = model
        #: None until the first batch where it was not named.
        self.layer: nn.Linear | None = None if layer is None else _named(model, layer)

    @property
    def name(self) -> str:
        """Its name in the model."""
        return next(str(name) for name, module in self._model.named_modules() if module is self.layer)

    def read(self, data: Any) -> Iterator[Batch]:
        """Run the model on every batch, without a graph; the first one twice, to see that it gives the same.

        Raises
        ------
        TypeError, ValueError
            If data are no batches, or the model is not what the last layer gives, without anything after it.
        """
        first = True
        for name, pair in batches(data):
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], Tensor):
                raise TypeError(f"{name} is a {type(pair).__name__}; expected a pair (X, Y), Y a tensor.")
            X, targets = pair
            call, output = self._run(X)
            if not (call.given.isfinite().all() and call.found.isfinite().all()):
                raise ValueError(
                    f"the input or the output of the layer {self.name!r} has NaN or infinite numbers in {name}; "
                    "expected finite ones."
                )
            if first:
                self._check(X, call)
                first = False
            features = call.given.reshape(-1, call.given.shape[-1])
            logits = call.found.reshape(-1, call.found.shape[-1])
            yield Batch(name, features.cpu(), logits.cpu(), output, targets.detach())

    def _run(self, X: Any, run: Callable[[Any], Any] | None = None) -> tuple[_Call, Tensor]:
        """Return what the last layer saw and gave, and what the model returned; `run`: in the place of the model."""
        calls: list[_Call] = []

        def hook(module: nn.Linear, args: tuple[Any, ...], kwargs: dict[str, Any], found: Tensor) -> None:
            calls.append(_Call(module, args[0] if args else kwargs["input"], found, found._version))

        watched = [module for module in self._model.modules() if isinstance(module, nn.Linear)]
        with torch.inference_mode(mode=False), torch.no_grad():
            output = _watched(run or self._model, X, watched, hook)
        if self.layer is None:
            if not calls:
                raise ValueError("model applies no nn.Linear as a module; expected a model that ends in one.")
            self.layer = calls[-1].layer
        own = [call for call in calls if call.layer is self.layer]
        if len(own) != 1:
            raise ValueError(
                f"the layer {self.name!r} is applied {len(own)} times for one batch; expected once: else its Hessian "
                "is not that of its features."
            )
        call = own[0]
        same = isinstance(output, Tensor) and output.numel() == call.found.numel() and output.is_contiguous()
        same = same and output.dtype == call.found.dtype
        if not same or output.data_ptr() != call.found.data_ptr() or call.found._version != call.version:
            what = "" if isinstance(output, Tensor) else f" a {type(output).__name__},"
            raise ValueError(
                f"model returns{what} not what its layer {self.name!r} gives, but the result of {self._after(X)} "
                "behind it; expected a model that ends in the layer: leave that to the loss (CrossEntropyLoss takes "
                "logits), or pass a model without it."
            )
        return call, output

    def _after(self, X: Any) -> str:
        """Return the first operation behind the last layer, as far as that is known."""
        behind: list[str] = []
        names = {module: name for name, module in self._model.named_modules()}

        def hook(module: nn.Module, args: Any, kwargs: Any, found: Any) -> Any:
            if module is self.layer:
                behind.clear()
                return found.detach().requires_grad_().clone()
            behind.append(f"the module {names[module]!r} ({type(module).__name__})")
            return None

        leaves = [module for module in self._model.modules() if module is self.layer or not [*module.children()]]
        with torch.enable_grad():
            output = _watched(self._model, X, leaves, hook)
        if behind:
            return behind[0]
        operations = []
        node = getattr(output, "grad_fn", None)
        while node is not None and node.next_functions:
            operations.append(node.name().partition("Backward")[0])
            node = next((each for each, _ in node.next_functions if each is not None), None)
        found = [name for name in operations[::-1] if name not in _RESHAPES]
        return f"{found[0]} in its forward" if found else "something"

    def _check(self, X: Any, call: _Call) -> None:
        """Refuse a layer whose output is not that of its weight, or a model that gives something else each time."""
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
                f"the weights {' and '.join(map(repr, shared))} are one (tied); expected a last layer of its own: its "
                "Hessian is not that of its features."
            )
        with torch.no_grad():
            expected = nn.functional.linear(call.given, layer.weight, layer.bias)
        if call.given.dtype != layer.weight.dtype or not _alike(expected, call.found):
            raise ValueError(
                f"the layer {self.name!r} gives something else than its weight times its input; expected a plain "
                "nn.Linear in its own precision, without hooks that change its output and without autocast."
            )
        again, _ = self._run(X)
        if not _alike(again.given, call.given):
            raise ValueError(
                "model gives other features for the same batch a second time; expected one that does the same each "
                "time: without random operations (call model.eval()), and without a state that changes."
            )
        moved = {f"{self.name}.{name}".lstrip("."): 1.5 * p.detach() + 0.5 for name, p in layer.named_parameters()}
        other, _ = self._run(X, lambda X: torch.func.functional_call(self._model, moved, (X,)))
        if not _alike(other.given, call.given):
            raise ValueError(
                f"the features of the layer {self.name!r} depend on its own weight or bias, which the model uses in "
                "another place too; expected a last layer of its own: its Hessian is not that of its features."
            )
        self._check_gradient(X, call)

    def _check_gradient(self, X: Any, call: _Call) -> None:
        """Refuse a model whose result does not have the derivative of its last layer, since it detaches something."""
        layer = call.layer
        names = {f"{self.name}.{name}".lstrip("."): name for name, _ in layer.named_parameters()}
        with torch.inference_mode(mode=False), torch.enable_grad():
            known = dict(layer.named_parameters())
            leaves = {name: known[own].detach().clone().requires_grad_() for name, own in names.items()}
            output = torch.func.functional_call(self._model, leaves, (X,))
            seed = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device)
            slopes: Any = [None] * len(leaves)
            if output.requires_grad:
                slopes = torch.autograd.grad(output, [*leaves.values()], seed.reshape(output.shape), allow_unused=True)
        rows = seed.reshape(-1, layer.out_features)
        expected = {"weight": rows.T @ call.given.reshape(len(rows), -1), "bias": rows.sum(0)}
        for own, slope in zip(names.values(), slopes, strict=True):
            size = float((rows.abs().T @ call.given.reshape(len(rows), -1).abs()).max()) + len(rows)
            tolerance = torch.finfo(seed.dtype).eps ** 0.5 * size
            if slope is None or (slope - expected[own]).abs().max() > tolerance:
                raise ValueError(
                    f"model returns what its layer {self.name!r} gives, but not with its derivative with respect to "
                    f"the {own}; expected a forward without torch.no_grad and detach behind the layer."
                )


def _watched(model: Callable[[Any], Any], X: Any, modules: list[Any], hook: Callable[..., Any]) -> Any:
    """Return ``model(X)`` while these modules have a forward hook."""
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in modules]
    try:
        return model(X)
    finally:
        for handle in handles:
            handle.remove()


def _alike(one: Tensor, other: Tensor) -> bool:
    """Return whether tensors are the same but for rounding, which may depend on where in memory they are."""
    if one.shape != other.shape or one.numel() == 0:
        return one.shape == other.shape
    tolerance = torch.finfo(one.dtype).eps ** 0.5
    return bool((one - other).abs().max() <= tolerance * one.abs().max())


def _named(model: nn.Module, layer: Any) -> nn.Linear:
    found = dict(model.named_modules()).get(layer) if isinstance(layer, str) else layer
    if not isinstance(found, nn.Linear) or all(module is not found for module in model.modules()):
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        shown = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
        raise ValueError(f"layer is {shown}; expected an nn.Linear of the model, or its name: one of {linear}.")
    return found


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
                f"the module {name!r} ({type(module).__name__}) {reason} in training mode, so the features are not "
                "those of the samples; call model.eval()."
            )
