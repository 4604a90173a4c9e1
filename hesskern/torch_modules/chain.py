"""What operations make of samples on their way through a linear network: the rules by which a chain of layers is known.

A forward pass is followed with symbols in the place of tensors: the samples, after the layers they have passed, and the
parameters. `tracing` follows a module, `hesskern.compat` a function of the parameters.
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
    """An operation that no rule covers; its message, where it has one, is the reason."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A weight or bias under its name; `transposed`: the weight in its place is the transposed tensor."""

    name: str
    tensor: Tensor
    transposed: bool = False

    @property
    def matrix(self) -> Tensor:
        """The weight (out, in), whichever way it is kept; a bias as it is."""
        return self.tensor.T if self.transposed else self.tensor


class Layer(NamedTuple):
    """One linear layer: its parameters and what they are called."""

    weight: Parameter
    bias: Parameter | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The weight, then the bias if there is one."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples in rows, after some layers; `flat`: they had more dimensions before, and were made rows."""

    layers: tuple[Layer, ...] = ()
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of samples; `count`: its first number, how many there are, which no layer changes."""

    count: bool = False


def passed(samples: Samples, layer: Layer) -> Samples:
    """Return the samples after one more layer."""
    for parameter in layer.parameters:
        for before in (each for other in samples.layers for each in other.parameters):
            _refuse_tied(before, parameter)
    name, shape = layer.weight.name, tuple(layer.weight.tensor.shape)
    if len(shape) != 2:
        raise UnsupportedError(f"the weight {name!r} has shape {shape}; expected a matrix")
    outputs, inputs = layer.weight.matrix.shape
    given = len(samples.layers[-1].weight.matrix) if samples.layers else inputs
    if given != inputs:
        raise UnsupportedError(f"the weight {name!r} takes {inputs} numbers a sample, the layer before gives {given}")
    if layer.bias is not None and layer.bias.tensor.shape != (outputs,):
        bias, size = layer.bias, tuple(layer.bias.tensor.shape)
        raise UnsupportedError(f"the parameter {bias.name!r} of shape {size} is no bias of the layer of {name!r}")
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
            names = f"the parameters {first.name!r} and {second.name!r} are one (tied weights)"
        raise UnsupportedError(f"{names}: its Hessian is not that of a stack of independent layers")


# Rules, whose arguments are called as PyTorch calls them --------------------------------------------------------------


def _linear(input: Any, weight: Any, bias: Any = None) -> Samples:
    if not isinstance(input, Samples) or not isinstance(weight, Parameter) or not isinstance(bias, Parameter | None):
        raise UnsupportedError
    return passed(input, Layer(weight, bias))


def _linear_stack(x: Samples, weights: Sequence[Parameter], biases: Sequence[Parameter | None]) -> Samples:
    for weight, bias in zip(weights, biases, strict=True):
        x = _linear(x, weight, bias)
    return x


def _matmul(input: Any, other: Any) -> Samples:
    if not isinstance(input, Samples) or not isinstance(other, Parameter):
        raise UnsupportedError
    return passed(input, Layer(replace(other, transposed=not other.transposed)))


def _mm(input: Any, mat2: Any) -> Samples:
    return _matmul(input, mat2)


def _add(input: Any, other: Any, *, alpha: float = 1) -> Samples:
    samples, bias = (other, input) if isinstance(other, Samples) else (input, other)
    if not isinstance(samples, Samples):
        raise UnsupportedError
    if isinstance(bias, Samples):
        raise UnsupportedError("it adds what two paths through the network give (a residual connection)")
    if not isinstance(bias, Parameter) or alpha != 1:
        raise UnsupportedError("what it adds is no bias")
    if not samples.layers:
        raise UnsupportedError(f"it adds the parameter {bias.name!r} to the data, before the first layer")
    last = samples.layers[-1]
    if last.bias is not None:
        raise UnsupportedError(
            f"it adds the parameter {bias.name!r} after a layer that has the bias {last.bias.name!r}"
        )
    return passed(replace(samples, layers=samples.layers[:-1]), last._replace(bias=bias))


def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Samples:
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


def _flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Samples:
    if not isinstance(input, Samples) or start_dim != 1 or end_dim != -1:
        raise UnsupportedError("expected start_dim=1, which leaves samples in rows")
    return input if input.layers else replace(input, flat=True)


def _view(input: Any, *shape: Any) -> Samples:
    sizes = _plain(shape)
    if not isinstance(input, Samples) or len(sizes) != 2:
        raise UnsupportedError("expected rows of samples, as x.flatten(1) gives")
    rows, columns = sizes
    if rows not in (-1, Shape(count=True)) or not isinstance(columns, int) or rows == columns:
        raise UnsupportedError("expected rows of samples, as x.flatten(1) gives")
    if not input.layers:
        return replace(input, flat=True)
    if columns not in (-1, len(input.layers[-1].weight.matrix)):
        raise UnsupportedError("it takes rows of samples apart")
    return input


def _size(input: Any, dim: int | None = None) -> Shape:
    if not isinstance(input, Samples) or dim not in (None, 0):
        raise UnsupportedError
    return Shape(count=dim == 0)


def _item(shape: Any, index: Any) -> Shape:
    if not isinstance(shape, Shape) or shape.count or index != 0:
        raise UnsupportedError
    return Shape(count=True)


def _same(x: Any) -> Any:
    return x


def _attribute(x: Any, name: str) -> Any:
    rules: dict[str, Callable[[Any], Any]] = {"T": _transposed, "mT": _transposed, "shape": _size}
    if name not in rules:
        raise UnsupportedError
    return rules[name](x)


def _plain(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return sizes given one by one or as one tuple."""
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
#: Functions by what they do, not by their name: a function of somebody else may be called "linear".
FUNCTIONS: dict[Any, str] = {
    functional.linear: "linear",
    torch.matmul: "matmul", torch.mm: "mm", operator.matmul: "matmul",
    torch.addmm: "addmm", torch.add: "add", operator.add: "add", operator.iadd: "add", torch.t: "t",
    torch.transpose: "transpose", torch.permute: "permute", torch.swapaxes: "swapaxes",
    functional.dropout: "dropout", torch.dropout: "dropout", torch.flatten: "flatten", torch.reshape: "reshape",
    operator.getitem: "getitem", getattr: "getattr",
}  # fmt: skip


def recognise(function: Any, name: str) -> None:
    """Have calls of a function of this package's own read by the rule `name`."""
    FUNCTIONS[function] = name


def apply(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return what an operation makes of symbols and constants.

    Raises
    ------
    UnsupportedError
        If there is no rule for it, or not with these arguments.
    """
    rule = RULES.get(name)
    if rule is None:
        raise UnsupportedError
    try:
        return rule(*args, **kwargs)
    except TypeError as error:  # an argument that the rule does not know
        raise UnsupportedError from error


def described(function: Any) -> str:
    """Return a function's name as a user writes it."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":  # of a property of tensors
        return f"the attribute Tensor.{function.__self__.__name__}"
    if getattr(Tensor, name, None) is function:
        return f"the method Tensor.{name}"
    for prefix, namespace in (("torch.", torch), ("torch.nn.functional.", functional), ("operator.", operator)):
        if getattr(namespace, name, None) is function:
            return f"the function {prefix}{name}"
    return f"the function {name}"
