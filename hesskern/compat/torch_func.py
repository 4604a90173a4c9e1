"""``torch.func.hessian`` for functions that are squared losses of linear networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils import _pytree as pytree

from hesskern._base import checks
from hesskern.torch import function_tracing
from hesskern.torch.curvature import shaped


def hessian(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """Return a function that computes the Hessian of `func`, as ``torch.func.hessian`` does, without autograd.

    Parameters
    ----------
    func : callable
        A squared loss of a linear network, as a function of parameters in any dicts, lists and tuples, typically
        ``lambda params: loss_fn(functional_call(model, params, (X,)), Y)``. It is called a few times to trace its
        operations. Parameters that it does not take are constants. It may cut the parameters out of one vector.
    argnums : int or tuple of int
        Which arguments are the parameters.

    Returns
    -------
    callable
        Takes the arguments of `func` and returns the same as ``torch.func.hessian(func, argnums)``: for a dict of
        parameters ``out[a][b]`` of shape ``(*a.shape, *b.shape)``, in their dtype and on their device. The result is
        computed in float64 and rounded once; you cannot differentiate it further.

    Raises
    ------
    TypeError, ValueError
        When the returned function is called: if the parameters are not float32 or float64 tensors, or `func` is not
        such a loss; the message names the first operation that does not fit.

    Examples
    --------
    >>> import torch
    >>> from hesskern.compat.torch_func import hessian
    >>> X, Y = torch.tensor([[1.0, 1.0]]), torch.tensor([[8.0]])
    >>> params = {"W1": torch.tensor([[1.0, 2.0]]), "W2": torch.tensor([[3.0]])}
    >>> hessian(lambda p: 0.5 * ((X @ p["W1"].T @ p["W2"].T - Y) ** 2).sum())(params)["W1"]["W2"]
    tensor([[[[10.]],
    <BLANKLINE>
             [[10.]]]])
    """
    checks.function(func, "func")
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    for number in numbers:
        checks.integer(number, "argnums", -(2**31))

    def of(*args: Any) -> Any:
        if any(not -len(args) <= number < len(args) for number in numbers):
            raise ValueError(f"argnums is {argnums}, but func was given {len(args)} arguments.")
        chosen = tuple(args[number] for number in numbers) if isinstance(argnums, tuple) else args[argnums]
        paths, spec = pytree.tree_flatten_with_path(chosen)
        names = [f"params{pytree.keystr(path)}" for path, _ in paths]

        def function(leaves: list[Any]) -> Any:
            arguments, parts = list(args), pytree.tree_unflatten(leaves, spec)
            for number, part in zip(numbers, parts if isinstance(argnums, tuple) else (parts,), strict=True):
                arguments[number] = part
            return func(*arguments)

        followed = function_tracing.trace_loss(function, [leaf for _, leaf in paths], names)
        rows = shaped(followed.dense(paths[0][1]), followed.leaves, "tuple")
        return pytree.tree_unflatten([pytree.tree_unflatten(list(row), spec) for row in rows], spec)

    return of
