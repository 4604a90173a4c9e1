"""Version 1.0: `HessianOperator`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from hesskern._base import checks
from hesskern.compat.hessian_eigenthings.shared import Criterion, live_problem, product, refuse_single_batches
from hesskern.compat.live_parameters import CountedBatches, keep, trained
from hesskern.torch.losses import LossScale, comparing, name_of, recognised
from hesskern.torch_modules import tracing


class HessianOperator:
    """Products with the Hessian of ``loss_fn(model, batch)`` over a data loader, as hessian-eigenthings 1.0.0a6.

    Parameters
    ----------
    model : torch.nn.Module
        A chain of linear layers.
    dataloader : iterable of (X, Y)
        Read once; moved to the model's device. For batches of unequal size see this package's docstring.
    loss_fn : callable
        ``loss_fn(model, batch)``, such as `supervised_loss` of ``nn.functional.mse_loss``: a multiple of the squared
        error of ``model(X)``. A loss that sums over samples is divided by the number of batches, as in
        hessian-eigenthings. hesskern calls it with modules that return test predictions, and once with the model and
        the first batch.
    param_filter : callable, optional
        ``param_filter(name, parameter)``: whether to take a parameter; default: all that require grad.
    full_dataset : bool
        Must be True; in hessian-eigenthings, False means another batch at each product.
    num_batches : int, optional
        Number of batches to read; default: all.
    microbatch_size, microbatch_unsafe, method, fd_eps, backend
        Ignored: they choose how autograd computes it.

    Attributes
    ----------
    size : int
    dtype : torch.dtype
    device : torch.device

    Raises
    ------
    TypeError, ValueError
        If the model is not a chain of linear layers or the loss not a squared loss of its predictions (the message
        names what does not fit), or if an argument does not fit.

    Examples
    --------
    >>> import torch
    >>> from hesskern.compat.hessian_eigenthings import HessianOperator, supervised_loss, trace
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = [(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))]
    >>> H = HessianOperator(model, data, supervised_loss(torch.nn.functional.mse_loss))
    >>> H @ torch.ones(2)
    tensor([1., 4.])
    >>> trace(H).estimate
    5.0
    """

    def __init__(
        self,
        model: nn.Module,
        dataloader: Iterable[Any],
        loss_fn: Callable[[nn.Module, Any], Tensor],
        *,
        param_filter: Callable[[str, nn.Parameter], bool] | None = None,
        full_dataset: bool = True,
        num_batches: int | None = None,
        microbatch_size: int | None = None,
        microbatch_unsafe: bool = False,
        method: str = "autograd",
        fd_eps: float | None = None,
        backend: Any = None,
    ) -> None:
        checks.one_of(method, "method", ("autograd", "finite_difference"))
        refuse_single_batches(full_dataset)
        with keep("hessian_eigenthings.HessianOperator"):
            if not callable(loss_fn):
                raise TypeError(f"loss_fn is a {type(loss_fn).__name__}; expected a function (model, batch).")
            chain = tracing.trace(model)
            reference = chain.reference
            scale = recognised(_of_predictions(loss_fn, reference.shape[1]), [chain.outputs], reference.device)
        chosen = {
            name: parameter
            for name, parameter in trained(model).items()
            if param_filter is None or param_filter(name, parameter)
        }
        if not chosen:
            raise ValueError("param_filter takes no parameter; expected at least one.")
        if microbatch_size is not None and not scale.per_sample:
            raise ValueError(
                f"microbatch_size is {microbatch_size}, and loss_fn sums over samples, which is divided by the number "
                "of microbatches there; expected a mean, or microbatch_size=None."
            )
        some = None if num_batches is None else checks.integer(num_batches, "num_batches", 1)
        batches = CountedBatches(islice(dataloader, some), reference.device)
        seen = _compared(batches, model, loss_fn, chain, scale)
        self.live = live_problem(model, chain, scale, batches, seen, chosen)
        self.size, self.device, self.dtype = self.live.problem.size, reference.device, reference.dtype

    def matvec(self, v: Tensor) -> Tensor:
        """Return the product with a vector (P,)."""
        return product(self.live.problem, v)

    rmatvec = __call__ = __matmul__ = matvec  # it is symmetric


def supervised_loss(criterion: Criterion) -> Callable[[nn.Module, Any], Tensor]:
    """Return the ``loss_fn(model, batch)`` of a criterion of predictions and targets.

    Parameters
    ----------
    criterion : callable
        ``criterion(model(X), Y)``.
    """

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        X, Y = batch
        return criterion(model(X), Y)

    return loss_fn


class _FixedPredictions(nn.Module):
    """Replaces a model: returns the predictions that it was given."""

    def __init__(self, predictions: Tensor) -> None:
        super().__init__()
        self._predictions = predictions

    def forward(self, X: Tensor) -> Tensor:
        return self._predictions


def _of_predictions(loss_fn: Callable[[nn.Module, Any], Tensor], inputs: int) -> Criterion:
    """Return a loss of model and batch as a criterion of predictions and targets."""

    def criterion(predictions: Tensor, targets: Tensor) -> Tensor:
        return loss_fn(_FixedPredictions(predictions), (predictions.new_zeros(len(predictions), inputs), targets))

    criterion.__name__ = name_of(loss_fn)
    return criterion


def _of_batch(loss_fn: Callable[[nn.Module, Any], Tensor], X: Tensor) -> Criterion:
    """Return the criterion of the predictions for these samples."""

    def criterion(predictions: Tensor, targets: Tensor) -> Tensor:
        return loss_fn(_FixedPredictions(predictions), (X, targets))

    criterion.__name__ = name_of(loss_fn)
    return criterion


def _compared(
    batches: Iterable[Any], model: nn.Module, loss_fn: Any, chain: tracing.Chain, scale: LossScale
) -> Iterator[Any]:
    """Yield the batches; compare the loss of the model with the loss of its predictions alone."""
    for number, batch in enumerate(batches):
        yield batch  # the reader checks that it is a pair that fits
        X, Y = batch
        with torch.no_grad():
            value = float(loss_fn(model, batch))
            predictions = chain.predicted(X.flatten(1))
            error = predictions - Y
        expected = 0.5 * scale.of(len(X)) * float(error.double().square().sum())
        with keep("hessian_eigenthings.HessianOperator"):
            if not abs(value - expected) <= torch.finfo(X.dtype).eps ** 0.5 * max(abs(value), abs(expected)):
                raise ValueError(
                    f"loss_fn is {value:.6g} for batch {number}, but {expected:.6g} by the model's predictions alone; "
                    "expected a loss that depends on the model through its predictions only."
                )
            comparing(_of_batch(loss_fn, X), scale)(predictions, Y, f"batch {number} of data")
