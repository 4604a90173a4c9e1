"""The "numpy" backend: the definitions in plain NumPy. Slow and obvious on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Array
from hesskern._base.flat_layout import join, split_as
from hesskern._base.lanczos import steps
from hesskern.backends.data import Data
from hesskern.backends.product_svd import product_svd
from hesskern.backends.protocol import (
    UNBALANCED,
    Block,
    HessianProduct,
    Job,
    Layers,
    ProductSvd,
    Side,
    Softmax,
    State,
    Stop,
    Update,
    Watch,
)


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
    activations = _activations(net, data.X, data.column)
    residual = activations[-1] - data.Y
    gradients, _ = _swept(net, activations, data.column, residual * residual.dtype.type(scale))
    return float(np.sum(np.square(residual, dtype=np.float64))), gradients


def _swept(
    net: Layers, activations: Sequence[Array], column: Array, delta: Array
) -> tuple[list[tuple[Array, Array | None]], Array]:
    """Return each layer's gradient from D_L, and D_0, the gradient of the samples."""
    gradients: list[tuple[Array, Array | None]] = []
    for layer in reversed(range(len(net.weights))):
        bias = net.biases[layer]
        gradients.append((delta.T @ activations[layer], None if bias is None else delta.T @ column))
        delta = delta @ net.weights[layer]
    return gradients[::-1], delta


def _flat(parts: Sequence[tuple[Array, Array | None]]) -> Array:
    """Return the vector of the weight and bias of each layer."""
    flat: Array = join([weight for weight, _ in parts], [bias for _, bias in parts])
    return flat


class _Network(NamedTuple):
    weights: tuple[Array, ...]
    biases: tuple[Array | None, ...]


