"""Whether a user's function is the squared loss that was traced from it.

A trace follows one call. Values at other parameters show control flow that depends on them; gradients show detached
tensors and custom backward functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hesskern.torch.vector_slices import VectorSlice
from hesskern.torch_modules import tracing


def is_constant(function: Callable[..., Any], leaves: Sequence[Tensor]) -> bool:
    """Return whether a function has no derivative with respect to any of its parameters."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        copies = [leaf.clone().requires_grad_() for leaf in leaves]
        value = function(copies)
        if not value.requires_grad:
            return True
        return all(slope is None for slope in torch.autograd.grad(value, copies, allow_unused=True))


def verify(
    function: Callable[..., Any],
    leaves: Mapping[str, Tensor],
    pieces: Mapping[str, VectorSlice],
    chain: tracing.Chain,
    data: Any,
    scale: float,
) -> None:
    """Compare the changes of the function and of the traced loss between three points, and their gradients.

    Parameters
    ----------
    function : callable
        Takes the list of leaves.
    leaves : mapping of str to Tensor
        By their names.
    pieces : mapping of str to VectorSlice
        Where in the leaves the parameters of the chain are.
    chain : Chain
        The network that was traced.
    data : pair of Tensor
        X and Y.
    scale : float
        The traced loss is half of it times the squared error.

    Raises
    ------
    ValueError
        If they differ: the function branches on the parameters' values, or has derivatives of its own.
    """

    def parameters_at(moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            parameter.name: pieces[parameter.name].of(moved, parameter.tensor.shape)
            for parameter in chain.parameters
            if parameter.name in pieces
        }

    generator = torch.Generator("cpu").manual_seed(0)
    function_values: list[float] = []
    chain_values: list[float] = []
    with torch.no_grad():
        for _ in range(3):
            moved = {name: _moved(tensor, generator) for name, tensor in leaves.items()}
            residual = chain.predicted(data[0], parameters_at(moved)) - data[1]
            chain_values.append(0.5 * scale * float(residual.square().sum()))
            function_values.append(float(function(list(moved.values()))))
    allowed = 100 * torch.finfo(chain.reference.dtype).eps ** 0.75 * max(map(abs, (*chain_values, *function_values)))
    if not all(
        abs((function_values[k] - function_values[0]) - (chain_values[k] - chain_values[0])) <= allowed for k in (1, 2)
    ):
        raise ValueError(
            "func is another function at other parameters; expected a squared loss of a linear network without control "
            "flow that depends on the parameters' values."
        )
    with torch.inference_mode(mode=False), torch.enable_grad():
        moved = {name: tensor.clone().requires_grad_() for name, tensor in moved.items()}
        residual = chain.predicted(data[0], parameters_at(moved)) - data[1]
        value = function(list(moved.values()))
        points = list(moved.values())
        expected_slopes = torch.autograd.grad(0.5 * scale * residual.square().sum(), points, allow_unused=True)
        slopes = torch.autograd.grad(value, points, allow_unused=True) if value.requires_grad else [None] * len(points)
    for name, slope, expected in zip(moved, slopes, expected_slopes, strict=True):
        off, size = tracing.difference(slope, expected)
        if off > 100 * torch.finfo(chain.reference.dtype).eps ** 0.5 * size:
            raise ValueError(
                f"func has the values of a squared loss, but another derivative with respect to {name}; expected a "
                "function without torch.no_grad, without detach, and without custom backward functions."
            )


def _moved(tensor: Tensor, generator: torch.Generator) -> Tensor:
    step = torch.randn(tensor.shape, generator=generator, dtype=torch.float64, device="cpu").to(tensor)
    return tensor + (tensor.std(correction=0) + 0.1) * step
