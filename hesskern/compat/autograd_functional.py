"""``torch.autograd.functional.hessian`` for functions that are squared losses of linear networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from hesskern._base import checks
from hesskern.torch import function_tracing
from hesskern.torch.curvature import shaped


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """Return the Hessian of `func`, as ``torch.autograd.functional.hessian`` does, without autograd.

    Parameters
    ----------
    func : callable
        A squared loss of a linear network, of the parameters: typically ``lambda W1, W2: loss_fn(X @ W1.T @ W2.T, Y)``.
        It is called a few times to trace its operations. It may cut the parameters out of one vector:
        ``lambda theta: loss_fn(X @ theta[:12].view(4, 3).T, Y)``.
    inputs : tensor or tuple of tensors
        The parameters.
    create_graph : bool
        Must be False: the result has no graph, so you cannot differentiate it further.
    strict : bool
        Whether a parameter that `func` does not depend on raises an error; otherwise its entries are zero.
    vectorize, outer_jacobian_strategy
        Ignored: they choose how autograd computes it.

    Returns
    -------
    Tensor or tuple of tuples of tensors
        ``out[k][l]`` of shape ``(*inputs[k].shape, *inputs[l].shape)``, in their dtype and on their device, computed in
        float64 and rounded once. For a tensor as `inputs` a tensor.

    Raises
    ------
    TypeError, ValueError
        If the parameters are not float32 or float64 tensors, or `func` is not such a loss; the message names the first
        operation that does not fit.

    Examples
    --------
    >>> import torch
    >>> from hesskern.compat.autograd_functional import hessian
    >>> X, Y = torch.tensor([[1.0, 1.0]]), torch.tensor([[8.0]])
    >>> hessian(lambda W: torch.nn.functional.mse_loss(X @ W.T, Y), torch.tensor([[1.0, 2.0]])).shape
    torch.Size([1, 2, 1, 2])
    """
    checks.function(func, "func")
    if checks.boolean(create_graph, "create_graph"):
        raise ValueError("create_graph is True; expected False: the result has no graph.")
    checks.boolean(vectorize, "vectorize")
    checks.one_of(outer_jacobian_strategy, "outer_jacobian_strategy", ("reverse-mode", "forward-mode"))
    single = isinstance(inputs, Tensor)
    if not single and not (isinstance(inputs, tuple | list) and len(inputs)):
        raise TypeError(f"inputs is a {type(inputs).__name__}; expected a tensor, or a tuple of tensors.")
    leaves = [inputs] if single else list(inputs)
    names = ["inputs"] if single else [f"inputs[{number}]" for number in range(len(leaves))]
    followed = function_tracing.trace_loss(lambda parts: func(*parts), leaves, names)
    if checks.boolean(strict, "strict") and followed.unused:
        raise ValueError(
            f"strict is True, but func does not depend on {', '.join(followed.unused)}: it may use tensors of its own, "
            "as a module uses its parameters; pass inputs on to it, for instance with torch.func.functional_call."
        )
    rows = shaped(followed.dense(leaves[0]), followed.leaves, "tuple")
    return rows[0][0] if single else rows
