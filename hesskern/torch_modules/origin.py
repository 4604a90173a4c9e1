"""The module that a chain of layers was read from: its current parameters, and the weights it computes from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from hesskern.torch_modules.chain import UnsupportedError


class AttributePath(NamedTuple):
    """The path of a layer, and the attribute that holds its weight or bias."""

    path: str
    attribute: str


@dataclass(frozen=True, slots=True)
class Origin:
    """A module, and the weights that it computes; `replaced`: tensors to use instead of its parameters and buffers."""

    module: nn.Module
    computed: Mapping[str, AttributePath]
    replaced: Mapping[str, Tensor] = field(default_factory=dict)

    def parameters(self) -> dict[str, Tensor]:
        """Return the current parameters by their names."""
        return dict(self.module.named_parameters()) | dict(self.replaced)

    def require(self, names: Iterable[str]) -> None:
        """Refuse a module that no longer has parameters of these names."""
        parameters = self.parameters()
        for name in names:
            if name not in parameters:
                raise changed_parameter(name)

    def tensors_at(self, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return parameters and the weights computed from them, with these tensors instead of the module's."""
        tensors = self.parameters() | dict(moved)
        if not self.computed:
            return tensors
        substitutes = {f"module.{name}": tensor for name, tensor in (dict(self.replaced) | dict(moved)).items()}
        with restored(self.module), _DifferentiableWeightNorm():
            module = _ComputedWeights(self.module, self.computed)
            weights: dict[str, Tensor] = torch.func.functional_call(module, substitutes, ())
        return tensors | weights

    def float64_tensors_at(self, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `tensors_at` in float64 on the CPU: buffers and other parameters are converted."""
        tensors = {**dict(self.module.named_buffers()), **self.parameters()}
        try:
            return self.tensors_at({name: _double(tensor) for name, tensor in tensors.items()} | dict(moved))
        except RuntimeError as error:
            raise ValueError(
                f"the function that computes a layer's weight fails in float64 on the CPU ({error}); expected a model "
                "of that dtype on that device: call model.double().cpu()."
            ) from error

    def sources(self) -> set[str]:
        """Return the names of the parameters that weights are computed from."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in self.parameters().items()}
            tensors = self.tensors_at(leaves)
            weights = [tensors[name] for name in self.computed if tensors[name].requires_grad]
            if not weights:
                return set()
            slopes = torch.autograd.grad(
                weights, list(leaves.values()), [torch.ones_like(weight) for weight in weights], allow_unused=True
            )
        return {name for name, slope in zip(leaves, slopes, strict=True) if slope is not None}


def changed_parameter(name: str) -> ValueError:
    """Return the error for a parameter that was removed or has another shape now."""
    return ValueError(
        f"the model no longer has a parameter {name!r} of this shape; create this object again after a change of the "
        "model's layers."
    )


def _double(tensor: Tensor) -> Tensor:
    copy = tensor.detach().cpu()
    return copy.double() if copy.is_floating_point() else copy


class _ComputedWeights(nn.Module):
    """Returns the weights that a module computes, instead of its predictions."""

    def __init__(self, module: nn.Module, places: Mapping[str, AttributePath]) -> None:
        super().__init__()
        self.module, self._places = module, places
        self.training = module.training

    def forward(self) -> dict[str, Tensor]:
        return {
            name: effective(self.module.get_submodule(path), attribute)
            for name, (path, attribute) in self._places.items()
        }


class _DifferentiableWeightNorm(TorchFunctionMode):
    """PyTorch's own operation has a wrong second derivative on the CPU: its backward treats the norms as constants."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._weight_norm:
            v, g, dim = (*args, 0)[:3]
            return v * (g / torch.norm_except_dim(v, 2, dim))
        return func(*args, **(kwargs or {}))


def effective(layer: nn.Module, attribute: str) -> Any:
    """Return the tensor that a layer's forward uses as weight or bias (None: no bias), without changing the layer.

    Raises
    ------
    UnsupportedError
        If the layer changes its state to compute it.
    """
    candidates = [*layer._forward_pre_hooks.values(), *layer.modules()]
    if any(
        isinstance(norm, SpectralNorm | _SpectralNorm) and getattr(norm, "training", layer.training)
        for norm in candidates
    ):
        raise UnsupportedError("spectral_norm changes its weight with each call in training mode; call model.eval()")
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == attribute:
            return hook.compute_weight(layer)
        if isinstance(hook, SpectralNorm) and hook.name == attribute:
            return hook.compute_weight(layer, do_power_iteration=False)
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == attribute:
            return hook.apply_mask(layer)  # type: ignore[no-untyped-call] # PyTorch's
    return getattr(layer, attribute)


def known_hooks(layer: nn.Module) -> bool:
    """Return whether all hooks of a layer only compute its weight or bias."""
    hooks = (WeightNorm, SpectralNorm, BasePruningMethod)
    return not layer._forward_hooks and all(isinstance(hook, hooks) for hook in layer._forward_pre_hooks.values())


def is_computed(layer: nn.Module, attribute: str) -> bool:
    """Return whether a layer's weight or bias is computed, not a parameter itself."""
    return attribute not in layer._parameters


@contextmanager
def restored(module: nn.Module) -> Iterator[None]:
    """Restore a module's tensors at the end.

    Hooks of weight norm and pruning store the computed weight as an attribute, which would keep our graph. And
    `torch.func.functional_call` leaves its own tensors in a module that is reachable by two paths.
    """
    kept: list[tuple[Any, dict[str, Tensor]]] = [
        (stored, {name: value for name, value in stored.items() if isinstance(value, Tensor)})
        for submodule in module.modules()
        for stored in (vars(submodule), submodule._parameters, submodule._buffers)
    ]
    try:
        yield
    finally:
        for stored, tensors in kept:
            stored.update(tensors)


@contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Restore a module's state at the end, and refuse it if a call changes its buffers."""
    places = [
        (f"{path}.{name}".lstrip("."), submodule._buffers, name, buffer, buffer.detach().clone())
        for path, submodule in module.named_modules()
        for name, buffer in submodule._buffers.items()
        if buffer is not None and not is_lazy(buffer) and not buffer.is_meta
    ]
    values = [(path, buffer, before) for path, _, _, buffer, before in places]
    changed: set[str] = set()
    try:
        with restored(module):
            try:
                yield
            finally:
                changed = {path for path, stored, name, buffer, _ in places if stored.get(name) is not buffer}
    finally:
        changed |= {name for name, buffer, before in values if not _same(buffer, before)}
        with torch.no_grad():
            for name, buffer, before in values:
                if name in changed:
                    buffer.copy_(before)
    if changed:
        raise ValueError(
            f"module changes its buffer {min(changed)!r} at every call; expected a module that keeps its state: "
            "call model.eval()."
        )


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
