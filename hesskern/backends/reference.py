"""The "numpy" backend: the definitions, written so that nobody can get them wrong. Slow and obvious on purpose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern._array import Array
from hesskern.backends.protocol import Block, Layers, ProductSvd, Side, Stop
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
                loss += (
                    0.5 * self._decay * sum(float(np.vdot(p, p)) for p in (*net.weights, *net.biases) if p is not None)
                )
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
        parts = _split(self._state[0], flat)
        self._state = (_Parameters(tuple(w for w, _ in parts), tuple(b for _, b in parts)), steps)


class ReferenceProduct:
    """The gradient ``D_l.T Z_{l-1}`` differentiated once in a direction."""

    def __init__(
        self, net: Layers, data: Data, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> None:
        self._net, self._column = net, data.column
        self._scale, self._decay = data.X.dtype.type(scale), data.X.dtype.type(decay)
        self._gauss_newton, self._functional = gauss_newton, functional
        self._activations = _activations(net, data.X, self._column)
        self._deltas = [self._scale * (self._activations[-1] - data.Y)]
        for weight in net.weights[:0:-1]:
            self._deltas.insert(0, self._deltas[0] @ weight)

    def apply(self, v: Array, out: Array) -> None:
        for column in range(v.shape[1] if v.ndim == 2 else 1):
            at = (slice(None), column) if v.ndim == 2 else slice(None)
            out[at] = self._times(v[at])

    def _times(self, v: Array) -> Array:
        net, column, activations, deltas = self._net, self._column, self._activations, self._deltas
        directions = _split(net, v)
        moved = [np.zeros_like(activations[0])]
        for layer, (direction, bias) in enumerate(directions):
            change = moved[-1] @ net.weights[layer].T + activations[layer] @ direction.T
            moved.append(change if bias is None else change + np.outer(column, bias))
        delta = self._scale * moved[-1] if self._gauss_newton else np.zeros_like(moved[-1])
        products: list[tuple[Array, Array | None]] = []
        for layer in reversed(range(len(net.weights))):
            product = delta.T @ activations[layer]
            if self._functional:
                product = product + deltas[layer].T @ moved[layer]
            products.append((product, None if net.biases[layer] is None else delta.T @ column))
            delta = delta @ net.weights[layer]
            if self._functional:
                delta = delta + deltas[layer] @ directions[layer][0]
        return _flat(products[::-1]) + self._decay * v


def _split(net: Layers, flat: Array) -> list[tuple[Array, Array | None]]:
    """Return the parameters of each layer from a flat vector."""
    parts: list[tuple[Array, Array | None]] = []
    at = 0
    for weight, bias in zip(net.weights, net.biases, strict=True):
        matrix = flat[at : at + weight.size].reshape(weight.shape)
        at += weight.size
        parts.append((matrix, None if bias is None else flat[at : at + bias.size]))
        at += 0 if bias is None else bias.size
    return parts


def _bias_last(side: Side) -> NDArray[np.intp]:
    """Return the order of (outer, inner) indices that puts the constant input's parameters last."""
    order = np.arange(side.outer * (side.inner + side.bias)).reshape(side.outer, -1)
    return np.concatenate([order[:, : side.inner].ravel(), order[:, side.inner :].ravel()])


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

    def assemble(self, rows: Sequence[Side], columns: Sequence[Side], blocks: Sequence[Block], out: Array) -> None:
        grid: list[list[Array]] = []
        for m, row in enumerate(rows):
            grid.append([])
            for k, column in enumerate(columns):
                block = blocks[m * len(columns) + k]
                entries = np.einsum("rp,sq->rspq", block.U, block.V)
                if block.B is not None and block.W is not None:
                    entries = entries + np.einsum("sp,rq->rspq", block.B, block.W)
                order, columns_order = _bias_last(row), _bias_last(column)
                grid[-1].append(entries.reshape(len(order), len(columns_order))[np.ix_(order, columns_order)])
        out[...] = np.block(grid)

    def hessian_product(
        self, net: Layers, data: Data, *, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> ReferenceProduct:
        return ReferenceProduct(net, data, scale, decay, gauss_newton, functional)

    def triangular_factor(self, parts: Sequence[Array]) -> NDArray[np.float64]:
        stacked = np.concatenate(parts, axis=1).astype(np.float64)
        triangle = np.zeros((stacked.shape[1], stacked.shape[1]))
        found = np.linalg.qr(stacked, mode="r")
        triangle[: len(found)] = found
        return triangle

    def product_svd(
        self,
        first: NDArray[np.float64],
        weights: Sequence[NDArray[np.float64]],
        tolerance: float,
        *,
        rotated: bool = False,
    ) -> ProductSvd:
        del rotated  # one tolerance for the whole product
        product: Array = first
        for weight in weights:
            product = product @ weight.T
        values = np.linalg.svd(product, compute_uv=False).astype(np.float64)
        # The product was rounded before its singular values were taken: below rounding of its terms nothing is known.
        size = float(np.prod([np.linalg.norm(factor, 2) for factor in (first, *weights)]))
        rank = int(np.sum(values > tolerance * size))
        smallest = float(values[rank - 1]) if rank else size
        dropped = float(values[rank]) / size if rank < len(values) and size else 0.0
        return ProductSvd(values, rank, smallest / size if size else 1.0, dropped, size / smallest if size else 1.0)


BACKEND = ReferenceBackend()
