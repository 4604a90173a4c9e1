"""From a user's function of the parameters to its problem: a squared loss of a linear network on fixed data.

The function is called once, and each operation of PyTorch is followed with symbols: the layers that the data pass
(`hesskern.torch_modules.chain`), then the residual, its square, sums and factors (`squared_error_rules`). Then it is
checked at other parameters (`function_verification`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from hesskern.torch.data import reduced
from hesskern.torch.function_verification import is_constant, verify
from hesskern.torch.model_problem import ModelProblem, RequestedParameter
from hesskern.torch.reduced_loss import ReducedLoss
from hesskern.torch.squared_error_rules import RULES, Residual, Squared
from hesskern.torch.vector_slices import VectorSlice, offset, split_leaf
from hesskern.torch_modules import tracing
from hesskern.torch_modules.chain import Parameter, TracedSamples, UnsupportedError, apply, described

#: Operations that do not read a tensor's numbers, and whose results are not tensors.
_METADATA = {
    "size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "is_contiguous", "is_floating_point",
    "is_complex", "__len__", "__repr__", "__format__", "__get__",
}  # fmt: skip
#: Operations that change only the shape, not the numbers or their order.
_SHAPES = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "view_as", "reshape_as", "contiguous"}
#: The arguments of layers, and the one of them that holds the samples.
_ARGUMENTS = {
    "linear": ("input", "weight", "bias"), "matmul": ("input", "other"), "mm": ("input", "mat2"),
    "addmm": ("input", "mat1", "mat2"),
}  # fmt: skip
_SAMPLES_ARGUMENT = {"linear": "input", "matmul": "input", "mm": "input", "addmm": "mat1"}
#: Names for the same operation.
_SYNONYMS = {
    "T": "t", "mT": "t", "radd": "add", "rmul": "mul", "truediv": "div", "true_divide": "div", "subtract": "sub",
    "multiply": "mul", "divide": "div", "mv": "matmul",
}  # fmt: skip


class TracedLoss(NamedTuple):
    """A function as the problem that was traced from it."""

    problem: ModelProblem | None  # over all leaves in order, each cut into its parameters; None: it depends on no leaf
    leaves: Sequence[RequestedParameter]
    unused: Sequence[str]  # leaves that the function does not depend on

    def dense(self, reference: Tensor) -> Tensor:
        """Return the matrix (P, P); `reference` gives the dtype and device of a zero matrix."""
        if self.problem is not None:
            return self.problem.dense()
        size = sum(leaf.size for leaf in self.leaves)
        return torch.zeros(size, size, dtype=reference.dtype, device=reference.device)


def trace_loss(
    function: Callable[..., Any],
    leaves: Sequence[Any],
    names: Sequence[str],
    *,
    gauss_newton: bool = False,
    chosen: Sequence[str] | None = None,
) -> TracedLoss:
    """Return the problem of a function that is a squared loss, with its parameters in this order.

    Parameters
    ----------
    function : callable
        Takes the list of leaves, returns a tensor with one number.
    leaves : sequence of tensors
        The parameters, at the point of the Hessian.
    names : sequence of str
        Their names in results and messages.
    gauss_newton : bool
        Whether to take the Gauss-Newton part instead of the Hessian.
    chosen : sequence of str, optional
        Take derivatives with respect to these leaves only.

    Raises
    ------
    TypeError, ValueError
        If it is not a squared loss of a linear network of these parameters; the message names the first operation that
        does not fit.
    """
    for name, leaf in zip(names, leaves, strict=True):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"{name} is a {type(leaf).__name__}; expected a tensor.")
        if not leaf.is_floating_point():
            raise TypeError(f"{name} is {leaf.dtype}; expected torch.float64 (or torch.float32).")
    # Copies, so that the model's own parameters are constants if the function uses them too.
    copies = [leaf.detach().clone() for leaf in leaves]
    recorder = _Recorder(copies, names)
    with torch.no_grad(), recorder.following():
        value = function(copies)
    symbol = recorder.symbol(value)
    all_leaves = [RequestedParameter(name, leaf.shape) for name, leaf in zip(names, leaves, strict=True)]
    if symbol is value and isinstance(value, Tensor) and value.numel() == 1 and is_constant(function, copies):
        return TracedLoss(None, all_leaves, list(names))
    if not isinstance(symbol, Squared) or value.numel() != 1 or recorder.data is None:
        result = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"func returns {result} that is not a squared loss of the parameters; expected one number: 0.5 * "
            "((model(X) - Y) ** 2).sum(), nn.MSELoss() or another multiple of the squared error."
        )
    residual = symbol.residual
    chain = tracing.Chain(residual.samples.layers, flat=False)
    tracing.check(chain)
    X = recorder.data.reshape(-1, chain.reference.shape[1])
    Y = residual.targets.reshape(-1, chain.outputs)
    scale = 2.0 * symbol.factor * residual.factor**2
    if not scale > 0:
        raise ValueError(f"func is {scale / 2:.6g} times a squared error; expected a factor greater than 0.")
    data, samples = reduced((X, Y), chain)
    pieces = {
        parameter.name: recorder.pieces[parameter.name]
        for parameter in chain.parameters
        if parameter.name in recorder.pieces
    }
    verify(function, dict(zip(names, copies, strict=True)), pieces, chain, (X, Y), scale)
    requested = [
        parameter
        for leaf in all_leaves
        if chosen is None or leaf.name in chosen
        for parameter in split_leaf(leaf, pieces, chain.parameters)
    ]
    used = {piece.leaf for piece in pieces.values()}
    unused = [leaf.name for leaf in all_leaves if leaf.name not in used]
    problem = ModelProblem(chain, ReducedLoss(data, samples, scale), requested, gauss_newton=gauss_newton)
    return TracedLoss(problem, all_leaves, unused)


class _Recorder(TorchFunctionMode):
    """Follows all operations on the parameters."""

    def __init__(self, leaves: Sequence[Tensor], names: Sequence[str]) -> None:
        super().__init__()
        #: By the tensor's id; the tensors are kept, so that no other tensor gets the same id.
        self._symbols: dict[int, tuple[Tensor, Any]] = {
            id(leaf): (leaf, Parameter(name, leaf)) for leaf, name in zip(leaves, names, strict=True)
        }
        #: The positions of parameters in the leaves.
        self.pieces = {name: VectorSlice(name, 0) for name in names}
        self._constants = 0
        self.data: Tensor | None = None

    @contextmanager
    def following(self) -> Iterator[None]:
        try:
            with self:
                yield
        except _RefusedError as error:
            raise ValueError(str(error)) from error

    def symbol(self, value: Any) -> Any:
        """Return the symbol of a tensor; a constant is its own symbol."""
        entry = self._symbols.get(id(value))
        return value if entry is None else entry[1]

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        flat = pytree.tree_leaves((list(args), dict(kwargs)))
        if not any(id(value) in self._symbols for value in flat):
            return out
        name = getattr(func, "__name__", "")
        if not isinstance(out, Tensor) and name in _METADATA:
            return out
        try:
            if self._cut(_operation(func, name), args, kwargs, out):
                return out
            if not isinstance(out, Tensor):
                raise UnsupportedError
            self._symbols[id(out)] = out, self._result(_operation(func, name), args, kwargs, out)
        except UnsupportedError as error:
            raise _RefusedError(_refusal(func, str(error))) from error
        return out

    def _cut(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> bool:
        """Follow an operation that cuts parameters out of a vector or reshapes them; return whether it does that."""
        whole = self.symbol(args[0]) if args else None
        if not isinstance(whole, Parameter) or whole.transposed or set(kwargs) - {"dim"}:
            return False
        if name in ("view", "reshape", "view_as", "reshape_as") and isinstance(out, Tensor):
            self._symbols[id(out)] = out, Parameter(whole.name, out)
            return True
        if whole.tensor.ndim != 1:
            return False
        within = offset(name, args, len(whole.tensor))
        if within is None:
            return False
        leaf, start = self.pieces[whole.name]
        for part in [out] if isinstance(out, Tensor) else out:
            first = start + within
            piece = Parameter(f"{leaf}[{first}:{first + len(part)}]", part)
            self.pieces[piece.name] = VectorSlice(leaf, first)
            self._symbols[id(part)] = part, piece
            within += len(part)
        return True

    def _result(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Any:
        """Return the symbol of an operation's result."""
        symbols = [self.symbol(value) for value in args]
        if name in _ARGUMENTS:
            if name in ("matmul", "mm", "mv") and isinstance(symbols[0], Parameter):
                raise UnsupportedError(
                    f"the weight {symbols[0].name!r} is the left factor (samples in columns, or a product of weights); "
                    "expected samples in rows, X @ W.T"
                )
            samples, named = _SAMPLES_ARGUMENT[name], {**dict(zip(_ARGUMENTS[name], args, strict=False)), **kwargs}
            operands = {
                key: (self._samples if key == samples else self._parameter)(value) for key, value in named.items()
            }
            weight = operands.get("other")
            if isinstance(weight, Parameter) and weight.tensor.ndim == 1:  # one output, which has no dimension
                operands["other"] = replace(weight, tensor=weight.tensor[:, None])
            return apply(name, (), operands)
        if name == "add" and len(args) == 2 and all(isinstance(symbol, Parameter | Tensor) for symbol in symbols):
            return self._data_plus_bias(args[0], args[1], kwargs)
        if not args:  # all arguments by keyword
            raise UnsupportedError
        first = args[0]
        if (
            name in _SHAPES
            and isinstance(symbols[0], TracedSamples | Residual | Squared)
            and out.numel() == first.numel()
        ):
            return symbols[0]
        compared = name in ("add", "sub", "rsub", "mse_loss") and len(args) > 1
        if compared and any(isinstance(symbol, TracedSamples | Residual) for symbol in symbols[:2]):
            return self._compared(name, args, symbols, kwargs, out)
        if name in RULES and isinstance(symbols[0], TracedSamples):  # without targets, or scaled
            residual = _residual(symbols[0], first)
            symbols = [residual if symbol is symbols[0] else symbol for symbol in symbols]
        rule = RULES.get(name)
        if rule is not None and not isinstance(symbols[0], Parameter):
            try:
                return rule(*symbols, result=out, count=first.numel() if isinstance(first, Tensor) else 1, **kwargs)
            except TypeError as error:  # an argument that the rule does not know
                raise UnsupportedError from error
        return apply(name, symbols, kwargs)

    def _samples(self, value: Any) -> Any:
        """Return the samples that a tensor holds; a constant is the data."""
        symbol = self.symbol(value)
        if isinstance(symbol, TracedSamples):
            # Samples may have any number of dimensions before the last one.
            if symbol.layers and value.shape[-1] != len(symbol.layers[-1].weight.matrix):
                raise UnsupportedError("it splits rows of samples")
            return symbol
        if not isinstance(symbol, Tensor):
            raise UnsupportedError
        if self.data is not None and self.data is not symbol:
            raise UnsupportedError("it applies a second network, to other data")
        self.data = symbol
        return TracedSamples()

    def _parameter(self, value: Any) -> Any:
        """Return the parameter that a tensor is; a constant becomes a parameter that is not differentiated."""
        symbol = self.symbol(value)
        if not isinstance(symbol, Tensor):
            return symbol
        self._constants += 1
        return Parameter(f"(constant {self._constants})", symbol.detach().clone())

    def _data_plus_bias(self, one: Tensor, other: Tensor, options: Mapping[str, Any]) -> TracedSamples:
        """Return data plus a bias: constant layers before it are part of the data; its own weight is the identity."""
        data, bias = (one, other) if isinstance(self.symbol(one), Tensor) else (other, one)
        if isinstance(self.symbol(data), Parameter) or data.ndim == 0 or options:
            raise UnsupportedError
        identity = torch.eye(data.shape[-1], dtype=data.dtype, device=data.device)
        samples = apply("linear", (self._samples(data), self._parameter(identity), self._parameter(bias)), {})
        assert isinstance(samples, TracedSamples)
        return samples

    def _compared(
        self, name: str, args: Sequence[Any], symbols: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
    ) -> Any:
        """Return the symbol of predictions plus a bias, or of predictions compared with targets."""
        if len(args) < 2 or not all(isinstance(value, Tensor) for value in args[:2]):
            raise UnsupportedError("it adds a tensor that is neither a bias nor the targets")
        first = isinstance(symbols[0], TracedSamples | Residual)
        one, other = (symbols[0], args[1]) if first else (symbols[1], args[0])
        constant = isinstance(self.symbol(other), Tensor)
        if name == "add" and isinstance(one, TracedSamples) and (not constant or other.ndim < out.ndim):
            return apply("add", [one, self._parameter(other)], kwargs)
        if not constant:
            raise UnsupportedError("the targets depend on the parameters")
        if args[0].shape != args[1].shape:
            shapes = f"{tuple(args[0].shape)} and {tuple(args[1].shape)}"
            raise UnsupportedError(f"it compares every prediction with every target, because their shapes are {shapes}")
        residual = _residual(one, other)
        if name == "mse_loss":
            return self._mean_squared(_minus(residual, other), *args[2:], **kwargs)
        if kwargs:
            raise UnsupportedError
        if name == "add":
            return _minus(residual, -other)
        difference = _minus(residual, other)  # the negative of it if the constant comes first
        return difference if first == (name == "sub") else replace(difference, factor=-difference.factor)

    @staticmethod
    def _mean_squared(
        residual: Residual, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
    ) -> Squared:
        if not size_average is reduce is weight is None:
            raise UnsupportedError
        return Squared(residual, 1.0 / residual.targets.numel() if reduction == "mean" else 1.0)


def _residual(value: TracedSamples | Residual, like: Tensor) -> Residual:
    """Return predictions as a residual with targets of zero."""
    return value if isinstance(value, Residual) else Residual(value, torch.zeros_like(like))


def _minus(residual: Residual, constant: Tensor) -> Residual:
    """Return a residual minus a constant: ``f (P - T) - C = f (P - (T + C / f))``."""
    return replace(residual, targets=residual.targets.reshape(constant.shape) + constant / residual.factor)


class _RefusedError(Exception):
    """A refusal of the recorder, which passes through the user's function."""


def _refusal(func: Any, reason: str) -> str:
    if reason:
        return f"func is refused at {described(func)}: {reason}."
    return (
        f"func is not a squared loss of a linear network: the first operation that does not fit is {described(func)}; "
        "expected a chain of linear layers, and a multiple of the squared error of its output."
    )


def _operation(func: Any, name: str) -> str:
    """Return one name for all spellings of an operation: "sub" for ``a - b`` and ``torch.sub``."""
    if name == "__get__":
        name = func.__self__.__name__
    plain = name.removeprefix("__").removesuffix("__") if name.startswith("__") else name
    return _SYNONYMS.get(plain, plain)
