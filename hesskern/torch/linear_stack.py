r"""A stack of linear layers as one operation of PyTorch, forward and backward in hesskern's C++ kernels.

The backward pass of the stack is also an operation, and its derivative is again a stack. Along a direction ``(u, U_l)``
of samples and weights, values and their tangents go together through the network with the weights

    ``[[W_l, 0], [U_l, W_l]]``,

The predictions of this network contain the tangents, and its backward pass from ``[0, delta]`` is the derivative of the
backward pass. So you can differentiate both operations any number of times, and all of them run in the same two
kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function

from hesskern import backends
from hesskern._base import checks
from hesskern._base.flat_layout import split_as
from hesskern.backends.protocol import HostBackend, PlainLayers
from hesskern.torch_modules import chain


def linear_stack(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None] | None = None) -> Tensor:
    """Return ``x @ W_1.T + b_1`` and so on through all layers, computed by hesskern's kernels.

    You can differentiate it any number of times, with `torch.autograd` and `torch.func.grad`. With many samples and few
    inputs and outputs, the layers are multiplied first, so the cost of wide hidden layers does not grow with the number
    of samples. The hidden activations are not kept; the backward pass computes them again.

    Parameters
    ----------
    x : (..., in) tensor, float32 or float64, on the CPU
        Samples in rows, as ``nn.functional.linear`` takes them.
    weights : sequence of (out, in) tensors
        As ``nn.Linear.weight``, in the dtype of `x`.
    biases : sequence of (out,) tensors or None, optional
        One entry for each layer; None for a layer (or for all layers) without bias.

    Returns
    -------
    (..., out) tensor

    Raises
    ------
    TypeError
        If a tensor is on another device, or has another dtype: nothing is moved or converted.
    ValueError
        If shapes do not fit.

    Notes
    -----
    The backend is always "cpp". On a GPU use ``nn.functional.linear``, which is the same function. `torch.vmap` and
    forward-mode differentiation are not supported; PyTorch raises an error for them.

    Examples
    --------
    >>> import torch
    >>> from hesskern.torch import linear_stack
    >>> W1 = torch.tensor([[1.0, 2.0]], requires_grad=True)
    >>> W2 = torch.tensor([[3.0]], requires_grad=True)
    >>> out = linear_stack(torch.tensor([[1.0, 1.0]]), [W1, W2])
    >>> out
    tensor([[9.]], grad_fn=<_LinearStackBackward>)
    >>> torch.autograd.grad(out.sum(), [W1, W2])
    (tensor([[3., 3.]]), tensor([[3.]]))
    """
    weights = tuple(checks.entries(weights, "weights", "a list of tensors (out, in), one for each layer"))
    if biases is None:
        biases = (None,) * len(weights)
    else:
        biases = tuple(checks.entries(biases, "biases", "a list of tensors (out,) or None, one for each layer"))
    involved = (x, *weights, *(bias for bias in biases if bias is not None))
    if has_torch_function(involved):  # torch.fx and other tracers see one operation
        traced: Tensor = handle_torch_function(linear_stack, involved, x, weights, biases)
        return traced
    _check(x, weights, biases)
    predictions = _forward(x.reshape(-1, x.shape[-1]), len(weights), *weights, *biases)
    return predictions if x.ndim == 2 else predictions.reshape(*x.shape[:-1], predictions.shape[-1])


chain.recognise(linear_stack, "linear_stack")


class LinearStack(nn.Sequential):
    """``nn.Sequential`` of ``nn.Linear`` layers that runs as one operation, see `linear_stack`.

    Its parameters have the same names, shapes and values as in an ``nn.Sequential``, so a ``state_dict`` fits both.

    Parameters
    ----------
    *layers : nn.Linear
        At least one.

    Raises
    ------
    TypeError
        If a layer is not an ``nn.Linear``, has hooks, or is parametrized: one operation for all layers would ignore
        this.

    Examples
    --------
    >>> import torch
    >>> from hesskern.torch import LinearStack
    >>> _ = torch.manual_seed(0)
    >>> stack = LinearStack(torch.nn.Linear(5, 100), torch.nn.Linear(100, 5))
    >>> stack(torch.randn(7, 5)).shape
    torch.Size([7, 5])
    >>> [name for name, _ in stack.named_parameters()]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """

    def __init__(self, *layers: nn.Linear) -> None:
        if not layers:
            raise TypeError("LinearStack got no layers; expected at least one nn.Linear.")
        for number, layer in enumerate(layers):
            if type(layer) is not nn.Linear:
                raise TypeError(f"layer {number} is a {type(layer).__name__}; expected nn.Linear.")
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the predictions (..., out)."""
        layers: list[Any] = list(self)
        for number, layer in enumerate(layers):
            if type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks:
                raise TypeError(
                    f"layer {number} of LinearStack is a {type(layer).__name__} or has forward hooks, which one "
                    "operation for all layers would ignore; expected plain nn.Linear layers: use nn.Sequential."
                )
        return linear_stack(x, [layer.weight for layer in layers], [layer.bias for layer in layers])


