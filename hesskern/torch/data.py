"""Samples as PyTorch users have them, reduced to few rows while they are read.

The loss counts all samples at once, for any batches: with ``nn.MSELoss()`` every sample has the same weight, also in a
shorter last batch. (In the mean of the batches' means, the samples of that batch have a larger weight.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hesskern import backends
from hesskern._base import checks, devices
from hesskern.backends.data import Data
from hesskern.reductions.samples import of_triangle
from hesskern.torch_modules.tracing import Chain

#: A function of the predictions, the targets and the name of a batch.
Check = Callable[[Tensor, Tensor, str], None]
#: How many rows are collected, at least, before they are reduced.
_ROWS = 4096


def reduced(data: Any, chain: Chain, check: Check | None = None) -> tuple[Data, int]:
    """Return the exact reduction of samples to at most i + 1 rows, in float64, and the number of samples.

    Parameters
    ----------
    data : (X, Y), or an iterable of such pairs
        Tensors of the model's dtype, on its device; samples in rows. A ``DataLoader`` is read once, batch by batch: at
        most one batch and a few thousand rows are in memory. O(N (i + o)²).
    chain : Chain
        The model.
    check : callable, optional
        Called with the predictions, the targets and the name of each batch, to compare the loss with the recognised
        one.

    Raises
    ------
    TypeError
        If `data` is something else, or a tensor has another dtype or is on another device than the model.
    ValueError
        If there are no samples, shapes do not fit the model, or there are NaN or infinities.
    """
    stack = _Stack(chain)
    for name, batch in batches(data):
        X, Y = _checked(batch, name, chain)
        if check is not None and len(X):
            with torch.no_grad():
                check(chain.predicted(X), Y, name)
        stack.add(X, Y)
    return stack.data(), stack.samples


class _Stack:
    """Rows of ``[X 1 Y]``, replaced by their triangular factor whenever there are many of them (TSQR)."""

    def __init__(self, chain: Chain) -> None:
        first = chain.reference
        self._inputs, self._bias = first.shape[1], any(layer.bias is not None for layer in chain.layers)
        self._columns = self._inputs + self._bias
        self._most_rows = max(_ROWS, 4 * (self._columns + chain.outputs))
        self._rows: list[Tensor] = []
        self._kernels = backends.get_for(None, devices.place(first), "the model is")
        self.samples = 0

    def add(self, X: Tensor, Y: Tensor) -> None:
        for start in range(0, len(X), self._most_rows):
            rows = slice(start, start + self._most_rows)
            ones = X.new_ones(len(X[rows]), int(self._bias))
            self._rows.append(torch.cat([X[rows], ones, Y[rows]], dim=1).double())
            if sum(map(len, self._rows)) >= self._most_rows:
                self._rows = [torch.as_tensor(self._triangle(), device=self._rows[0].device)]
        self.samples += len(X)

    def _triangle(self) -> Any:
        stacked: Any = torch.cat(self._rows)
        return self._kernels.triangular_factor((stacked if devices.on_device(stacked) else stacked.numpy(),))

    def data(self) -> Data:
        if self.samples == 0:
            raise ValueError("data holds no samples; expected at least one (a generator can be read only once).")
        if self.samples <= self._columns:
            stacked: Any = torch.cat(self._rows)
            stacked = stacked if devices.on_device(stacked) else stacked.numpy()
            X, Y = stacked[:, : self._inputs], stacked[:, self._columns :]
            return Data(devices.converted(X, np.float64), None, devices.converted(Y, np.float64), 0.0)
        return of_triangle(self._triangle(), self._inputs, bias=self._bias)


def batches(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield batches with their names in messages."""
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(tensor, Tensor) for tensor in data):
        yield "data", data
        return
    expected = "a pair of tensors (X, Y) or a DataLoader of pairs"
    if isinstance(data, Tensor):
        raise TypeError(f"data is a Tensor; expected {expected}.")
    for number, batch in enumerate(checks.entries(data, "data", expected)):
        yield f"batch {number} of data", batch


def _checked(batch: Any, name: str, chain: Chain) -> tuple[Tensor, Tensor]:
    pair = isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(tensor, Tensor) for tensor in batch)
    if not pair:
        raise TypeError(f"{name} is a {type(batch).__name__}; expected a pair of tensors (X, Y).")
    X, Y = (tensor.detach() for tensor in batch)
    for letter, tensor in (("X", X), ("Y", Y)):
        if tensor.layout != torch.strided:
            raise TypeError(f"{letter} of {name} is sparse; expected a dense tensor: {letter}.to_dense().")
    reference = chain.reference
    for letter, tensor in (("X", X), ("Y", Y)):
        if tensor.dtype != reference.dtype:
            raise TypeError(
                f"{letter} of {name} is {tensor.dtype}, but the model is {reference.dtype}; convert one of them, for "
                f"instance with {letter}.to({reference.dtype})."
            )
        if tensor.device != reference.device:
            raise TypeError(
                f"{letter} of {name} is on {tensor.device}, but the model is on {reference.device}; move one of them, "
                "for instance with data=((X.to(device), Y.to(device)) for X, Y in loader)."
            )
        if not tensor.isfinite().all():
            raise ValueError(f"{letter} of {name} holds NaN or infinite numbers; expected finite numbers.")
    inputs, outputs = reference.shape[1], chain.outputs
    if chain.flat and X.ndim > 1:
        X = X.reshape(len(X), -1) if len(X) else X.new_empty(0, inputs)
    if X.ndim != 2 or X.shape[1] != inputs:
        hint = "; pass batches, not single samples" if X.ndim == 1 else ""
        raise ValueError(f"X of {name} has shape {tuple(X.shape)}; expected (N, {inputs}), samples in rows{hint}.")
    if Y.shape != (len(X), outputs):
        hint = (
            ": pass Y.unsqueeze(1), otherwise PyTorch subtracts every target from every prediction"
            if Y.ndim == 1
            else ""
        )
        raise ValueError(f"Y of {name} has shape {tuple(Y.shape)}; expected ({len(X)}, {outputs}){hint}.")
    return X, Y
