"""Version 0.0.2: `compute_hessian_eigenthings` and `HVPOperator`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hesskern._base import checks
from hesskern.compat.hessian_eigenthings.shared import Criterion, live_problem, product, refuse_single_batches
from hesskern.compat.live_parameters import CountedBatches, compared, traced, trained
from hesskern.linalg.symmetric_operator import WHICH, Which

_OF_POWER_ITERATION = {"power_iter_steps", "power_iter_err_threshold", "momentum", "to_numpy"}
_OF_LANCZOS = {"which", "max_steps", "tol", "num_lanczos_vectors", "init_vec"}


def compute_hessian_eigenthings(
    model: nn.Module,
    dataloader: Iterable[Any],
    loss: Criterion,
    num_eigenthings: int = 10,
    full_dataset: bool = True,
    mode: str = "power_iter",
    use_gpu: bool = True,
    fp16: bool = False,
    max_possible_gpu_samples: int = 2**16,
    **kwargs: Any,
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return eigenvalues and eigenvectors of the Hessian of a loss over a data loader, as hessian-eigenthings 0.0.2.

    Parameters
    ----------
    model : torch.nn.Module
        A chain of linear layers; with `use_gpu` it is moved to the GPU, as in hessian-eigenthings.
    dataloader : iterable of (X, Y)
        Read once; moved to the model's device.
    loss : callable
        ``nn.MSELoss()``, or another multiple of the squared error; for batches of unequal size see this package's
        docstring. A loss that sums over samples is divided by the number of batches, as in hessian-eigenthings.
    num_eigenthings : int
        Number of eigenvalues.
    full_dataset : bool
        Ignored. In hessian-eigenthings it says whether each step uses all batches or one; here the Hessian always uses
        all batches.
    mode : {"power_iter", "lanczos"}
        The order of the results: descending, or ascending.
    use_gpu : bool
        Whether to use a CUDA device.
    fp16 : bool
        Must be False: in half precision the results would not be exact.
    max_possible_gpu_samples : int
        Ignored: the data are reduced batch by batch.
    **kwargs
        Arguments of hessian-eigenthings' ``deflated_power_iteration`` or ``lanczos``. With ``mode="lanczos"``, `which`
        selects the eigenvalues: "LM" (default), "SM", "LA" or "SA". All other arguments concern iterations and are
        ignored.

    Returns
    -------
    eigenvals : (k,) float64 array
        The largest in magnitude, with their signs.
    eigenvecs : (k, P) array
        In rows, in the model's dtype (in hessian-eigenthings always float32), in the order of
        ``model.named_parameters()``. The signs and the basis of an eigenspace are arbitrary.

    Raises
    ------
    TypeError, ValueError
        If the model is not a chain of linear layers or the loss not a squared loss (the message names what does not
        fit), or if an argument does not fit.

    Examples
    --------
    >>> import torch
    >>> from hesskern.compat.hessian_eigenthings import compute_hessian_eigenthings
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = [(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))]
    >>> values, vectors = compute_hessian_eigenthings(model, data, torch.nn.MSELoss(), 2, use_gpu=False)
    >>> values, abs(vectors)
    (array([4., 1.]), array([[0., 1.],
           [1., 0.]], dtype=float32))
    """
    checks.one_of(mode, "mode", ("power_iter", "lanczos"))
    arguments = _OF_LANCZOS if mode == "lanczos" else _OF_POWER_ITERATION
    for name in kwargs:
        if name not in arguments:
            names = ", ".join(sorted(arguments))
            raise TypeError(f"{name} is not an argument with mode={mode!r}; expected one of {names}.")
    checks.boolean(full_dataset, "full_dataset")
    operator = HVPOperator(model, dataloader, loss, use_gpu, fp16, True, max_possible_gpu_samples)
    which = cast(Which, checks.one_of(kwargs.get("which", "LM"), "which", WHICH))
    count = checks.integer(num_eigenthings, "num_eigenthings", 1)
    if count > operator.size:
        raise ValueError(f"num_eigenthings is {count}; expected at most {operator.size}, the number of parameters.")
    values, vectors = operator.live.problem.eigenpairs(count, which)
    eigenvals, rows = values.double().cpu().numpy(), vectors.T.cpu().numpy()
    return (eigenvals, rows) if mode == "lanczos" else (eigenvals[::-1].copy(), rows[::-1].copy())


class HVPOperator:
    """Products with the Hessian, like hessian-eigenthings 0.0.2; `compute_hessian_eigenthings` describes the arguments.

    Attributes
    ----------
    size : int
        Number of parameters that require grad.

    Raises
    ------
    TypeError, ValueError
        As `compute_hessian_eigenthings`, and for ``full_dataset=False``, with which each product would use another
        batch.

    Examples
    --------
    >>> import torch
    >>> from hesskern.compat.hessian_eigenthings import HVPOperator
    >>> data = [(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))]
    >>> operator = HVPOperator(torch.nn.Linear(2, 1, bias=False), data, torch.nn.MSELoss(), use_gpu=False)
    >>> operator.apply(torch.ones(2))
    tensor([1., 4.])
    """

    def __init__(
        self,
        model: nn.Module,
        dataloader: Iterable[Any],
        criterion: Criterion,
        use_gpu: bool = True,
        fp16: bool = False,
        full_dataset: bool = True,
        max_possible_gpu_samples: int = 256,
    ) -> None:
        checks.integer(max_possible_gpu_samples, "max_possible_gpu_samples", 1)
        if checks.boolean(fp16, "fp16"):
            raise ValueError("fp16 is True; expected False: in half precision nothing would be exact.")
        refuse_single_batches(full_dataset)
        if checks.boolean(use_gpu, "use_gpu"):
            if not torch.cuda.is_available():
                raise ValueError("use_gpu is True, but torch finds no CUDA device; expected use_gpu=False.")
            model = model.cuda()
        original = "hessian_eigenthings.compute_hessian_eigenthings"
        chain, scale = traced(model, criterion, original)
        check = compared(criterion, scale, original)
        batches = CountedBatches(dataloader, chain.reference.device)
        self.live = live_problem(model, chain, scale, batches, batches, trained(model), check)
        self.size = self.live.problem.size

    def apply(self, vec: Tensor) -> Tensor:
        """Return the product with a vector (P,)."""
        return product(self.live.problem, vec)
