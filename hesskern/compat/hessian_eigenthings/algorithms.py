"""Version 1.0: the exact values of what its algorithms estimate."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from hesskern._base import checks
from hesskern.compat.hessian_eigenthings.operator import HessianOperator


class EigenResult(NamedTuple):
    """Eigenvalues (k,), eigenvectors in rows (k, P), ``|H v - λ v|`` (k,), 0 iterations, and all converged."""

    eigenvalues: Tensor
    eigenvectors: Tensor
    residuals: Tensor
    iterations: int
    converged: Tensor


class TraceResult(NamedTuple):
    """The trace, its standard error 0, and one sample: the trace itself."""

    estimate: float
    stderr: float
    samples: Tensor


def lanczos(
    operator: HessianOperator,
    *,
    k: int = 10,
    max_iter: int | None = None,
    tol: float = 1e-4,
    reorthogonalize: bool | None = None,
    which: str = "LM",
    seed: int | None = None,
    backend: Any = None,
) -> EigenResult:
    """Return eigenvalues and eigenvectors, exact; the signature follows hessian-eigenthings 1.0.0a6.

    Parameters
    ----------
    operator : HessianOperator
    k : int
        Number of eigenvalues.
    which : {"LM", "LA", "SA"}
        Largest in magnitude, largest or smallest first.
    max_iter, tol, reorthogonalize, seed, backend
        Options of the iterations there; ignored.

    Raises
    ------
    ValueError
        If there are fewer than k eigenvalues.
    """
    problem = _own(operator).live.problem
    end = cast(Literal["LM", "LA", "SA"], checks.one_of(which, "which", ("LM", "LA", "SA")))
    if checks.integer(k, "k", 1) > problem.size:
        raise ValueError(f"k is {k}; expected at most {problem.size}, the number of parameters.")
    values, vectors = problem.eigenpairs(k, end)
    order = (values.abs() if which == "LM" else values).argsort(descending=which != "SA", stable=True)
    values, vectors = values[order], vectors[:, order]
    residuals = torch.linalg.vector_norm(problem.product(vectors) - vectors * values, dim=0)
    return EigenResult(values, vectors.T.contiguous(), residuals, 0, torch.ones_like(values, dtype=torch.bool))


def deflated_power_iteration(
    operator: HessianOperator,
    *,
    k: int = 10,
    max_iter: int = 100,
    tol: float = 1e-4,
    momentum: float = 0.0,
    seed: int | None = None,
    backend: Any = None,
) -> EigenResult:
    """Return the eigenvalues that are largest in magnitude; see `lanczos`, which returns the same.

    Parameters
    ----------
    operator : HessianOperator
    k : int
        Number of eigenvalues.
    max_iter, tol, momentum, seed, backend
        Options of the iterations there; ignored.
    """
    return lanczos(operator, k=k)


def trace(
    operator: HessianOperator,
    *,
    num_matvecs: int = 100,
    method: str = "hutch++",
    distribution: str = "rademacher",
    seed: int | None = None,
    backend: Any = None,
) -> TraceResult:
    """Return the trace, exact; the signature follows hessian-eigenthings 1.0.0a6.

    Parameters
    ----------
    operator : HessianOperator
    num_matvecs, method, distribution, seed, backend
        Options of the random vectors there; ignored.
    """
    problem = _own(operator).live.problem
    return TraceResult(problem.trace(), 0.0, problem.tensor([problem.trace()]))


def _own(operator: Any) -> HessianOperator:
    if not isinstance(operator, HessianOperator):
        raise TypeError(
            f"operator is a {type(operator).__module__}.{type(operator).__name__}; expected a HessianOperator of "
            "hesskern.compat.hessian_eigenthings. For other operators keep hessian_eigenthings' own functions."
        )
    return operator
