"""What operations make of predictions and targets on their way to a squared loss: the rules by which one is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from hesskern.torch_modules.chain import Samples, UnsupportedError


@dataclass(frozen=True, slots=True)
class Residual:
    """Predictions minus targets, or the other way round, times a factor."""

    samples: Samples
    targets: Tensor
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Norm:
    """The Euclidean norm of all numbers of a residual."""

    residual: Residual


@dataclass(frozen=True, slots=True)
class Squared:
    """Numbers whose sum is `factor` times the squared norm of a residual, up to a constant."""

    residual: Residual
    factor: float


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        raise UnsupportedError
    if isinstance(value, Tensor) and value.ndim > 0:
        raise UnsupportedError("it weighs numbers differently")
    return float(value)


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, Residual):
        return replace(value, factor=value.factor * factor)
    if isinstance(value, Norm):
        return Norm(_scaled(value.residual, factor))
    if isinstance(value, Squared):
        return replace(value, factor=value.factor * factor)
    raise UnsupportedError


def _multiplied(one: Any, other: Any, *, made: Tensor, count: int) -> Any:
    if isinstance(one, Residual | Norm) and one is other:
        return _powered(one, 2, made=made, count=count)
    if not isinstance(one, Residual | Norm | Squared):
        one, other = other, one
    return _scaled(one, _number(other))


def _divided(one: Any, other: Any, *, made: Tensor, count: int) -> Any:
    return _scaled(one, 1.0 / _number(other))


def _negative(value: Any, *, made: Tensor, count: int) -> Any:
    return _scaled(value, -1.0)


def _powered(value: Any, exponent: Any = 2, *, made: Tensor, count: int) -> Squared:
    if not isinstance(value, Residual | Norm) or _number(exponent) != 2:
        raise UnsupportedError
    return Squared(value.residual if isinstance(value, Norm) else value, 1.0)


def _summed(value: Any, *dims: Any, made: Tensor, count: int, **options: Any) -> Squared:
    if not isinstance(value, Squared) or set(options) - {"dim", "axis", "keepdim"}:
        raise UnsupportedError
    return value


def _averaged(value: Any, *dims: Any, made: Tensor, count: int, **options: Any) -> Squared:
    summed = _summed(value, *dims, made=made, count=count, **options)
    return replace(summed, factor=summed.factor * made.numel() / count)


def _norm(
    value: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None, out: Any = None,
    *, made: Tensor, count: int,
) -> Norm:  # fmt: skip
    if p not in ("fro", 2) or dtype is not None:
        raise UnsupportedError
    return _whole(value, made)


def _vector_norm(
    value: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, made: Tensor, count: int
) -> Norm:  # fmt: skip
    if ord != 2:
        raise UnsupportedError
    return _whole(value, made)


def _matrix_norm(
    value: Any, ord: Any = "fro", dim: Any = None, keepdim: bool = False, *, made: Tensor, count: int
) -> Norm:  # fmt: skip
    if ord not in ("fro", None):  # 2 would be the largest singular value
        raise UnsupportedError
    return _whole(value, made)


def _whole(value: Any, made: Tensor) -> Norm:
    if not isinstance(value, Residual) or made.ndim > 0:
        raise UnsupportedError
    return Norm(value)


def _shifted(one: Any, other: Any, *, made: Tensor, count: int) -> Squared:
    # A constant beside the loss moves no derivative.
    value, constant = (one, other) if isinstance(one, Squared) else (other, one)
    if not isinstance(value, Squared) or made.ndim > 0:
        raise UnsupportedError
    _number(constant)
    return value


#: Rules by the name of the operation: symbols, the tensor that was made, and how many numbers went in.
RULES: Mapping[str, Callable[..., Any]] = {
    "mul": _multiplied, "div": _divided, "neg": _negative, "pow": _powered, "square": _powered, "sum": _summed,
    "mean": _averaged, "add": _shifted, "norm": _norm, "linalg_vector_norm": _vector_norm,
    "linalg_norm": _matrix_norm, "linalg_matrix_norm": _matrix_norm,
}  # fmt: skip
