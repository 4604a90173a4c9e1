"""The Hessian with respect to the last linear layer of any model: that of a linear network on the layer's features."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hesskern._base import checks
from hesskern.curvature.hessian import Hessian
from hesskern.curvature.softmax import SoftmaxHessian
from hesskern.losses.squared import KINDS
from hesskern.torch.cross_entropy import compare_entropy, sample_weights, taken
from hesskern.torch.data import reduced
from hesskern.torch.features import Batch, LastLayer
from hesskern.torch.losses import LossScale, compare, name_of, recognised
from hesskern.torch.model_problem import ReducedLoss, network_of
from hesskern.torch_modules.chain import Layer, Parameter
from hesskern.torch_modules.tracing import Chain


def last_layer_hessian(
    model: nn.Module, data: Any, loss: Any = "half_sum", *, layer: nn.Linear | str | None = None
) -> Hessian | SoftmaxHessian:
    r"""Return the Hessian with respect to the last linear layer of any model, exact, as an operator.

    With the layer's inputs φ (features), as functions of its weight and bias alone:

    - squared loss: ``scale * I ⊗ Σ_n φ_n φ_n.T``, a `KroneckerHessian`, whatever the targets are
    - softmax cross-entropy: ``Σ_n s_n (diag(p_n) - p_n p_n.T) ⊗ φ_n φ_n.T``, a `SoftmaxHessian`

    Parameters
    ----------
    model : nn.Module
        Any that returns what its last ``nn.Linear`` gives (or a reshaped view of it): convolutions, attention,
        activations may come before, nothing after. In evaluation mode if that makes a difference.
    data : (X, Y), or an iterable of such pairs
        X is what the model takes. A ``DataLoader`` is read once, batch by batch, without a graph; the loss is that of
        **all its samples at once**. With squared loss d + 1 rows are kept; with cross-entropy the features and logits
        of all samples, O(N (d + C)).
    loss : str or callable
        "half_sum", "sum" or "mean" as in `SquaredLoss`; ``nn.MSELoss`` and other multiples of the squared error, see
        `hesskern.torch.losses.recognised`; ``nn.CrossEntropyLoss`` with class weights, ``ignore_index``, label
        smoothing, class numbers or probabilities.
    layer : nn.Linear or str, optional
        The last layer, or its name; default: the last one that forward applies.

    Returns
    -------
    KroneckerHessian or SoftmaxHessian
        On the CPU, in the dtype of the layer, with respect to its weight, row after row, then its bias: the order of
        ``named_parameters()``. ``H @ v``, ``toarray()``, ``spectrum()``, ``cond()``, ``condition()``,
        ``solve(b, damping)``. Sums over samples, eigenvalues and condition numbers are computed in float64 (of the
        dense `SoftmaxHessian` of a float32 model, not: that is a float32 product), the latter from factors.

    Raises
    ------
    TypeError, ValueError
        If the model applies something after its last layer, applies that layer twice, shares its weight, or draws at
        random; if the loss is another; if data do not fit.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from hesskern.torch import last_layer_hessian
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4)).double()
    >>> X, labels = torch.randn(50, 1, 5).double(), torch.randint(4, (50,))
    >>> H = last_layer_hessian(model, (X, labels), nn.CrossEntropyLoss())
    >>> H.shape, H.rank()
    ((28, 28), 21)
    >>> K = last_layer_hessian(model, (X, torch.randn(50, 4).double()), nn.MSELoss())
    >>> K.shape, K.rank(), K.condition().value == K.cond()
    ((28, 28), 28, True)
    """
    last = LastLayer(model, layer)
    entropy = taken(loss)
    found = last.read(data)
    first = next(found, None)  # from here on the layer is known
    if first is None or last.layer is None:
        raise ValueError("data holds no batches; expected at least one (a generator can be read only once).")
    read = itertools.chain([first], found)
    if entropy is not None:
        return _softmax(read, entropy, bias=last.layer.bias is not None)
    return _squared(read, loss, last.layer, last.name)


def _squared(read: Iterable[Batch], loss: Any, layer: nn.Linear, name: str) -> Hessian:
    prefix = f"{name}." if name else ""
    bias = None if layer.bias is None else Parameter(f"{prefix}bias", layer.bias.detach().cpu())
    chain = Chain((Layer(Parameter(f"{prefix}weight", layer.weight.detach().cpu()), bias),), flat=False)
    rows = _Rows(loss, layer.out_features)
    data, _ = reduced(rows.of(read), chain)
    reduced_loss = ReducedLoss(data, rows.samples, rows.scale.of(rows.samples))
    dtype = np.dtype(str(layer.weight.dtype).removeprefix("torch."))
    return reduced_loss.astype(dtype).hessian(network_of(chain))


class _Rows:
    """Rows of features and targets, counted as the loss counts samples.

    Strings and ``nn.MSELoss`` weigh all numbers alike, whatever shape the model gives them: their samples are the rows
    of the layer. Any other function is recognised in the shape that the model returns, and counts its first dimension.
    """

    scale: LossScale

    def __init__(self, loss: Any, outputs: int) -> None:
        self._loss, self._by_rows, self.samples = loss, isinstance(loss, str) or type(loss) is nn.MSELoss, 0
        self._shape: torch.Size | None = None
        if isinstance(loss, str):
            factor = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / outputs}[checks.one_of(loss, "loss", KINDS)]
            self.scale = LossScale(factor, per_sample=loss == "mean")
        elif self._by_rows:
            self.scale = recognised(loss, [outputs], torch.device("cpu"))

    def of(self, read: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pairs; from the first one on the scale is known."""
        for batch in read:
            shape = batch.output.shape
            same = batch.targets.shape == shape
            if not self._by_rows:
                self._see(shape, batch)
                # The function may make one shape of both: it was recognised, and is compared, with these.
                same = same or batch.targets.numel() == batch.output.numel()
            if not same:
                raise ValueError(
                    f"Y of {batch.name} has shape {tuple(batch.targets.shape)}; expected {tuple(shape)}, that of the "
                    "predictions, or PyTorch subtracts every target from every prediction."
                )
            count = len(batch.logits) if self._by_rows else shape[0]
            self.samples += count
            if not isinstance(self._loss, str):
                compare(self._loss, batch.output, batch.targets, self.scale.of(count), batch.name)
            yield batch.features, batch.targets.cpu().reshape(batch.logits.shape)

    def _see(self, shape: torch.Size, batch: Batch) -> None:
        if len(shape) == 0 or (self._shape is not None and shape[1:] != self._shape):
            before = (
                "one dimension for the samples" if self._shape is None else f"(n, {', '.join(map(str, self._shape))})"
            )
            raise ValueError(
                f"model returns shape {tuple(shape)} for {batch.name}; expected {before}: for a loss given as a "
                f"function ({name_of(self._loss)}) every sample has to have the same shape; or pass nn.MSELoss()."
            )
        if self._shape is None:
            self._shape, aims = shape[1:], batch.targets.shape
            fits = len(aims) > 0 and aims[0] == shape[0] and aims.numel() == shape.numel()
            self.scale = recognised(self._loss, shape[1:], batch.output.device, aims[1:] if fits else None)


