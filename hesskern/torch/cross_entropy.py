"""What ``nn.CrossEntropyLoss`` counts each sample, which is all that its Hessian knows of the targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def taken(loss: Any) -> nn.CrossEntropyLoss | None:
    """Return the loss if it is softmax cross-entropy; None if it is another.

    Raises
    ------
    ValueError
        If it does not give a number.
    """
    if loss is nn.functional.cross_entropy:
        return nn.CrossEntropyLoss()
    if not isinstance(loss, nn.CrossEntropyLoss):
        return None
    if type(loss).forward is not nn.CrossEntropyLoss.forward or loss._forward_hooks or loss._forward_pre_hooks:
        raise ValueError(
            f"loss is a {type(loss).__name__} with a forward of its own; expected nn.CrossEntropyLoss as it is."
        )
    if loss.reduction not in ("sum", "mean"):
        raise ValueError(
            f"loss is CrossEntropyLoss(reduction={loss.reduction!r}), which is no number; expected 'mean' or 'sum'."
        )
    if loss.weight is not None and not (loss.weight.isfinite() & (loss.weight >= 0)).all():
        raise ValueError("loss has class weights that are negative or not finite; expected numbers >= 0.")
    return loss


def sample_weights(loss: nn.CrossEntropyLoss, logits: Tensor, targets: Tensor, name: str) -> tuple[Tensor, float]:
    """Return what the sum over samples counts each of them, (n,) in float64, and what their mean is divided by.

    The Hessian of ``-log p[y]`` does not depend on y. So a sample of class y counts its class weight ``w[y]``; with
    label smoothing ε this is ``(1-ε) w[y] + ε mean(w)``; one with class probabilities q, smoothed likewise, counts
    ``q · w``; one to be ignored, nothing.

    Parameters
    ----------
    loss : nn.CrossEntropyLoss
    logits : (n, C) tensor
    targets : (n,) integers or (n, C) probabilities
    name : str
        What to call the batch.

    Raises
    ------
    TypeError, ValueError
        If the targets are something else.
    """
    samples, classes = logits.shape
    weight = torch.ones(classes, dtype=torch.float64) if loss.weight is None else loss.weight.detach().cpu().double()
    smoothing, found = float(loss.label_smoothing), targets.detach().cpu()
    if found.is_floating_point():
        if found.shape != logits.shape:
            raise ValueError(
                f"Y of {name} has shape {tuple(found.shape)}; expected class probabilities {tuple(logits.shape)}, or "
                f"({samples},) integers."
            )
        smoothed = found.double() * (1 - smoothing) + smoothing / classes
        if not (smoothed.isfinite() & (smoothed >= 0)).all():
            raise ValueError(f"Y of {name} holds negative numbers, NaN or infinities; expected class probabilities.")
        return smoothed @ weight, float(samples)
    if found.dtype not in (torch.int64, torch.uint8):
        raise TypeError(
            f"Y of {name} is {found.dtype}; expected torch.int64 class numbers, or probabilities of a float dtype."
        )
    if found.shape != (samples,):
        raise ValueError(f"Y of {name} has shape {tuple(found.shape)}; expected ({samples},), a class number each.")
    kept = found != loss.ignore_index
    chosen = found[kept].long()
    if ((chosen < 0) | (chosen >= classes)).any():
        raise ValueError(f"Y of {name} holds class numbers beyond 0 to {classes - 1}, that of the last class.")
    counts = torch.zeros(samples, dtype=torch.float64)
    counts[kept] = (1 - smoothing) * weight[chosen] + smoothing * weight.mean()
    return counts, float(weight[chosen].sum())


def compare_entropy(loss: nn.CrossEntropyLoss, output: Tensor, targets: Tensor, weights: Tensor, name: str) -> None:
    """Compare what was found of a loss with the loss itself on a batch, along a random direction.

    Parameters
    ----------
    loss : nn.CrossEntropyLoss
    output : (n, C) tensor
        What the model returns.
    targets : tensor
    weights : (n,) tensor
        What each sample counts in the loss of the batch.
    name : str
        What to call the batch.

    Raises
    ------
    ValueError
        If PyTorch refuses the batch, or the second derivatives differ.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    direction = torch.randn(output.shape, generator=generator, dtype=torch.float64, device="cpu")
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaf = output.detach().clone().requires_grad_()
        try:
            value = loss(leaf, targets)
            (slope,) = torch.autograd.grad(value, leaf, create_graph=True)
            (product,) = torch.autograd.grad(slope, leaf, direction.to(leaf))
        except Exception as error:
            raise ValueError(f"{type(loss).__name__} raises {type(error).__name__} for {name}: {error}") from error
    if not weights.isfinite().all():  # no sample of this batch counts: a mean over nothing
        return
    found = float((product.cpu().double() * direction).sum())
    p = output.detach().cpu().double().softmax(1)
    mean = (p * direction).sum(1)
    terms = weights.cpu() * (p * (direction - mean[:, None]).square()).sum(1)
    expected, size = float(terms.sum()), float((weights.cpu() * direction.square().sum(1)).sum())
    if not abs(found - expected) <= torch.finfo(output.dtype).eps ** 0.5 * size:
        raise ValueError(
            f"{type(loss).__name__} has another second derivative for {name} than softmax cross-entropy with its class "
            f"weights and targets: {found:.6g} along a random direction, expected {expected:.6g}."
        )
