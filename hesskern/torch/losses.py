"""Which multiple of the squared error somebody's loss function is: found by calling it, compared on real batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Sizes of the errors that are tried: where losses like Huber's turn, nobody knows.
_SIZES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
#: How many samples are tried, to see what the loss is divided by; powers of two divide without rounding.
_SAMPLES = (1, 2, 4)


class LossScale(NamedTuple):
    """A loss as a multiple of half the squared norm of the residual."""

    factor: float
    per_sample: bool  # whether it is divided by the number of samples

    def of(self, samples: int) -> float:
        """Return what the half-sum loss of so many samples is multiplied by."""
        return self.factor / samples if self.per_sample else self.factor


def recognised(
    loss_fn: Any, outputs: Sequence[int], device: torch.device, targets: Sequence[int] | None = None
) -> LossScale:
    """Return which squared loss a function is: `nn.MSELoss`, or anything that gives a multiple of the same numbers.

    It is called with a few predictions and targets of few samples, in float64: errors of one entry, of both signs and
    either sign, from 1e-6 to 1e6. All values have to be c times the squared norm of the error, where c may be divided
    by the number of samples; what depends on the number of outputs is part of c.

    Parameters
    ----------
    loss_fn : callable
        ``loss_fn(predictions, targets)``, a 0-dimensional tensor.
    outputs : sequence of int
        The shape of one sample's predictions.
    device : torch.device
        Where it is called.
    targets : sequence of int, optional
        The shape of one sample's targets; default: that of its predictions.

    Raises
    ------
    TypeError
        If it is not callable, or returns something else.
    ValueError
        If it is not such a loss; the message says what was seen.
    """
    if not callable(loss_fn):
        raise TypeError(f"loss_fn is a {type(loss_fn).__name__}; expected nn.MSELoss() or a function of two tensors.")
    called = name_of(loss_fn)
    shape, flat = tuple(outputs), tuple(outputs if targets is None else targets)
    factors = [_factor(loss_fn, called, (samples, *shape), (samples, *flat), device) for samples in _SAMPLES]
    for per_sample in (False, True):
        scaled = [factor * samples**per_sample for factor, samples in zip(factors, _SAMPLES, strict=True)]
        if all(math.isclose(each, scaled[0], rel_tol=1e-6) for each in scaled):
            return LossScale(2.0 * scaled[0], per_sample)
    seen = ", ".join(f"{factor:.6g}" for factor in factors)
    raise ValueError(
        f"loss_fn ({called}) multiplies the squared error of 1, 2 and 4 samples by {seen}; expected the same number "
        "for all, or one divided by the number of samples."
    )


def name_of(loss_fn: Any) -> str:
    """Return what to call a loss in a message."""
    return str(getattr(loss_fn, "__name__", type(loss_fn).__name__))


def comparing(loss_fn: Any, scale: LossScale) -> Callable[[Tensor, Tensor, str], None]:
    """Return `compare` for predictions, targets and the name of a batch."""
    return lambda predictions, targets, name: compare(loss_fn, predictions, targets, scale.of(len(predictions)), name)


def compare(loss_fn: Any, predictions: Tensor, targets: Tensor, scale: float, name: str) -> None:
    """Compare a recognised loss with what it is on a batch, by its first derivative and one along a random direction.

    Parameters
    ----------
    loss_fn : callable
    predictions, targets : tensors
        Of the same number of numbers.
    scale : float
        What half the squared error of the batch is multiplied by.
    name : str
        What to call the batch.

    Raises
    ------
    ValueError
        If they differ.
    """
    called = name_of(loss_fn)
    given, aims = predictions.detach(), targets.detach().to(predictions.device)
    direction = torch.randn(
        given.shape, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float64, device="cpu"
    )
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaf, along = given.clone().requires_grad_(), direction.to(given)
        try:
            value = loss_fn(leaf, targets)
        except Exception as error:  # anything that happens in the function of somebody else
            raise ValueError(f"loss_fn ({called}) raises {type(error).__name__} for {name}: {error}") from error
        slope, bend = torch.zeros_like(leaf), 0.0
        if isinstance(value, Tensor) and value.requires_grad:
            (slope,) = torch.autograd.grad(value, leaf, create_graph=True)
            if slope.requires_grad:
                (product,) = torch.autograd.grad(slope, leaf, along, allow_unused=True)
                bend = 0.0 if product is None else float((product.double() * along).sum())
    off = given.double() - aims.double().reshape(given.shape)
    precision = min(
        (each.dtype for each in (given, value) if each.is_floating_point()), key=lambda dtype: torch.finfo(dtype).bits
    )
    tolerance = torch.finfo(precision).eps ** 0.5
    size = scale * (float(given.abs().max()) + float(aims.abs().max())) if given.numel() else 0.0
    expected = scale * float(along.double().square().sum())
    wrong = given.numel() > 0 and not (slope.detach().double() - scale * off).abs().max() <= tolerance * size
    if wrong or not abs(bend - expected) <= tolerance * expected:
        raise ValueError(
            f"loss_fn ({called}) is another loss for {name}, predictions {tuple(given.shape)} and targets "
            f"{tuple(targets.shape)}, than for made-up predictions of a few samples: its second derivative along a "
            f"random direction is {bend:.6g}, that of the squared loss it was taken for {expected:.6g}; expected a "
            "multiple of the squared error that depends on the number of samples (the first dimension) only."
        )


def _factor(
    loss_fn: Callable[..., Any], called: str, shape: tuple[int, ...], flat: tuple[int, ...], device: torch.device
) -> float:
    """Return what a loss multiplies the squared error of so many samples by."""
    zero, aims = (torch.zeros(size, dtype=torch.float64, device=device) for size in (shape, flat))
    one = zero.clone()
    one.reshape(-1)[0] = 1.0
    found = _value(loss_fn, called, zero, aims)[0]
    if found != 0:
        raise ValueError(
            f"loss_fn ({called}) is {found:.6g} where the predictions are the targets; expected 0: a loss that is a "
            "multiple of the squared error and nothing else."
        )
    factor = _value(loss_fn, called, one, aims)[0]
    if not 0 < factor < math.inf:
        raise ValueError(
            f"loss_fn ({called}) is {factor:.6g} for an error of 1 in one number; expected a number greater than 0, as "
            "of a squared loss."
        )
    for predictions, targets in _pairs(shape, flat, device):
        error = predictions - targets.reshape(shape)
        squared = float(error.square().sum())
        value, tolerance = _value(loss_fn, called, predictions, targets)
        if not abs(value - factor * squared) <= tolerance * factor * squared:
            raise ValueError(
                f"loss_fn ({called}) is not a squared loss: of a {' x '.join(map(str, shape))} error with a squared "
                f"norm of {squared:.6g} it is {value:.6g}, but of one with a squared norm of 1 it is {factor:.6g}; "
                "expected nn.MSELoss() or another multiple of the squared error."
            )
    _check_derivative(loss_fn, called, factor, predictions, targets)
    return factor


def _check_derivative(loss_fn: Callable[..., Any], called: str, factor: float, given: Tensor, targets: Tensor) -> None:
    """Refuse a loss with the values of a squared loss whose derivative is another, since it detaches something."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        predictions = given.clone().requires_grad_()
        value = loss_fn(predictions, targets.clone())
        slope = None
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value, predictions, allow_unused=True)
    expected = 2.0 * factor * (given - targets.reshape(given.shape))
    if slope is None or (slope - expected).abs().max() > 1e-3 * expected.abs().max():
        raise ValueError(
            f"loss_fn ({called}) has the values of a squared loss, but not its derivative; expected one that does not "
            "detach the predictions."
        )


def _pairs(shape: tuple[int, ...], flat: tuple[int, ...], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator("cpu").manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(device)

    for size in _SIZES:
        for error in (normal(), normal().abs(), -normal().abs()):
            targets = size * normal()
            yield targets + size * error, targets.reshape(flat)
    far = 1e3 + normal()  # errors that are small next to the targets: a relative error is no squared loss
    yield far + normal(), far.reshape(flat)


def _value(loss_fn: Callable[..., Any], called: str, predictions: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the loss, and how far rounding may have moved it, relatively."""
    try:
        with torch.no_grad():
            found = loss_fn(predictions, targets)
    except Exception as error:  # anything that happens in the function of somebody else
        raise ValueError(
            f"loss_fn ({called}) raises {type(error).__name__} for {tuple(predictions.shape)} predictions and targets "
            f"in float64 ({error}); expected a function of two tensors, of any number of samples."
        ) from error
    if not isinstance(found, Tensor) or found.ndim > 0 or not found.is_floating_point():
        what = f"tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(
            f"loss_fn ({called}) returns a {what}; expected a 0-dimensional tensor, for instance of "
            'nn.MSELoss(reduction="mean" or "sum").'
        )
    return float(found), math.sqrt(torch.finfo(found.dtype).eps)
