"""Rules that recognise a squared loss: the symbol that each operation on predictions and targets returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from hesskern.torch_modules.chain import TracedSamples, UnsupportedError


@dataclass(frozen=True, slots=True)
class Residual:
    """A factor times predictions minus targets; the factor is negative for targets minus predictions."""

    samples: TracedSamples
    targets: Tensor
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Norm:
    """The Euclidean norm of all entries of a residual."""

    residual: Residual


@dataclass(frozen=True, slots=True)
class Squared:
    """A tensor whose sum is `factor` times the squared norm of a residual, up to a constant."""

    residual: Residual
    factor: float


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        raise UnsupportedError
    if isinstance(value, Tensor) and value.ndim > 0:
        raise UnsupportedError("it gives entries different weights")
    return float(value)


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, Residual):
        return replace(value, factor=value.factor * factor)
    if isinstance(value, Norm):
        return Norm(_scaled(value.residual, factor))
    if isinstance(value, Squared):
        return replace(value, factor=value.factor * factor)
    raise UnsupportedError


def _multiplied(one: Any, other: Any, *, result: Tensor, count: int) -> Any:
    if isinstance(one, Residual | Norm) and one is other:
        return _powered(one, 2, result=result, count=count)
    if not isinstance(one, Residual | Norm | Squared):
        one, other = other, one
    return _scaled(one, _number(other))


def _divided(one: Any, other: Any, *, result: Tensor, count: int) -> Any:
    return _scaled(one, 1.0 / _number(other))


def _negative(value: Any, *, result: Tensor, count: int) -> Any:
    return _scaled(value, -1.0)


def _powered(value: Any, exponent: Any = 2, *, result: Tensor, count: int) -> Squared:
    if not isinstance(value, Residual | Norm) or _number(exponent) != 2:
        raise UnsupportedError
    return Squared(value.residual if isinstance(value, Norm) else value, 1.0)


def _summed(value: Any, *dims: Any, result: Tensor, count: int, **options: Any) -> Squared:
    if not isinstance(value, Squared) or set(options) - {"dim", "axis", "keepdim"}:
        raise UnsupportedError
    return value


def _averaged(value: Any, *dims: Any, result: Tensor, count: int, **options: Any) -> Squared:
    summed = _summed(value, *dims, result=result, count=count, **options)
    return replace(summed, factor=summed.factor * result.numel() / count)


def _norm(
    value: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None, out: Any = None,
    *, result: Tensor, count: int,
) -> Norm:  # fmt: skip
    if p not in ("fro", 2) or dtype is not None:
        raise UnsupportedError
    return _whole(value, result)


def _vector_norm(
    value: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, result: Tensor, count: int
) -> Norm:  # fmt: skip
    if ord != 2:
        raise UnsupportedError
    return _whole(value, result)


def _matrix_norm(
    value: Any, ord: Any = "fro", dim: Any = None, keepdim: bool = False, *, result: Tensor, count: int
) -> Norm:  # fmt: skip
    if ord not in ("fro", None):  # 2 would be the largest singular value
        raise UnsupportedError
    return _whole(value, result)


def _whole(value: Any, result: Tensor) -> Norm:
    if not isinstance(value, Residual) or result.ndim > 0:
        raise UnsupportedError
    return Norm(value)


def _shifted(one: Any, other: Any, *, result: Tensor, count: int) -> Squared:
    # A constant that is added to the loss changes no derivative.
    value, constant = (one, other) if isinstance(one, Squared) else (other, one)
    if not isinstance(value, Squared) or result.ndim > 0:
        raise UnsupportedError
    _number(constant)
    return value


#: Rules by the name of the operation. Each takes symbols, the tensor that the operation returned (`result`), and the
#: number of entries of its first argument (`count`).
RULES: Mapping[str, Callable[..., Any]] = {
    "mul": _multiplied, "div": _divided, "neg": _negative, "pow": _powered, "square": _powered, "sum": _summed,
    "mean": _averaged, "add": _shifted, "norm": _norm, "linalg_vector_norm": _vector_norm,
    "linalg_norm": _matrix_norm, "linalg_matrix_norm": _matrix_norm,
}  # fmt: skip
