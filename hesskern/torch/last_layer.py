"""The Hessian with respect to the last linear layer of any model: the Hessian of a linear layer on fixed features."""

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
from hesskern.torch.cross_entropy import as_cross_entropy, compare_entropy, sample_weights
from hesskern.torch.data import reduced
from hesskern.torch.features import Batch, LastLayer
from hesskern.torch.losses import LossScale, compare, name_of, recognised
from hesskern.torch.model_problem import network_of
from hesskern.torch.reduced_loss import ReducedLoss
from hesskern.torch_modules.chain import Layer, Parameter
from hesskern.torch_modules.tracing import Chain


def last_layer_hessian(
    model: nn.Module, data: Any, loss: Any = "half_sum", *, layer: nn.Linear | str | None = None
) -> Hessian | SoftmaxHessian:
    r"""Return the Hessian with respect to the last linear layer of any model, exact, as an operator.

    With the layer's inputs φ (features), as functions of its weight and bias alone:

    - squared loss: ``scale * I ⊗ Σ_n φ_n φ_n.T``, a `KroneckerHessian`, for any targets
    - softmax cross-entropy: ``Σ_n s_n (diag(p_n) - p_n p_n.T) ⊗ φ_n φ_n.T``, a `SoftmaxHessian`

    Parameters
    ----------
    model : nn.Module
        Any model that returns the output of its last ``nn.Linear`` (or a reshaped view of it). Convolutions, attention
        and activations may come before this layer, but nothing may come after it. Call ``model.eval()`` first if the
        mode changes the output.
    data : (X, Y), or an iterable of such pairs
        X is the model's input. A ``DataLoader`` is read once, batch by batch, without a graph; the loss counts **all
        its samples at once**. With squared loss, d + 1 rows are kept; with cross-entropy, the features and logits of
        all samples, O(N (d + C)).
    loss : str or callable
        "half_sum", "sum" or "mean" as in `SquaredLoss`; ``nn.MSELoss`` and other multiples of the squared error, see
        `hesskern.torch.losses.recognised`; ``nn.CrossEntropyLoss`` with class weights, ``ignore_index``, label
        smoothing, class numbers or probabilities.
    layer : nn.Linear or str, optional
        The last layer, or its name; default: the last ``nn.Linear`` that forward applies.

    Returns
    -------
    KroneckerHessian or SoftmaxHessian
        On the CPU, in the dtype of the layer, with respect to its weight, row after row, then its bias: the order of
        ``named_parameters()``. ``H @ v``, ``toarray()``, ``spectrum()``, ``cond()``, ``condition()``,
        ``solve(b, damping)``. Sums over samples, eigenvalues and condition numbers are computed in float64, and
        condition numbers from factors. The dense `SoftmaxHessian` of a float32 model is an exception: it is a float32
        product.

    Raises
    ------
    TypeError, ValueError
        If the model applies an operation after its last layer, applies that layer twice, shares its weight, or is
        random; if the loss is not one of these; if the data do not fit.

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
    entropy = as_cross_entropy(loss)
    batches = last.read(data)
    first = next(batches, None)  # from here on the layer is known
    if first is None or last.layer is None:
        raise ValueError("data holds no batches; expected at least one (a generator can be read only once).")
    all_batches = itertools.chain([first], batches)
    if entropy is not None:
        return _softmax(all_batches, entropy, bias=last.layer.bias is not None)
    return _squared(all_batches, loss, last.layer, last.name)


def _squared(batches: Iterable[Batch], loss: Any, layer: nn.Linear, name: str) -> Hessian:
    prefix = f"{name}." if name else ""
    bias = None if layer.bias is None else Parameter(f"{prefix}bias", layer.bias.detach().cpu())
    chain = Chain((Layer(Parameter(f"{prefix}weight", layer.weight.detach().cpu()), bias),), flat=False)
    rows = _Rows(loss, layer.out_features)
    data, _ = reduced(rows.of(batches), chain)
    reduced_loss = ReducedLoss(data, rows.samples, rows.scale.of(rows.samples))
    dtype = np.dtype(str(layer.weight.dtype).removeprefix("torch."))
    return reduced_loss.astype(dtype).hessian(network_of(chain))


class _Rows:
    """Rows of features and targets, and their number of samples as the loss counts them.

    Strings and ``nn.MSELoss`` give all numbers the same weight, in any shape: their samples are the rows of the layer.
    Any other function is recognised in the shape that the model returns, with samples along the first dimension.
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

    def of(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs of features and targets; from the first one on the scale is known."""
        for batch in batches:
            shape = batch.output.shape
            same_shape = batch.targets.shape == shape
            if not self._by_rows:
                self._recognise(shape, batch)
                # The function may reshape both to one shape: it is recognised and compared with these shapes.
                same_shape = same_shape or batch.targets.numel() == batch.output.numel()
            if not same_shape:
                raise ValueError(
                    f"Y of {batch.name} has shape {tuple(batch.targets.shape)}; expected {tuple(shape)}, the shape of "
                    "the predictions: otherwise PyTorch subtracts every target from every prediction."
                )
            count = len(batch.logits) if self._by_rows else shape[0]
            self.samples += count
            if not isinstance(self._loss, str):
                compare(self._loss, batch.output, batch.targets, self.scale.of(count), batch.name)
            yield batch.features, batch.targets.cpu().reshape(batch.logits.shape)

    def _recognise(self, shape: torch.Size, batch: Batch) -> None:
        """Recognise the loss in the shape of the first batch, and refuse another shape later."""
        if len(shape) == 0 or (self._shape is not None and shape[1:] != self._shape):
            before = (
                "one dimension for the samples" if self._shape is None else f"(n, {', '.join(map(str, self._shape))})"
            )
            raise ValueError(
                f"model returns shape {tuple(shape)} for {batch.name}; expected {before}: a loss that is a function "
                f"({name_of(self._loss)}) needs samples of one shape; or pass nn.MSELoss()."
            )
        if self._shape is None:
            self._shape, target_shape = shape[1:], batch.targets.shape
            fits = len(target_shape) > 0 and target_shape[0] == shape[0] and target_shape.numel() == shape.numel()
            self.scale = recognised(self._loss, shape[1:], batch.output.device, target_shape[1:] if fits else None)


def _softmax(batches: Iterable[Batch], loss: nn.CrossEntropyLoss, *, bias: bool) -> SoftmaxHessian:
    features, logits, weights, total = [], [], [], 0.0
    for batch in batches:
        if batch.output.shape != batch.logits.shape:
            raise ValueError(
                f"model returns shape {tuple(batch.output.shape)}; expected (N, {batch.logits.shape[1]}) with "
                "CrossEntropyLoss, which takes the classes from the second dimension: turn all other dimensions into "
                "samples with x.reshape(-1, C)."
            )
        weight, divisor = sample_weights(loss, batch.logits, batch.targets, batch.name)
        compare_entropy(
            loss, batch.output, batch.targets, weight / (divisor if loss.reduction == "mean" else 1.0), batch.name
        )
        kept = weight > 0
        features.append(batch.features[kept])
        logits.append(batch.logits[kept])
        weights.append(weight[kept])
        total += divisor
    all_weights = torch.cat(weights)
    if len(all_weights) == 0:
        raise ValueError(
            "data holds no samples that count; expected at least one that is not ignored and has a weight > 0."
        )
    if loss.reduction == "mean":
        all_weights = all_weights / total
    inputs = torch.cat(features)
    return SoftmaxHessian(
        inputs.numpy(), torch.cat(logits).numpy(), bias=bias, sample_weights=all_weights.to(inputs.dtype).numpy()
    )
