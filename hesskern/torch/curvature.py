"""The curvature of PyTorch models that are linear networks, as tensors shaped and ordered like PyTorch's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hesskern._base import checks
from hesskern.torch.model_problem import ModelProblem, RequestedParameter, slices

FORMS = ("matrix", "dict", "tuple")

Params = Iterable["str | Tensor"] | None


def hessian(model: nn.Module, loss_fn: Any, data: Any, params: Params = None, *, form: str = "matrix") -> Any:
    r"""Return the Hessian of ``loss_fn(model(X), Y)``, exact.

    Parameters
    ----------
    model : torch.nn.Module
        A chain of linear layers, see `hesskern.LinearNetwork.from_torch`.
    loss_fn : callable
        ``nn.MSELoss()`` with any reduction to a number, or any function ``loss_fn(predictions, targets)`` that returns
        c times the squared norm of their difference, divided by the number of samples or not. hesskern recognises it by
        calling it, see `hesskern.torch.losses.recognised`.
    data : (X, Y), or an iterable of such pairs
        (N, i) and (N, o) tensors of the model's dtype, on its device. A ``DataLoader`` is read once, and the loss
        counts **all its samples at once**: with a mean, the samples of a shorter last batch have the same weight as all
        others.
    params : iterable of str or Parameter, optional
        The parameters to differentiate with respect to; default: all that require grad. Results are in the order of
        ``model.named_parameters()``, for any order of `params` and of the layers in forward.
    form : {"matrix", "dict", "tuple"}
        "matrix": (P, P). "dict": ``out[a][b]`` of shape ``(*a.shape, *b.shape)``, as ``torch.func.hessian`` returns it
        for ``dict(model.named_parameters())``. "tuple": ``out[k][l]``, as ``torch.autograd.functional.hessian`` returns
        it for a tuple of parameters.

    Returns
    -------
    Tensor, dict or tuple of tensors
        In the model's dtype, on its device. It is computed in float64 from the model's numbers and rounded once, so for
        a float32 model it is more accurate than autograd. Entries of a parameter that forward does not use are zero. It
        has no graph: you cannot differentiate it further.

    Raises
    ------
    TypeError, ValueError
        If the model is not a chain of linear layers, the loss is not a squared loss, or the data do not fit.
    MemoryError
        If the matrix does not fit in the free memory.

    Notes
    -----
    O(N (i + o)²) for the data and O(P²) for the matrix; no backward pass. `hesskern.Hessian` has the formula.

    Examples
    --------
    >>> import torch, hesskern.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, 1, bias=False)).double()
    >>> for parameter, values in zip(model.parameters(), ([[1.0, 2.0]], [[3.0]])):
    ...     parameter.data = torch.tensor(values, dtype=torch.float64)
    >>> X, Y = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([[8.0]]).double()
    >>> hesskern.torch.hessian(model, lambda a, b: 0.5 * ((a - b) ** 2).sum(), (X, Y))
    tensor([[ 9.,  9., 10.],
            [ 9.,  9., 10.],
            [10., 10.,  9.]], dtype=torch.float64)
    >>> hesskern.torch.hessian(model, torch.nn.MSELoss(), (X, Y), form="dict")["0.weight"]["1.weight"].shape
    torch.Size([1, 2, 1, 1])
    """
    checks.one_of(form, "form", FORMS)
    problem = ModelProblem.of(model, loss_fn, data, params)
    return shaped(problem.dense(), problem.requested, form)


def shaped(matrix: Tensor, requested: Sequence[RequestedParameter], form: str) -> Any:
    """Return a dense Hessian in one of the forms."""
    if form == "matrix":
        return matrix
    places = slices(requested)
    blocks = {
        row.name: {
            column.name: matrix[places[row.name], places[column.name]].reshape(*row.shape, *column.shape).contiguous()
            for column in requested
        }
        for row in requested
    }
    return blocks if form == "dict" else tuple(tuple(row.values()) for row in blocks.values())


def hvp(model: nn.Module, loss_fn: Any, data: Any, v: Any, params: Params = None) -> Any:
    """Return the product of the Hessian with v, without the matrix.

    Parameters
    ----------
    model, loss_fn, data, params
        As in `hessian`.
    v : (P,) or (P, k) tensor, dict or sequence of tensors
        A vector, several vectors as columns, or one vector in the shapes of the parameters: a dict by their names, or a
        sequence in their order.

    Returns
    -------
    Tensor, dict or tuple of tensors
        In the form of `v`; a tuple for a sequence.

    Raises
    ------
    TypeError, ValueError
        As in `hessian`, and if `v` does not fit the parameters, the model's dtype or its device.

    Notes
    -----
    Model and data are read at each call. For many products create the operator once:
    ``hk.SquaredLoss(X, Y).hessian(hk.LinearNetwork.from_torch(model)) @ v``.

    Examples
    --------
    >>> import torch, hesskern.torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = torch.eye(2), torch.zeros(2, 1)
    >>> hesskern.torch.hvp(model, torch.nn.MSELoss(reduction="sum"), data, torch.tensor([1.0, 3.0]))
    tensor([2., 6.])
    >>> hesskern.torch.hvp(model, torch.nn.MSELoss(), data, {"weight": torch.ones(1, 2)})
    {'weight': tensor([[1., 1.]])}
    """
    problem = ModelProblem.of(model, loss_fn, data, params)
    requested, reference = problem.requested, problem.reference
    if isinstance(v, Tensor):
        _check(v, "v", reference)
        if v.ndim not in (1, 2) or len(v) != problem.size:
            raise ValueError(f"v has shape {tuple(v.shape)}; expected ({problem.size},) or ({problem.size}, k).")
        return problem.product(v.detach().reshape(len(v), -1)).reshape(v.shape)
    names = [parameter.name for parameter in requested]
    if isinstance(v, dict):
        if set(v) != set(names):
            raise ValueError(f"v has the keys {sorted(map(str, v))}; expected {', '.join(names)}.")
        pieces = [v[name] for name in names]
    elif isinstance(v, list | tuple) and len(v) == len(names):
        pieces = list(v)
    else:
        count = f" of length {len(v)}" if isinstance(v, list | tuple) else ""
        raise TypeError(f"v is a {type(v).__name__}{count}; expected a tensor, or one for each of {', '.join(names)}.")
    for piece, parameter in zip(pieces, requested, strict=True):
        name = parameter.name
        _check(piece, f"v of {name}", reference)
        if piece.shape != parameter.shape:
            raise ValueError(f"v of {name} has shape {tuple(piece.shape)}; expected {tuple(parameter.shape)}.")
    product = problem.product(torch.cat([piece.detach().reshape(-1, 1) for piece in pieces]))[:, 0]
    places = slices(requested)
    parts = {parameter.name: product[places[parameter.name]].reshape(parameter.shape) for parameter in requested}
    return parts if isinstance(v, dict) else tuple(parts.values())


def _check(v: Any, name: str, reference: Tensor) -> None:
    if not isinstance(v, Tensor):
        raise TypeError(f"{name} is a {type(v).__name__}; expected a tensor.")
    if v.layout != torch.strided:
        raise TypeError(f"{name} is sparse; expected a dense tensor: v.to_dense().")
    if (v.dtype, v.device) != (reference.dtype, reference.device):
        raise TypeError(
            f"{name} is {v.dtype} on {v.device}, but the model is {reference.dtype} on {reference.device}; expected "
            f"the same: pass {name.split(maxsplit=1)[0]}.to(...)."
        )


def spectrum(model: nn.Module, loss_fn: Any, data: Any, params: Params = None) -> Tensor:
    """Return all eigenvalues of the Hessian (P,), ascending, like ``torch.linalg.eigvalsh`` of the matrix.

    No P x P matrix is built: after all exact reductions, the remaining eigenproblem belongs to a network as wide as its
    inputs and outputs, see `hesskern.Hessian.spectrum`. The eigenvalues are computed in float64, and returned in the
    model's dtype.

    Parameters
    ----------
    model, loss_fn, data, params
        As in `hessian`.

    Raises
    ------
    TypeError, ValueError
        As in `hessian`.
    MemoryError
        If the reduced eigenproblem does not fit in the free memory.

    Examples
    --------
    >>> import torch, hesskern.torch
    >>> data = torch.eye(2), torch.zeros(2, 1)
    >>> hesskern.torch.spectrum(torch.nn.Linear(2, 1, bias=False), torch.nn.MSELoss(), data)
    tensor([1., 1.])
    """
    return ModelProblem.of(model, loss_fn, data, params).eigenvalues()


def condition(model: nn.Module, loss_fn: Any, data: Any, params: Params = None) -> Tensor:
    """Return the condition number of the Hessian: its largest over its smallest nonzero absolute eigenvalue.

    hesskern has to decide which eigenvalues are zero. It assumes that the model's numbers are exact to the precision of
    their dtype. The decision (rank, tolerance, gap, uncertainty) is in the attribute `decision` of the tensor.

    Parameters
    ----------
    model, loss_fn, data, params
        As in `hessian`. For the weights of one layer (``params=["1.weight"]``) the number comes from singular values,
        which keep the digits that the dense matrix loses, see `hesskern.KroneckerHessian.condition`.

    Returns
    -------
    Tensor
        0-dimensional, in the model's dtype, on its device; NaN for the zero matrix. Its attribute `decision` is a
        `hesskern.Condition`.

    Raises
    ------
    TypeError, ValueError
        As in `hessian`.
    MemoryError
        As in `spectrum`.

    Examples
    --------
    >>> import torch, hesskern.torch
    >>> data = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
    >>> kappa = hesskern.torch.condition(torch.nn.Linear(2, 1, bias=False), torch.nn.MSELoss(), data)
    >>> kappa
    tensor(4.)
    >>> kappa.decision.rank, kappa.decision.size
    (2, 2)
    """
    problem = ModelProblem.of(model, loss_fn, data, params)
    decision = problem.condition()
    value = problem.tensor(decision.value)
    value.decision = decision  # type: ignore[attr-defined] # the number always comes with its decision
    return value


def sharpness(model: nn.Module, loss_fn: Any, data: Any, params: Params = None) -> Tensor:
    """Return the largest eigenvalue of the Hessian, exactly: gradient descent is unstable for lr > 2 / sharpness.

    Parameters
    ----------
    model, loss_fn, data, params
        As in `hessian`.

    Returns
    -------
    Tensor
        0-dimensional, in the model's dtype, on its device.

    Raises
    ------
    TypeError, ValueError
        As in `hessian`.
    MemoryError
        As in `spectrum`.

    Examples
    --------
    >>> import torch, hesskern.torch
    >>> data = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
    >>> hesskern.torch.sharpness(torch.nn.Linear(2, 1, bias=False), torch.nn.MSELoss(), data)
    tensor(4.)
    """
    return ModelProblem.of(model, loss_fn, data, params).largest()