class ReferenceDescent:
    """Gradient descent as in a textbook."""

    def __init__(
        self,
        net: Layers,
        data: Data,
        samples: Data | None,
        *,
        scale: float,
        rtol: float,
        update: Update,
        watch: Watch,
    ) -> None:
        self._shape, self._data, self._samples = net, data, samples
        self._scale, self._rtol, self._update, self._watch = scale, rtol, update, watch
        theta: Array = join(net.weights, net.biases)
        nothing = np.zeros(len(watch.leak_layers))
        velocity = np.zeros(theta.shape if update.momentum else 0, theta.dtype)
        # Replaced as a whole: an interrupt between two steps leaves a consistent one.
        self._state = State(
            steps=0,
            target=-1.0,
            parameters=theta,
            previous=theta,
            velocity=velocity,
            growth=nothing,
            growth_rate=nothing,
            growth_step=-1,
            search=np.empty((0, len(theta)), theta.dtype),
        )

    @property
    def steps(self) -> int:
        return self._state.steps

    @property
    def growth(self) -> list[float]:
        state = self._state
        since = max(0, state.steps - state.growth_step) if state.growth_step >= 0 else 0
        totals, rates = state.growth.tolist(), state.growth_rate.tolist()
        return [total + since * rate for total, rate in zip(totals, rates, strict=True)]

    def parameters(self) -> Array:
        return self._state.parameters.copy()

    def step_back(self) -> None:
        self._state = self._state._replace(parameters=self._state.previous, steps=max(0, self._state.steps - 1))

    def save(self) -> State:
        return self._state

    def restore(self, state: State) -> None:
        self._state = state

    @np.errstate(over="ignore", invalid="ignore")
    def run(self, job: Job) -> tuple[Stop, int]:
        for k in range(len(job.rates)):
            state = self._state
            theta, velocity, steps, target = state.parameters, state.velocity, state.steps, state.target
            growth, growing, looked = state.growth, state.growth_rate, state.growth_step
            net = self._network(theta)
            kind = theta.dtype.type
            decay, momentum, rate = kind(self._update.decay), kind(self._update.momentum), kind(job.rates[k])
            recorded = steps % self._watch.every == 0
            penalty = 0.0  # not 0 times the squares, which may overflow
            if self._update.decay:
                penalty = 0.5 * self._update.decay * float(np.sum(np.square(theta, dtype=np.float64)))

            squared, gradients = _gradients(net, self._data, self._scale)
            gradient = _flat(gradients)
            loss = self._scale * (0.5 * squared + self._data.constant) + penalty
            job.losses[k] = used = loss
            if job.gradient_norms is not None:
                norm = float(np.linalg.norm((gradient + decay * theta).astype(np.float64)))
                job.gradient_norms[k] = norm if recorded else np.nan
            batch, scale = self._data, self._scale
            if job.order is not None and job.ends is not None and self._samples is not None:
                chosen = job.order[job.ends[k - 1] if k else 0 : job.ends[k]]
                batch = Data(self._samples.X[chosen], None, self._samples.Y[chosen], 0.0)
                scale = float(job.scales[k])
                squared, gradients = _gradients(net, batch, scale)
                gradient = _flat(gradients)
                used = 0.5 * scale * squared + penalty
                if job.batch_losses is not None:
                    job.batch_losses[k] = used
            if not np.isfinite(used):
                self.step_back()
                return "diverged", k
            if job.sharpness is not None:
                job.sharpness[k] = self._largest_eigenvalue(net) if recorded else np.nan
            if self._watch.leak_layers and steps != looked and (steps % 64 == 0 or steps in (1, 2, 4, 8, 16, 32)):
                growth, growing, looked = self._look(net, batch, scale, float(job.rates[k]))

            change = gradient + decay * theta
            if self._update.momentum:
                velocity = momentum * velocity + change
                change = change + momentum * velocity if self._update.nesterov else velocity
            if steps == 0:
                target = self._rtol * loss if self._rtol >= 0 else -1.0
            self._state = state._replace(
                steps=steps + 1, target=target, parameters=theta - rate * change, previous=theta, velocity=velocity,
                growth=growth, growth_rate=growing, growth_step=looked,
            )  # fmt: skip
            if loss <= target:
                return "converged", k + 1
        return "running", len(job.rates)

    def _network(self, theta: Array) -> _Network:
        parts = _split(self._shape, theta)
        return _Network(tuple(weight for weight, _ in parts), tuple(bias for _, bias in parts))

    def _largest_eigenvalue(self, net: Layers) -> float:
        product = ReferenceProduct(net, self._data, self._scale, self._update.decay, True, True)
        identity = np.eye(len(self._state.parameters))
        dense = np.empty_like(identity)
        product.apply(identity, dense)
        return float(decompositions.eigvalsh(dense)[-1])

    def _look(
        self, net: Layers, data: Data, scale: float, rate: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Return the growth of rounding errors across the reduced layers, by the trapezoidal rule since the last look.

        Let q be a unit vector orthogonal to all weights that touch a hidden layer. Components along q, below and above
        the layer, grow in a step by at most ``1 + rate ‖C‖₂``, ``C = D_{l+1}.T [Z_{l-1} 1]``; with momentum by the
        larger root of the recurrence's polynomial.
        """
        activations = _activations(net, data.X, data.column)
        deltas = [scale * (activations[-1] - data.Y)]
        for weight in net.weights[:0:-1]:
            deltas.insert(0, deltas[0] @ weight)
        state, momentum, rates = self._state, self._update.momentum, []
        passed = state.steps - state.growth_step if state.growth_step >= 0 else 0
        for layer in self._watch.leak_layers:
            below = activations[layer - 1]
            if any(bias is not None for bias in net.biases):
                below = np.column_stack([below, data.column])
            gain = decompositions.norm(deltas[layer].T @ below)
            push = 1 + rate * max(0.0, gain - self._update.decay)
            b, c = ((1 + momentum) * push, momentum * push) if self._update.nesterov else (push + momentum, momentum)
            rates.append(max(0.0, float(np.log(0.5 * (b + np.sqrt(max(0.0, b * b - 4 * c)))))))
        growing = np.array(rates)
        return state.growth + 0.5 * passed * (state.growth_rate + growing), growing, state.steps


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
    return list(zip(*split_as(net.weights, net.biases, flat), strict=True))


def _softmax_samples(problem: Softmax) -> tuple[Array, Array, NDArray[np.intp]]:
    """Return each sample's features and ``s (diag(p) - p p.T)``, and the Kronecker position of each parameter."""
    features, p, scale, bias = problem
    if bias:
        features = np.column_stack([features, np.ones_like(scale)])
    classes = -p[:, :, None] * p[:, None, :]
    diagonal = np.arange(p.shape[1])
    classes[:, diagonal, diagonal] = 0
    # p_c (1 - p_c) as a sum over the other classes: 1 - p_c cancels where p_c is nearly one.
    classes[:, diagonal, diagonal] = -classes.sum(axis=2)
    order = _bias_last(Side(p.shape[1], features.shape[1] - bias, bias))
    return features, scale[:, None, None] * classes, order


def _bias_last(side: Side) -> NDArray[np.intp]:
    """Return the order of (outer, inner) indices that puts the constant input's parameters last."""
    order = np.arange(side.outer * (side.inner + side.bias)).reshape(side.outer, -1)
    return np.concatenate([order[:, : side.inner].ravel(), order[:, side.inner :].ravel()])


class ReferenceBackend:
    """Plain NumPy."""

    name = "numpy"
    instructions = ""
    step_seconds = 1e-4
    tolerance = {"float64": 1e-12, "float32": 2e-4}

    def forward(self, net: Layers, X: Array) -> Array:
        return _activations(net, X, np.ones(len(X), X.dtype))[-1]

    def squared_residual(self, net: Layers, data: Data) -> float:
        residual = _activations(net, data.X, data.column)[-1] - data.Y
        return float(np.sum(np.square(residual, dtype=np.float64)))

    def gradient(self, net: Layers, data: Data, scale: float) -> tuple[float, Array]:
        squared, gradients = _gradients(net, data, scale)
        return squared, _flat(gradients)

    def backward(
        self, net: Layers, X: Array, delta: Array, *, parameters: bool, samples: bool
    ) -> tuple[Array | None, Array | None]:
        column = np.ones(len(X), X.dtype)
        gradients, below = _swept(net, _activations(net, X, column), column, delta)
        return _flat(gradients) if parameters else None, below if samples else None

    def descent(
        self,
        net: Layers,
        data: Data,
        samples: Data | None,
        largest_batch: int,
        *,
        scale: float,
        rtol: float,
        update: Update,
        watch: Watch,
        ensemble: bool,
    ) -> ReferenceDescent:
        del largest_batch, ensemble  # batches are gathered in each step, and each network is trained alone
        return ReferenceDescent(net, data, samples, scale=scale, rtol=rtol, update=update, watch=watch)

    def advance(
        self, descents: Sequence[ReferenceDescent], jobs: Sequence[Job], threads: int
    ) -> list[tuple[Stop, int]]:
        del threads  # Python's own lock lets only one of them compute
        return [descent.run(job) for descent, job in zip(descents, jobs, strict=True)]

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

    def krylov_steps(
        self,
        product: HessianProduct,
        inside: NDArray[np.float64] | None,
        vectors: NDArray[np.float64],
        images: NDArray[np.float64],
        start: int,
        stop: int,
        block: int,
    ) -> int:
        return steps(product.apply, inside, vectors, images, start, stop, block)

    def softmax_dense(self, problem: Softmax, out: Array) -> None:
        features, classes, order = _softmax_samples(problem)
        dense = np.zeros((len(order),) * 2, out.dtype)
        for f, between in zip(features, classes, strict=True):
            dense += (np.kron(between, f[:, None])[:, :, None] * f).reshape(dense.shape)
        dense = dense[np.ix_(order, order)]
        out[...] = np.triu(dense) + np.triu(dense, 1).T

    def softmax_product(self, problem: Softmax, v: Array, out: Array) -> None:
        features, classes, order = _softmax_samples(problem)
        weights = np.empty_like(v)
        weights[order] = v
        cube = weights.reshape(classes.shape[1], features.shape[1], -1)
        product = np.zeros_like(cube)
        for f, between in zip(features, classes, strict=True):
            product += f[:, None] * (between @ np.einsum("cfk,f->ck", cube, f))[:, None, :]
        out[...] = product.reshape(v.shape)[order]

    def triangular_factor(self, parts: Sequence[Array]) -> NDArray[np.float64]:
        stacked = np.concatenate(parts, axis=1).astype(np.float64)
        triangle = np.zeros((stacked.shape[1], stacked.shape[1]))
        rows = decompositions.triangular(stacked)
        triangle[: len(rows)] = rows
        return triangle

    def wide_layer(self, below: Sequence[Array], above: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        product = above.T.astype(np.float64) @ np.concatenate(below, axis=1, dtype=np.float64)
        return self.triangular_factor([*below, above]), product

    def mixes_units(self, stack: NDArray[np.float64], outputs: int) -> bool:
        below, above = np.abs(stack[:-outputs]), np.abs(stack[-outputs:])
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not balanced
            terms = above @ below.T
            around = np.minimum(terms.max(axis=1, keepdims=True), terms.max(axis=0))
            bounds = np.outer(np.sqrt((above * above).sum(axis=1)), np.sqrt((below * below).sum(axis=1)))
            return not bool((bounds <= UNBALANCED * np.where(terms > 0, terms, around)).all())

    def product_svd(
        self,
        first: NDArray[np.float64],
        weights: Sequence[NDArray[np.float64]],
        tolerance: float,
        *,
        rotated: bool = False,
    ) -> ProductSvd:
        return product_svd(first, weights, tolerance, rotated=rotated)


BACKEND = ReferenceBackend()
