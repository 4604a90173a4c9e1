"""Rules that recognise a chain of linear layers: the symbol that each operation on samples and parameters returns.

A forward pass is followed with symbols instead of tensors: the samples, with the layers that they have passed, and the
parameters. `tracing` follows a module, `hesskern.torch.function_tracing` a function of the parameters.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class UnsupportedError(Exception):
    """An operation that no rule covers; its message, if it has one, is the reason."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A weight or bias under its name; `transposed`: the weight is the transposed tensor."""

    name: str
    tensor: Tensor
    transposed: bool = False

    @property
    def matrix(self) -> Tensor:
        """The weight as (out, in), also if it is stored as (in, out); a bias as it is."""
        return self.tensor.T if self.transposed else self.tensor


class Layer(NamedTuple):
    """One linear layer: its parameters with their names."""

    weight: Parameter
    bias: Parameter | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The weight, then the bias if there is one."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class TracedSamples:
    """Samples in rows, after some layers; `flat`: they had more dimensions, and were flattened to rows."""

    layers: tuple[Layer, ...] = ()
    flat: bool = False


@dataclass(frozen=True, slots=True)
class TracedShape:
    """The shape of samples; `count`: its first entry, the number of samples, which no layer changes."""

    count: bool = False


def passed(samples: TracedSamples, layer: Layer) -> TracedSamples:
    """Return the samples after one more layer."""
    for parameter in layer.parameters:
        for before in (earlier for other in samples.layers for earlier in other.parameters):
            _refuse_tied(before, parameter)
    name, shape = layer.weight.name, tuple(layer.weight.tensor.shape)
    if len(shape) != 2:
        raise UnsupportedError(f"the weight {name!r} has shape {shape}; expected a matrix")
    outputs, inputs = layer.weight.matrix.shape
    width = len(samples.layers[-1].weight.matrix) if samples.layers else inputs
    if width != inputs:
        raise UnsupportedError(
            f"the weight {name!r} takes {inputs} inputs, but the layer before it has {width} outputs"
        )
    if layer.bias is not None and layer.bias.tensor.shape != (outputs,):
        bias, size = layer.bias, tuple(layer.bias.tensor.shape)
        raise UnsupportedError(
            f"the parameter {bias.name!r} has shape {size}; expected ({outputs},) for the bias of the layer of {name!r}"
        )
    return replace(samples, layers=(*samples.layers, layer))


def _refuse_tied(first: Parameter, second: Parameter) -> None:
    one, other = first.tensor, second.tensor
    if (
        first.name == second.name
        or one is other
        or (one.device == other.device and one.data_ptr() == other.data_ptr() != 0)
    ):
        names = f"the parameter {first.name!r} is used twice"
        if first.name != second.name:
            names = f"the parameters {first.name!r} and {second.name!r} are the same tensor (tied weights)"
        raise UnsupportedError(f"{names}: a stack of independent layers has another Hessian")


# Rules, with PyTorch's names of the arguments -------------------------------------------------------------------------


def _linear(input: Any, weight: Any, bias: Any = None) -> TracedSamples:
    if (
        not isinstance(input, TracedSamples)
        or not isinstance(weight, Parameter)
        or not isinstance(bias, Parameter | None)
    ):
        raise UnsupportedError
    return passed(input, Layer(weight, bias))


def _linear_stack(x: TracedSamples, weights: Sequence[Parameter], biases: Sequence[Parameter | None]) -> TracedSamples:
    for weight, bias in zip(weights, biases, strict=True):
        x = _linear(x, weight, bias)
    return x


def _matmul(input: Any, other: Any) -> TracedSamples:
    if not isinstance(input, TracedSamples) or not isinstance(other, Parameter):
        raise UnsupportedError
    return passed(input, Layer(replace(other, transposed=not other.transposed)))


def _mm(input: Any, mat2: Any) -> TracedSamples:
    return _matmul(input, mat2)


def _add(input: Any, other: Any, *, alpha: float = 1) -> TracedSamples:
    samples, bias = (other, input) if isinstance(other, TracedSamples) else (input, other)
    if not isinstance(samples, TracedSamples):
        raise UnsupportedError
    if isinstance(bias, TracedSamples):
        raise UnsupportedError("it adds the outputs of two paths through the network (a residual connection)")
    if not isinstance(bias, Parameter) or alpha != 1:
        raise UnsupportedError("it adds a tensor that is not a bias")
    if not samples.layers:
        raise UnsupportedError(f"it adds the parameter {bias.name!r} to the data, before the first layer")
    last = samples.layers[-1]
    if last.bias is not None:
        raise UnsupportedError(
            f"it adds the parameter {bias.name!r} after a layer that has the bias {last.bias.name!r}"
        )
    return passed(replace(samples, layers=samples.layers[:-1]), last._replace(bias=bias))


