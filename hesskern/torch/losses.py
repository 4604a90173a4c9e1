"""The multiple of the squared error that a user's loss function is: measured by calls, compared on real batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hesskern.torch_modules.plain_modules import mean_squared_error

#: Sizes of the errors that are tried: losses like Huber's may change their form at any of them.
_SIZES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
#: Numbers of samples that are tried, to see the divisor of the loss; powers of two divide without rounding.
_SAMPLES = (1, 2, 4)


class LossScale(NamedTuple):
    """A loss as a multiple of half the squared norm of the residual."""

    factor: float
    per_sample: bool  # whether it is divided by the number of samples

    def of(self, samples: int) -> float:
        """Return the factor of the half-sum loss of this number of samples."""
        return self.factor / samples if self.per_sample else self.factor


def recognised(
    loss_fn: Any, outputs: Sequence[int], device: torch.device, targets: Sequence[int] | None = None
) -> LossScale:
    """Return the multiple of the squared error that a function is: `nn.MSELoss`, or any function with such values.

    It is called with a few predictions and targets of 1, 2 and 4 samples, in float64. Errors have one entry, entries of
    both signs, or entries of one sign, and sizes from 1e-6 to 1e6. All values must be c times the squared norm of the
    error, where c may be divided by the number of samples; a divisor by the number of outputs is part of c.

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(predictions, targets)``, a 0-dimensional tensor.
    outputs : sequence of int
        The shape of one sample's predictions.
    device : torch.device
        The device of these predictions and targets.
    targets : sequence of int, optional
        The shape of one sample's targets; default: the shape of its predictions.

    Raises
    ------
    TypeError
        If it is not callable, or does not return a 0-dimensional tensor.
    ValueError
        If it is not such a loss; the message gives the values.
    """
    if not callable(loss_fn):
        raise TypeError(f"loss_fn is a {type(loss_fn).__name__}; expected nn.MSELoss() or a function of two tensors.")
    reduction = mean_squared_error(loss_fn)
    if reduction and (targets is None or tuple(targets) == tuple(outputs)):
        return LossScale(2.0 / math.prod(outputs), True) if reduction == "mean" else LossScale(2.0, False)
    called = name_of(loss_fn)
    shape, target_shape = tuple(outputs), tuple(outputs if targets is None else targets)
    factors = [_factor(loss_fn, called, (samples, *shape), (samples, *target_shape), device) for samples in _SAMPLES]
    for per_sample in (False, True):
        scaled = [factor * samples**per_sample for factor, samples in zip(factors, _SAMPLES, strict=True)]
        if all(math.isclose(factor, scaled[0], rel_tol=1e-6) for factor in scaled):
            return LossScale(2.0 * scaled[0], per_sample)
    shown = ", ".join(f"{factor:.6g}" for factor in factors)
    raise ValueError(
        f"loss_fn ({called}) multiplies the squared error of 1, 2 and 4 samples by {shown}; expected the same factor "
        "for all, or a factor divided by the number of samples."
    )


def name_of(loss_fn: Any) -> str:
    """Return the name of a loss in messages."""
    return str(getattr(loss_fn, "__name__", type(loss_fn).__name__))


def comparison(loss_fn: Any, scale: LossScale) -> Callable[[Tensor, Tensor, str], None] | None:
    """Return `comparing`; None for PyTorch's own loss, of which no batch needs to be compared."""
    return None if mean_squared_error(loss_fn) else comparing(loss_fn, scale)


def comparing(loss_fn: Any, scale: LossScale) -> Callable[[Tensor, Tensor, str], None]:
    """Return a function that calls `compare` for the predictions, the targets and the name of a batch."""
    return lambda predictions, targets, name: compare(loss_fn, predictions, targets, scale.of(len(predictions)), name)