def _check(x: Any, weights: Sequence[Any], biases: Sequence[Any]) -> None:
    if len(weights) == 0 or len(biases) != len(weights):
        raise ValueError(
            f"weights has {len(weights)} entries and biases {len(biases)}; expected at least one layer, and a bias or "
            "None for each."
        )
    _check_tensor(x, "x", x)
    if x.ndim == 0:
        raise ValueError("x has 0 dimensions; expected shape (..., in).")
    width = x.shape[-1]
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        _check_tensor(weight, f"weights[{number}]", x)
        if weight.ndim != 2 or weight.shape[1] != width or 0 in weight.shape:
            raise ValueError(f"weights[{number}] has shape {tuple(weight.shape)}; expected (out, {width}).")
        width = weight.shape[0]
        if bias is not None:
            _check_tensor(bias, f"biases[{number}]", x)
            if bias.shape != (width,):
                raise ValueError(f"biases[{number}] has shape {tuple(bias.shape)}; expected ({width},).")


def _check_tensor(tensor: Any, name: str, reference: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor.")
    if tensor.device.type != "cpu":
        raise TypeError(
            f"{name} is on {tensor.device}; expected cpu, the device of these kernels: use nn.functional.linear there."
        )
    if tensor.dtype not in (torch.float32, torch.float64) or tensor.layout != torch.strided:
        kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
        raise TypeError(f"{name} is {kind}; expected torch.float32 or torch.float64.")
    if tensor.dtype != reference.dtype:
        raise TypeError(
            f"{name} is {tensor.dtype}, but x is {reference.dtype}; expected one dtype: convert one of them."
        )


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


def _layers(depth: int, parameters: Sequence[Tensor | None]) -> PlainLayers:
    arrays: Any = tuple(None if parameter is None else _array(parameter) for parameter in parameters)
    return PlainLayers(arrays[:depth], arrays[depth:])


def _forward(*inputs: Any) -> Tensor:
    predictions: Tensor = _LinearStack.apply(*inputs)  # type: ignore[no-untyped-call]
    return predictions


def _kernels() -> HostBackend:
    return backends.get_on_host("cpp", "the model is")


def _backward(*inputs: Any) -> tuple[Tensor | None, ...]:
    gradients: tuple[Tensor | None, ...] = _LinearStackGradient.apply(*inputs)  # type: ignore[no-untyped-call]
    return gradients


class _LinearStack(Function):
    """Predictions (N, out) from samples (N, in), the number of layers, their weights and their biases."""

    @staticmethod
    def forward(x: Tensor, depth: int, *parameters: Tensor | None) -> Tensor:
        return torch.from_numpy(_kernels().forward(_layers(depth, parameters), _array(x)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.depth, *parameters = inputs
        ctx.save_for_backward(x, *parameters)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        samples, _, *needs = ctx.needs_input_grad
        # A differentiable operation only if its result may be differentiated.
        backward = _backward if torch.is_grad_enabled() else _LinearStackGradient.forward
        below, *gradients = backward(delta, x, ctx.depth, samples, any(needs), *parameters)
        return below, None, *(slope if needed else None for slope, needed in zip(gradients, needs, strict=True))


class _LinearStackGradient(Function):
    """Gradients with respect to the samples and the parameters; None for gradients that are not needed."""

    @staticmethod
    def forward(
        delta: Tensor, x: Tensor, depth: int, samples: bool, parameter_gradients: bool, *parameters: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        layers = _layers(depth, parameters)
        flat, below = _kernels().backward(
            layers, _array(x), _array(delta), parameters=parameter_gradients, samples=samples
        )
        gradients = [None] * (2 * depth) if flat is None else _split(layers, flat)
        return None if below is None else torch.from_numpy(below), *gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        delta, x, ctx.depth, _, _, *parameters = inputs
        ctx.save_for_backward(delta, x, *parameters)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        delta, x, *parameters = ctx.saved_tensors
        predictions, samples, _, _, _, *needs = ctx.needs_input_grad
        depth, outputs, inputs = ctx.depth, delta.shape[1], x.shape[1]
        doubled = [
            None if parameter is None else _doubled(parameter, direction)
            for parameter, direction in zip(parameters, directions, strict=True)
        ]
        both = torch.cat([x, torch.zeros_like(x) if u is None else u], dim=1)
        tangent = _forward(both, depth, *doubled)[:, outputs:] if predictions else None
        seed = torch.cat([torch.zeros_like(delta), delta], dim=1)
        below, *gradients = _backward(seed, both, depth, samples, any(needs), *doubled)
        return (
            tangent,
            None if below is None else below[:, :inputs],
            None,
            None,
            None,
            *(
                _undoubled(slope) if needed and slope is not None else None
                for slope, needed in zip(gradients, needs, strict=True)
            ),
        )


def _split(layers: PlainLayers, flat: Any) -> list[Tensor | None]:
    """Return the weights' gradients, then the biases', from a vector in `named_parameters()` order."""
    weights, biases = split_as(layers.weights, layers.biases, flat)
    return [None if part is None else torch.from_numpy(part) for part in (*weights, *biases)]


def _doubled(parameter: Tensor, direction: Tensor | None) -> Tensor:
    """Return the parameter of the network for values and tangents."""
    zero = torch.zeros_like(parameter)
    along = zero if direction is None else direction
    if parameter.ndim == 1:
        return torch.cat([parameter, along])
    return torch.cat([torch.cat([parameter, zero], dim=1), torch.cat([along, parameter], dim=1)])


def _undoubled(gradient: Tensor) -> Tensor:
    """Return the gradient with respect to a weight, which `_doubled` holds twice, or a bias, which it holds once."""
    rows = gradient.shape[0] // 2
    if gradient.ndim == 1:
        return gradient[:rows]
    columns = gradient.shape[1] // 2
    return gradient[:rows, :columns] + gradient[rows:, columns:]
