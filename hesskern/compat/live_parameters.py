"""Common parts of the replacements for other libraries' objects: a model, its loss and data, its live parameters.

Other libraries read the model and the data again for every product. Here the data are reduced once, when the object is
created. At each call the parameters are compared with their values at the last call, and read again if they have
changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hesskern._base import checks
from hesskern.backends.data import Data
from hesskern.torch.data import Check, reduced
from hesskern.torch.losses import LossScale, comparison, recognised
from hesskern.torch.model_problem import ModelProblem
from hesskern.torch_modules import tracing


@contextmanager
def keep(original: str) -> Iterator[None]:
    """Add to an error which call to keep for such a model or loss."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{error} For this model and loss keep {original}.") from error


def traced(model: Any, loss: Any, original: str) -> tuple[tracing.Chain, LossScale]:
    """Return a model as a chain of layers, and a function of predictions and targets as a multiple of the loss."""
    with keep(original):
        chain = tracing.trace(model)
        return chain, recognised(loss, [chain.outputs], chain.reference.device)


def compared(loss: Any, scale: LossScale, original: str) -> Check | None:
    """Return a function that compares the loss with the recognised one, on the predictions and targets of a batch.

    None for PyTorch's own loss.
    """
    check = comparison(loss, scale)
    if check is None:
        return None

    def of(predictions: Tensor, targets: Tensor, name: str) -> None:
        with keep(original):
            check(predictions, targets, name)

    return of


class CountedBatches:
    """Pairs (X, Y) of the user's data, moved to the model's device and counted.

    Parameters
    ----------
    data : iterable of pairs
        Read once.
    device : torch.device
    """

    def __init__(self, data: Iterable[Any], device: torch.device) -> None:
        self._data, self._device, self.count = data, device, 0

    def __iter__(self) -> Iterator[Any]:
        for batch in checks.entries(self._data, "data", "a DataLoader of pairs (X, Y), or a list of them"):
            self.count += 1
            pair = isinstance(batch, tuple | list)
            yield type(batch)(map(self._moved, batch)) if pair else batch

    def _moved(self, tensor: Any) -> Any:
        return tensor.to(self._device) if isinstance(tensor, Tensor) else tensor

    def reduced(self, chain: tracing.Chain, check: Check | None = None) -> tuple[Data, int]:
        """Return the exact reduction of the samples, and their number; see `data.reduced`."""
        return reduced(self, chain, check)


def per_batch(scale: LossScale, samples: int, batches: int) -> float:
    """Return the factor of the half-sum loss of all samples, for a library that averages over batches.

    For a loss that averages over samples the result is the loss of all samples at once, for any batches. For a loss
    that sums over samples it is the sum over all samples divided by the number of batches.
    """
    return scale.of(samples) if scale.per_sample else scale.factor / batches


class LiveProblem:
    """The problem with the parameters as they are at each call.

    Parameters
    ----------
    make : callable
        Returns the problem.
    model : nn.Module, optional
        Its parameters and buffers may be changed, or replaced by others, between two calls.
    tensors : sequence of tensors
        Other tensors that may be changed.
    """

    def __init__(
        self, make: Callable[[], ModelProblem], model: nn.Module | None = None, tensors: Sequence[Tensor] = ()
    ) -> None:
        self._make, self._model, self._tensors = make, model, list(tensors)
        self._seen, self._problem = self._values(), make()

    def _values(self) -> list[tuple[Mapping[Any, Any], Any, Tensor, Tensor]]:
        """Return where each tensor is kept, under which name, the tensor itself, and a copy of its numbers."""
        modules = () if self._model is None else self._model.modules()
        stores: list[Mapping[Any, Any]] = [dict(enumerate(self._tensors))]
        stores += [store for module in modules for store in (module._parameters, module._buffers)]
        return [
            (store, name, tensor, tensor.detach().clone())
            for store in stores
            for name, tensor in store.items()
            if tensor is not None
        ]

    @property
    def problem(self) -> ModelProblem:
        """The problem, built again if a parameter has changed since the last call."""
        if not all(store.get(name) is tensor and torch.equal(tensor, seen) for store, name, tensor, seen in self._seen):
            self._seen, self._problem = self._values(), self._make()
        return self._problem


def split(vector: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Return a vector (P,), or the columns of a (P, k) matrix, in the shapes of the parameters."""
    parts = torch.split(vector, [shape.numel() for shape in shapes])
    return [part.reshape([*shape, *vector.shape[1:]]) for part, shape in zip(parts, shapes, strict=True)]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require grad, by their names."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ValueError("model has no parameter that requires grad; expected at least one.")
    return parameters