def _softmax(read: Iterable[Batch], loss: nn.CrossEntropyLoss, *, bias: bool) -> SoftmaxHessian:
    features, logits, counts, total = [], [], [], 0.0
    for batch in read:
        if batch.output.shape != batch.logits.shape:
            raise ValueError(
                f"model returns shape {tuple(batch.output.shape)}; expected (N, {batch.logits.shape[1]}) with "
                "CrossEntropyLoss, which takes classes from the second dimension: make samples of all others, as "
                "x.reshape(-1, C) does."
            )
        count, divisor = sample_weights(loss, batch.logits, batch.targets, batch.name)
        compare_entropy(
            loss, batch.output, batch.targets, count / (divisor if loss.reduction == "mean" else 1.0), batch.name
        )
        kept = count > 0
        features.append(batch.features[kept])
        logits.append(batch.logits[kept])
        counts.append(count[kept])
        total += divisor
    weights = torch.cat(counts)
    if len(weights) == 0:
        raise ValueError("data holds no samples that count; expected some that are not ignored and of weight > 0.")
    if loss.reduction == "mean":
        weights = weights / total
    inputs = torch.cat(features)
    return SoftmaxHessian(
        inputs.numpy(), torch.cat(logits).numpy(), bias=bias, sample_weights=weights.to(inputs.dtype).numpy()
    )