def compare(loss_fn: Any, predictions: Tensor, targets: Tensor, scale: float, name: str) -> None:
    """Compare a loss with the recognised one on a batch: the gradient, and the second derivative along one direction.

    Parameters
    ----------
    loss_fn : callable
    predictions, targets : tensors
        With the same number of entries.
    scale : float
        The factor of half the squared error of the batch.
    name : str
        Name of the batch in messages.

    Raises
    ------
    ValueError
        If they differ.
    """
    called = name_of(loss_fn)
    outputs, constants = predictions.detach(), targets.detach().to(predictions.device)
    direction = torch.randn(
        outputs.shape, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float64, device="cpu"
    )
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaf, along = outputs.clone().requires_grad_(), direction.to(outputs)
        try:
            value = loss_fn(leaf, targets)
        except Exception as error:  # a user's function may raise anything
            raise ValueError(f"loss_fn ({called}) raises {type(error).__name__} for {name}: {error}") from error
        slope, bend = torch.zeros_like(leaf), 0.0
        if isinstance(value, Tensor) and value.requires_grad:
            (slope,) = torch.autograd.grad(value, leaf, create_graph=True)
            if slope.requires_grad:
                (product,) = torch.autograd.grad(slope, leaf, along, allow_unused=True)
                bend = 0.0 if product is None else float((product.double() * along).sum())
    residual = outputs.double() - constants.double().reshape(outputs.shape)
    precision = min(
        (tensor.dtype for tensor in (outputs, value) if tensor.is_floating_point()),
        key=lambda dtype: torch.finfo(dtype).bits,
    )
    tolerance = torch.finfo(precision).eps ** 0.5
    size = scale * (float(outputs.abs().max()) + float(constants.abs().max())) if outputs.numel() else 0.0
    expected = scale * float(along.double().square().sum())
    wrong = outputs.numel() > 0 and not (slope.detach().double() - scale * residual).abs().max() <= tolerance * size
    if wrong or not abs(bend - expected) <= tolerance * expected:
        raise ValueError(
            f"loss_fn ({called}) is another loss for {name} (predictions {tuple(outputs.shape)}, targets "
            f"{tuple(targets.shape)}) than for a few test samples: its gradient differs, or its second derivative "
            f"along a random direction, which is {bend:.6g} instead of {expected:.6g}; expected a multiple of the "
            "squared error whose factor depends only on the number of samples (the first dimension)."
        )


def _factor(
    loss_fn: Callable[..., Any],
    called: str,
    shape: tuple[int, ...],
    target_shape: tuple[int, ...],
    device: torch.device,
) -> float:
    """Return the factor by which a loss multiplies the squared error of this number of samples."""
    zero, zero_targets = (torch.zeros(size, dtype=torch.float64, device=device) for size in (shape, target_shape))
    one = zero.clone()
    one.reshape(-1)[0] = 1.0
    minimum = _value(loss_fn, called, zero, zero_targets)[0]
    if minimum != 0:
        raise ValueError(
            f"loss_fn ({called}) is {minimum:.6g} where the predictions are equal to the targets; expected 0: a "
            "multiple of the squared error and nothing else."
        )
    factor = _value(loss_fn, called, one, zero_targets)[0]
    if not 0 < factor < math.inf:
        raise ValueError(
            f"loss_fn ({called}) is {factor:.6g} for an error of 1 in one entry; expected a number greater than 0, as "
            "for a squared loss."
        )
    for predictions, targets in _pairs(shape, target_shape, device):
        error = predictions - targets.reshape(shape)
        squared = float(error.square().sum())
        value, tolerance = _value(loss_fn, called, predictions, targets)
        if not abs(value - factor * squared) <= tolerance * factor * squared:
            raise ValueError(
                f"loss_fn ({called}) is not a squared loss: it is {value:.6g} for an error of shape {shape} with the "
                f"squared norm {squared:.6g}, but {factor:.6g} for one with the squared norm 1; expected "
                "nn.MSELoss() or another multiple of the squared error."
            )
    _check_derivative(loss_fn, called, factor, predictions, targets)
    return factor


def _check_derivative(
    loss_fn: Callable[..., Any], called: str, factor: float, predictions: Tensor, targets: Tensor
) -> None:
    """Refuse a loss with the values of a squared loss but another derivative, because it detaches something."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaf = predictions.clone().requires_grad_()
        value = loss_fn(leaf, targets.clone())
        slope = None
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value, leaf, allow_unused=True)
    expected = 2.0 * factor * (predictions - targets.reshape(predictions.shape))
    if slope is None or (slope - expected).abs().max() > 1e-3 * expected.abs().max():
        raise ValueError(
            f"loss_fn ({called}) has the values of a squared loss, but not its derivative; expected a function that "
            "does not detach the predictions."
        )


def _pairs(
    shape: tuple[int, ...], target_shape: tuple[int, ...], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield predictions and targets with errors of many sizes and signs."""
    generator = torch.Generator("cpu").manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(device)

    for size in _SIZES:
        for error in (normal(), normal().abs(), -normal().abs()):
            targets = size * normal()
            yield targets + size * error, targets.reshape(target_shape)
    far = 1e3 + normal()  # errors that are small relative to the targets: these tell relative errors from squared ones
    yield far + normal(), far.reshape(target_shape)


def _value(loss_fn: Callable[..., Any], called: str, predictions: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the loss, and a bound on its relative rounding error."""
    try:
        with torch.no_grad():
            loss = loss_fn(predictions, targets)
    except Exception as error:  # a user's function may raise anything
        raise ValueError(
            f"loss_fn ({called}) raises {type(error).__name__} for {tuple(predictions.shape)} predictions and targets "
            f"in float64 ({error}); expected a function of two tensors that takes any number of samples."
        ) from error
    if not isinstance(loss, Tensor) or loss.ndim > 0 or not loss.is_floating_point():
        result = f"tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(
            f"loss_fn ({called}) returns a {result}; expected a 0-dimensional tensor, as from "
            'nn.MSELoss(reduction="mean" or "sum").'
        )
    return float(loss), math.sqrt(torch.finfo(loss.dtype).eps)
