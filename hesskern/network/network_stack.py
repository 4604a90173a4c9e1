"""Many linear networks of one shape as one value, with stacked weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from hesskern._base import checks, devices
from hesskern._base.array_types import Array
from hesskern.network.linear_network import LinearNetwork


class NetworkStack(Sequence[LinearNetwork]):
    """B networks of one shape: a sequence of `LinearNetwork`, stored and checked as one array for each layer.

    `fit_ensemble` takes it instead of a list. Use it for thousands of networks on a GPU: no work is done for each
    network separately.

    Parameters
    ----------
    weights : sequence of (B, out, in) arrays, float32 or float64
        One array for each layer. Arrays on a GPU are used as tensors there, without a copy: do not change them.
    biases : sequence of (B, out) arrays or None, optional

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or the arrays have several dtypes or devices.
    ValueError
        If shapes do not fit each other, or an array is empty or holds NaN or infinities.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> stack = NetworkStack([rng.standard_normal((3, 4, 2)), rng.standard_normal((3, 1, 4))])
    >>> stack
    NetworkStack(3 networks, 2-4-1, no bias, float64)
    >>> stack[2]
    LinearNetwork(2-4-1, no bias, float64, 12 parameters)
    """

    def __init__(self, weights: Sequence[Array], biases: Sequence[Array | None] | None = None) -> None:
        if not isinstance(weights, list | tuple):
            raise TypeError(f"weights is a {type(weights).__name__}; expected a list of (B, out, in) arrays.")
        if len(weights) == 0:
            raise ValueError("weights is empty; expected a list of (B, out, in) arrays, one for each layer.")
        if biases is not None and (not isinstance(biases, list | tuple) or len(biases) != len(weights)):
            actual = f"has {len(biases)} entries" if isinstance(biases, list | tuple) else f"is {checks.shown(biases)}"
            raise ValueError(f"biases {actual}; expected {len(weights)} entries, an array or None for each layer.")
        self.weights: list[Any] = []
        self.biases: list[Any] = []
        self._names: tuple[str, ...] | None = None
        for layer, weight in enumerate(weights):
            array = checks.as_data(weight, f"weights[{layer}]", 3)
            self._check(array, f"weights[{layer}]", layer)
            self.weights.append(array)
        for layer, bias in enumerate(biases or [None] * len(weights)):
            if bias is None:
                self.biases.append(None)
                continue
            array = checks.as_data(bias, f"biases[{layer}]", 2)
            expected = tuple(self.weights[layer].shape[:2])
            checks.same_kind(self.weights[0], "weights[0]", array, f"biases[{layer}]")
            if tuple(array.shape) != expected:
                raise ValueError(f"biases[{layer}] has shape {tuple(array.shape)}; expected {expected}.")
            self.biases.append(array)

    def _check(self, array: Any, name: str, layer: int) -> None:
        if layer == 0:
            return
        checks.same_kind(self.weights[0], "weights[0]", array, name)
        count, inputs = self.weights[0].shape[0], self.weights[-1].shape[1]
        if array.shape[0] != count or array.shape[2] != inputs:
            raise ValueError(f"{name} has shape {tuple(array.shape)}; expected ({count}, out, {inputs}).")

    @classmethod
    def of(cls, nets: Sequence[LinearNetwork]) -> NetworkStack:
        """Return networks of one shape and device as a stack; `nets` itself if it is a stack."""
        if isinstance(nets, NetworkStack):
            return nets
        stack = object.__new__(cls)
        stack._names = nets[0].parameter_names
        stack.weights = [devices.stack(layer) for layer in zip(*(net.weights for net in nets), strict=True)]
        stack.biases = [
            None if layer[0] is None else devices.stack(layer)
            for layer in zip(*(net.biases for net in nets), strict=True)
        ]
        return stack

    @property
    def device(self) -> str:
        """The device of the parameters: "cpu", or a GPU by PyTorch's name, "cuda:0"."""
        return devices.place(self.weights[0])

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """float32 or float64."""
        return devices.numpy_dtype(self.weights[0])

    def __len__(self) -> int:
        return len(self.weights[0])

    @overload
    def __getitem__(self, index: int) -> LinearNetwork: ...
    @overload
    def __getitem__(self, index: slice) -> NetworkStack: ...
    def __getitem__(self, index: int | slice) -> LinearNetwork | NetworkStack:
        if not isinstance(index, slice):
            index = checks.index(index, len(self), "networks")
        weights = [weight[index] for weight in self.weights]
        biases = [None if bias is None else bias[index] for bias in self.biases]
        if not isinstance(index, slice):
            return LinearNetwork(weights, biases, names=self._names)
        stack = NetworkStack(weights, biases)
        stack._names = self._names
        return stack

    def __repr__(self) -> str:
        widths = "-".join(str(width) for width in (self.weights[0].shape[2], *(w.shape[1] for w in self.weights)))
        count = sum(bias is not None for bias in self.biases)
        depth = len(self.weights)
        bias = "no bias" if count == 0 else "bias" if count == depth else f"bias in {count} of {depth} layers"
        device = "" if self.device == "cpu" else f" on {self.device}"
        return f"NetworkStack({len(self)} networks, {widths}, {bias}, {self.dtype}{device})"