def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> TracedSamples:
    if beta != 1 or alpha != 1:
        raise UnsupportedError
    return _add(_matmul(mat1, mat2), input)


def _transposed(x: Any, *dims: Any) -> Parameter:
    if not isinstance(x, Parameter) or x.tensor.ndim != 2 or (dims and {dim % 2 for dim in _plain(dims)} != {0, 1}):
        raise UnsupportedError
    return replace(x, transposed=not x.transposed)


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if training and p > 0:
        raise UnsupportedError("it drops at random in training mode; call model.eval()")
    return input


def _flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> TracedSamples:
    if not isinstance(input, TracedSamples) or start_dim != 1 or end_dim != -1:
        raise UnsupportedError("expected start_dim=1, which keeps samples in rows")
    return input if input.layers else replace(input, flat=True)


def _view(input: Any, *shape: Any) -> TracedSamples:
    sizes = _plain(shape)
    if not isinstance(input, TracedSamples) or len(sizes) != 2:
        raise UnsupportedError("expected rows of samples, as from x.flatten(1)")
    rows, columns = sizes
    if rows not in (-1, TracedShape(count=True)) or not isinstance(columns, int) or rows == columns:
        raise UnsupportedError("expected rows of samples, as from x.flatten(1)")
    if not input.layers:
        return replace(input, flat=True)
    if columns not in (-1, len(input.layers[-1].weight.matrix)):
        raise UnsupportedError("it splits rows of samples")
    return input


def _size(input: Any, dim: int | None = None) -> TracedShape:
    if not isinstance(input, TracedSamples) or dim not in (None, 0):
        raise UnsupportedError
    return TracedShape(count=dim == 0)


def _item(shape: Any, index: Any) -> TracedShape:
    if not isinstance(shape, TracedShape) or shape.count or index != 0:
        raise UnsupportedError
    return TracedShape(count=True)


def _same(x: Any) -> Any:
    return x


def _attribute(x: Any, name: str) -> Any:
    rules: dict[str, Callable[[Any], Any]] = {"T": _transposed, "mT": _transposed, "shape": _size}
    if name not in rules:
        raise UnsupportedError
    return rules[name](x)


def _plain(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return sizes that are passed one by one or as one tuple."""
    if len(values) == 1 and isinstance(values[0], Sequence):
        return tuple(values[0])
    return tuple(values)


#: Rules by the name of a function or of a tensor's method.
RULES: Mapping[str, Callable[..., Any]] = {
    "linear": _linear, "linear_stack": _linear_stack,
    "matmul": _matmul, "mm": _mm, "addmm": _addmm, "add": _add, "t": _transposed,
    "transpose": _transposed, "permute": _transposed, "swapaxes": _transposed, "dropout": _dropout,
    "flatten": _flatten, "view": _view, "reshape": _view, "size": _size, "contiguous": _same,
    "getitem": _item, "getattr": _attribute,
}  # fmt: skip
#: The names of functions by the functions themselves: a user's function may also be called "linear".
FUNCTIONS: dict[Any, str] = {
    functional.linear: "linear",
    torch.matmul: "matmul", torch.mm: "mm", operator.matmul: "matmul",
    torch.addmm: "addmm", torch.add: "add", operator.add: "add", operator.iadd: "add", torch.t: "t",
    torch.transpose: "transpose", torch.permute: "permute", torch.swapaxes: "swapaxes",
    functional.dropout: "dropout", torch.dropout: "dropout", torch.flatten: "flatten", torch.reshape: "reshape",
    operator.getitem: "getitem", getattr: "getattr",
}  # fmt: skip


def recognise(function: Any, name: str) -> None:
    """Use the rule `name` for calls of one of this package's own functions."""
    FUNCTIONS[function] = name


def apply(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the symbol of an operation's result, from symbols and constants.

    Raises
    ------
    UnsupportedError
        If no rule covers it, or not with these arguments.
    """
    rule = RULES.get(name)
    if rule is None:
        raise UnsupportedError
    try:
        return rule(*args, **kwargs)
    except TypeError as error:  # an argument that the rule does not know
        raise UnsupportedError from error


def described(function: Any) -> str:
    """Return a function's name as users write it."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":  # of a property of tensors
        return f"the attribute Tensor.{function.__self__.__name__}"
    if getattr(Tensor, name, None) is function:
        return f"the method Tensor.{name}"
    for prefix, namespace in (("torch.", torch), ("torch.nn.functional.", functional), ("operator.", operator)):
        if getattr(namespace, name, None) is function:
            return f"the function {prefix}{name}"
    return f"the function {name}"
