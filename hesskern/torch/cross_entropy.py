"""The weight of each sample in ``nn.CrossEntropyLoss``: the only way in which its Hessian depends on the targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def as_cross_entropy(loss: Any) -> nn.CrossEntropyLoss | None:
    """Return the loss if it is softmax cross-entropy, and None otherwise.

    Raises
    ------
    ValueError
        If it is a cross-entropy with its own forward or with hooks, with class weights that are not numbers >= 0, or
        with a reduction that does not return one number.
    """
    if loss is nn.functional.cross_entropy:
        return nn.CrossEntropyLoss()
    if not isinstance(loss, nn.CrossEntropyLoss):
        return None
    if type(loss).forward is not nn.CrossEntropyLoss.forward or loss._forward_hooks or loss._forward_pre_hooks:
        raise ValueError(
            f"loss is a {type(loss).__name__} with its own forward or with hooks; expected a plain nn.CrossEntropyLoss."
        )
    if loss.reduction not in ("sum", "mean"):
        raise ValueError(
            f"loss is CrossEntropyLoss(reduction={loss.reduction!r}), which does not return one number; expected "
            "reduction='mean' or 'sum'."
        )
    if loss.weight is not None and not (loss.weight.isfinite() & (loss.weight >= 0)).all():
        raise ValueError("loss has class weights that are negative or not finite; expected numbers >= 0.")
    return loss


def sample_weights(loss: nn.CrossEntropyLoss, logits: Tensor, targets: Tensor, name: str) -> tuple[Tensor, float]:
    """Return the weights of the samples in the sum, (n,) in float64, and the divisor of the mean.

    The Hessian of ``-log p[y]`` does not depend on y. So the weight of a sample of class y is its class weight
    ``w[y]``; with label smoothing ε it is ``(1-ε) w[y] + ε mean(w)``. With class probabilities q, smoothed in the same
    way, it is ``q · w``. The weight of an ignored sample is 0.

    Parameters
    ----------
    loss : nn.CrossEntropyLoss
    logits : (n, C) tensor
    targets : (n,) integers or (n, C) probabilities
    name : str
        Name of the batch in messages.

    Raises
    ------
    TypeError, ValueError
        If the targets are something else.
    """
    samples, classes = logits.shape
    weight = torch.ones(classes, dtype=torch.float64) if loss.weight is None else loss.weight.detach().cpu().double()
    smoothing, labels = float(loss.label_smoothing), targets.detach().cpu()
    if labels.is_floating_point():
        if labels.shape != logits.shape:
            raise ValueError(
                f"Y of {name} has shape {tuple(labels.shape)}; expected class probabilities {tuple(logits.shape)}, or "
                f"({samples},) integers."
            )
        smoothed = labels.double() * (1 - smoothing) + smoothing / classes
        if not (smoothed.isfinite() & (smoothed >= 0)).all():
            raise ValueError(f"Y of {name} holds negative numbers, NaN or infinities; expected class probabilities.")
        return smoothed @ weight, float(samples)
    if labels.dtype not in (torch.int64, torch.uint8):
        raise TypeError(
            f"Y of {name} is {labels.dtype}; expected torch.int64 class numbers, or probabilities of a float dtype."
        )
    if labels.shape != (samples,):
        raise ValueError(
            f"Y of {name} has shape {tuple(labels.shape)}; expected ({samples},), one class number for each sample."
        )
    kept = labels != loss.ignore_index
    kept_labels = labels[kept].long()
    outside = kept_labels[(kept_labels < 0) | (kept_labels >= classes)]
    if len(outside):
        raise ValueError(
            f"Y of {name} holds the class number {int(outside[0])}; expected 0 to {classes - 1}, or "
            f"{loss.ignore_index} (ignore_index) for a sample to ignore."
        )
    counts = torch.zeros(samples, dtype=torch.float64)
    counts[kept] = (1 - smoothing) * weight[kept_labels] + smoothing * weight.mean()
    return counts, float(weight[kept_labels].sum())


def compare_entropy(loss: nn.CrossEntropyLoss, output: Tensor, targets: Tensor, weights: Tensor, name: str) -> None:
    """Compare the second derivative by the sample weights with the second derivative of the loss, on one batch.

    Both are taken along a random direction.

    Parameters
    ----------
    loss : nn.CrossEntropyLoss
    output : (n, C) tensor
        The model's output.
    targets : tensor
    weights : (n,) tensor
        The weight of each sample in the loss of the batch.
    name : str
        Name of the batch in messages.

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
            raise ValueError(
                f"loss ({type(loss).__name__}) raises {type(error).__name__} for {name}: {error}"
            ) from error
    if not weights.isfinite().all():  # no sample of this batch counts: the mean has the divisor 0
        return
    curvature = float((product.cpu().double() * direction).sum())
    p = output.detach().cpu().double().softmax(1)
    mean = (p * direction).sum(1)
    terms = weights.cpu() * (p * (direction - mean[:, None]).square()).sum(1)
    expected, size = float(terms.sum()), float((weights.cpu() * direction.square().sum(1)).sum())
    if not abs(curvature - expected) <= torch.finfo(output.dtype).eps ** 0.5 * size:
        raise ValueError(
            f"loss ({type(loss).__name__}) has the second derivative {curvature:.6g} along a random direction for "
            f"{name}; expected {expected:.6g}, that of softmax cross-entropy with its class weights and these targets."
        )
