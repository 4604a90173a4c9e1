"""The "numpy" backend: the definitions, written so that nobody can get them wrong. Slow and obvious on purpose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern._array import Array
from hesskern.backends.protocol import Layers, ProductSvd, Stop
from hesskern.problem import Data


def _activations(net: Layers, X: Array, column: Array) -> list[Array]:
    """Return Z_0 = X, Z_1, ..., Z_L with ``Z_l = Z_{l-1} W_l.T + column b_l``."""
    activations = [X]
    for weight, bias in zip(net.weights, net.biases, strict=True):
        activation = activations[-1] @ weight.T
        if bias is not None:
            activation = activation + np.outer(column, bias)
        activations.append(activation)
    return activations


def _gradients(net: Layers, data: Data, scale: float) -> tuple[float, list[tuple[Array, Array | None]]]:
    """Return ``‖E‖²`` and each layer's gradient: ``D_l.T Z_{l-1}`` with ``D_{l-1} = D_l W_l`` and ``D_L = scale E``."""
    column = data.column
    activations = _activations(net, data.X, column)
    residual = activations[-1] - data.Y
    delta = residual * residual.dtype.type(scale)
    gradients: list[tuple[Array, Array | None]] = []
    for layer in reversed(range(len(net.weights))):
        bias = net.biases[layer]
        gradients.append((delta.T @ activations[layer], None if bias is None else delta.T @ column))
        delta = delta @ net.weights[layer]
    return float(np.sum(np.square(residual, dtype=np.float64))), gradients[::-1]


def _flat(parts: Sequence[tuple[Array, Array | None]]) -> Array:
    pieces: list[Array] = []
    for weight, bias in parts:
        pieces.append(weight.ravel())
        if bias is not None:
            pieces.append(bias)
    return np.concatenate(pieces)


class _Parameters:
    """Weights and biases that a descent may replace."""

    def __init__(self, weights: tuple[Array, ...], biases: tuple[Array | None, ...]) -> None:
        self.weights = weights
        self.biases = biases


class ReferenceDescent:
    """Gradient descent as one writes it on a blackboard."""

    def __init__(self, net: Layers, data: Data, rate: float, scale: float, decay: float, rtol: float) -> None:
        self._data, self._rate, self._scale, self._decay, self._rtol = data, rate, scale, decay, rtol
        # One attribute, replaced as a whole: an interrupt between two steps leaves a consistent state.
        self._state = (_Parameters(net.weights, net.biases), 0)
        self._target = -1.0

    @property
    def steps(self) -> int:
        return self._state[1]

    @np.errstate(over="ignore", invalid="ignore")
    def run(self, losses: NDArray[np.float64]) -> Stop:
        rate, decay = self._data.X.dtype.type(self._rate), self._data.X.dtype.type(self._decay)
        for k in range(len(losses)):
            net, steps = self._state
            squared, gradients = _gradients(net, self._data, self._scale)
            loss = self._scale * (0.5 * squared + self._data.constant)
            if self._decay:
                loss += 0.5 * self._decay * sum(float(np.vdot(p, p)) for p in (*net.weights, *net.biases) if p is not None)
            losses[k] = loss
            if not np.isfinite(loss):
                return "diverged"
            if steps == 0:
                self._target = self._rtol * loss
            self._state = (
                _Parameters(
                    tuple(w - rate * (g + decay * w) for w, (g, _) in zip(net.weights, gradients, strict=True)),
                    tuple(
                        None if b is None or g is None else b - rate * (g + decay * b)
                        for b, (_, g) in zip(net.biases, gradients, strict=True)
                    ),
                ),
                steps + 1,
            )
            if loss <= self._target:
                return "converged"
        return "running"

    def parameters(self) -> Array:
        net, _ = self._state
        return _flat(list(zip(net.weights, net.biases, strict=True)))

    def set_parameters(self, flat: Array, steps: int) -> None:
        net, _ = self._state
        weights: list[Array] = []
        biases: list[Array | None] = []
        at = 0
        for weight, bias in zip(net.weights, net.biases, strict=True):
            weights.append(flat[at : at + weight.size].reshape(weight.shape))
            at += weight.size
            biases.append(None if bias is None else flat[at : at + bias.size])
            at += 0 if bias is None else bias.size
        self._state = (_Parameters(tuple(weights), tuple(biases)), steps)


class ReferenceBackend:
    """Plain NumPy."""

    name = "numpy"
    tolerance = {"float64": 1e-12, "float32": 2e-4}

    def forward(self, net: Layers, X: Array) -> Array:
        return _activations(net, X, np.ones(len(X), X.dtype))[-1]

    def squared_residual(self, net: Layers, data: Data) -> float:
        residual = _activations(net, data.X, data.column)[-1] - data.Y
        return float(np.sum(np.square(residual, dtype=np.float64)))

    def gradient(self, net: Layers, data: Data, scale: float) -> tuple[float, Array]:
        squared, gradients = _gradients(net, data, scale)
        return squared, _flat(gradients)

    def descent(
        self, net: Layers, data: Data, *, rate: float, scale: float, decay: float, rtol: float
    ) -> ReferenceDescent:
        return ReferenceDescent(net, data, rate, scale, decay, rtol)

    def kronecker(self, output_factor: Array, input_factor: Array, *, bias: bool, out: Array) -> None:
        product = np.kron(output_factor, input_factor)
        if bias:
            outputs, inputs = len(output_factor), len(input_factor)
            order = np.arange(outputs * inputs).reshape(outputs, inputs)
            order = np.concatenate([order[:, :-1].ravel(), order[:, -1]])
            product = product[np.ix_(order, order)]
        out[...] = product

    def product_svd(
        self, first: NDArray[np.float64], weights: Sequence[NDArray[np.float64]], tolerance: float
    ) -> ProductSvd:
        product = first
        for weight in weights:
            product = product @ weight.T
        values = np.linalg.svd(product, compute_uv=False)
        largest = values[0] or 1.0
        rank = int(np.sum(values > tolerance * largest))
        kept = values[rank - 1] / largest if rank else 1.0
        dropped = values[rank] / largest if rank < len(values) else 0.0
        # The product was rounded before its singular values were taken: nothing below rounding of it is known.
        size = float(np.prod([np.linalg.norm(factor) for factor in (first, *weights)]))
        return ProductSvd(values, rank, float(kept), float(dropped), size / (values[rank - 1] if rank else 1.0))


BACKEND = ReferenceBackend()
