"""Modules and losses that are PyTorch's own and unchanged, so that what they compute is known without a call.

Everything else is traced, called and compared, which takes ten milliseconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack

#: What PyTorch's classes call, as it was when this was imported: a program may replace it.
_ORIGINAL = {
    (owner, name): getattr(owner, name)
    for owner, name in (
        (nn.Module, "__call__"),
        (nn.Module, "_call_impl"),
        (nn.Module, "_wrapped_call_impl"),
        (nn.Module, "__getattr__"),
        (nn.Linear, "forward"),
        (nn.Sequential, "forward"),
        (nn.Identity, "forward"),
        (nn.MSELoss, "forward"),
        (nn.functional, "linear"),
        (nn.functional, "mse_loss"),
    )
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def plain_modules(module: nn.Module) -> list[str] | None:
    """Return the paths of the modules that a module applies, inside ``nn.Sequential(module)``; None if it is not plain.

    Plain are `nn.Linear` and `nn.Identity`, and `nn.Sequential` of plain modules, without hooks, parametrisations and
    methods of their own. No module occurs twice.
    """
    if not _unchanged():
        return None
    paths: list[str] = []
    seen: set[int] = set()

    def add(part: nn.Module, path: str) -> bool:
        if id(part) in seen or not is_plain(part):
            return False
        seen.add(id(part))
        if type(part) is nn.Sequential:
            return all(add(child, f"{path}.{name}") for name, child in part._modules.items() if child is not None)
        if part._modules or part._buffers or type(part) not in (nn.Linear, nn.Identity):
            return False
        if any(value is not None and type(value) is not nn.Parameter for value in part._parameters.values()):
            return False
        if type(part) is nn.Linear and set(part._parameters) != {"weight", "bias"}:
            return False
        paths.append(path)
        return True

    return paths if add(module, "0") and _distinct(module) else None


def mean_squared_error(loss_fn: Any) -> str | None:
    """Return the reduction of an unchanged `nn.MSELoss`, "mean" or "sum"; None for any other function."""
    if type(loss_fn) is not nn.MSELoss or not _unchanged() or not is_plain(loss_fn):
        return None
    reduction = loss_fn.reduction
    return reduction if reduction in ("mean", "sum") else None


def is_plain(module: nn.Module) -> bool:
    """Return whether a call of a module runs the forward of its class and nothing else."""
    own = vars(module)
    return not any(own.get(name) for name in _HOOKS) and "forward" not in own and own.get("_compiled_call_impl") is None


def _distinct(module: nn.Module) -> bool:
    """Return whether no parameter is used twice."""
    return len(list(module.parameters())) == len(list(module.named_parameters(remove_duplicate=False)))


def _unchanged() -> bool:
    """Return whether PyTorch does what it did when this was imported: no global hook, no mode, nothing replaced."""
    if any(getattr(torch_module, f"_global{name}", None) for name in _HOOKS):
        return False
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda") or _function_modes():
        return False
    return all(getattr(owner, name) is value for (owner, name), value in _ORIGINAL.items())


def _function_modes() -> bool:
    """Return whether a mode of PyTorch sees every call."""
    return bool(_get_current_function_mode_stack())  # type: ignore[no-untyped-call] # PyTorch's
