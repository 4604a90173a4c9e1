"""The common parts of the operators of both versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from hesskern._base import checks
from hesskern.compat.live_parameters import CountedBatches, LiveProblem, per_batch
from hesskern.torch.data import Check, reduced
from hesskern.torch.losses import LossScale
from hesskern.torch.model_problem import ModelProblem, RequestedParameter
from hesskern.torch.reduced_loss import ReducedLoss
from hesskern.torch_modules import tracing

Criterion = Callable[[Tensor, Tensor], Tensor]


def live_problem(
    model: nn.Module,
    chain: tracing.Chain,
    scale: LossScale,
    batches: CountedBatches,
    read: Iterable[Any],
    chosen: Any,
    check: Check | None = None,
) -> LiveProblem:
    """Return the problem of a model and the batches that are read, over the chosen parameters."""
    data, samples = reduced(read, chain, check)
    loss = ReducedLoss(data, samples, per_batch(scale, samples, batches.count))
    requested = [RequestedParameter(name, parameter.shape) for name, parameter in chosen.items()]
    return LiveProblem(lambda: ModelProblem(chain, loss, requested), model)


def product(problem: ModelProblem, v: Tensor) -> Tensor:
    """Return the product with a vector (P,), checked."""
    reference = problem.reference
    if not isinstance(v, Tensor) or v.shape != (problem.size,):
        shape = f"has shape {tuple(v.shape)}" if isinstance(v, Tensor) else f"is a {type(v).__name__}"
        raise ValueError(f"v {shape}; expected a tensor of shape ({problem.size},).")
    if (v.dtype, v.device) != (reference.dtype, reference.device):
        raise TypeError(f"v is {v.dtype} on {v.device}; expected {reference.dtype} on {reference.device}.")
    return problem.product(v.detach()[:, None])[:, 0]


def refuse_single_batches(full_dataset: Any) -> None:
    """Refuse an operator that would change from product to product."""
    if not checks.boolean(full_dataset, "full_dataset"):
        raise ValueError("full_dataset is False, with which each product would use another batch; expected True.")
