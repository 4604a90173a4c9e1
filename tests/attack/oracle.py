"""What is right: loss, gradient and Hessian of a linear network from their definition, in extended precision.

NumPy's longdouble (64 bits of mantissa and the exponents up to 1e4932 on x86) stands in for exact arithmetic: it is
2000 times as precise as float64, and no scale of the inputs overflows it. Where longdouble is float64 (Arm), the judge
is as imprecise as the judged, which the factor 30 of a normalised residual covers.

Beside every number stands its *magnitude*: the same sum with absolute values. A backward stable computation is off by
a modest multiple of eps times the magnitude, for graded problems as for even ones. Data enter the magnitude of a
Hessian by the norms of their columns, since replacing samples by their QR factor is stable column by column.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

LONG = np.longdouble
HALF = {"half_sum": 1.0, "sum": 2.0}


class Truth:
    """Everything there is to know about a problem: `weights`, `biases`, `X`, `Y`, `kind`, `weight_decay`."""

    def __init__(self, problem: Any) -> None:
        self.weights = [weight.astype(LONG) for weight in problem.weights]
        self.biases = [None if bias is None else bias.astype(LONG) for bias in problem.biases]
        self.X, self.Y = problem.X.astype(LONG), problem.Y.astype(LONG)
        self.decay = LONG(problem.weight_decay)
        self.scale = LONG(2) / problem.Y.size if problem.kind == "mean" else LONG(HALF[problem.kind])
        self.has_bias = any(bias is not None for bias in problem.biases)
        self.sizes = [
            weight.size + (0 if bias is None else bias.size)
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        self.count = int(self.offsets[-1])
        widths = [self.weights[0].shape[1], *(len(weight) for weight in self.weights)]
        #: How many roundings a number passes through, about.
        self.roundings = len(self.weights) + max(widths) + float(np.sqrt(len(self.X)))

    # Values and magnitudes, samples by samples

    @cached_property
    def theta(self) -> np.ndarray:
        """All parameters: each weight row by row, then its bias."""
        pieces = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            pieces.append(weight.ravel())
            if bias is not None:
                pieces.append(bias)
        return np.concatenate(pieces)

    @cached_property
    def activations(self) -> list[np.ndarray]:
        """Inputs of every layer, and the prediction last."""
        found = [self.X]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            following = found[-1] @ weight.T
            found.append(following if bias is None else following + bias)
        return found

    @cached_property
    def sizes_of_activations(self) -> list[np.ndarray]:
        """The magnitudes of `activations`."""
        found = [abs(self.X)]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            following = found[-1] @ abs(weight).T
            found.append(following if bias is None else following + abs(bias))
        return found

    @cached_property
    def residual(self) -> np.ndarray:
        """Prediction minus target."""
        return self.activations[-1] - self.Y

    @cached_property
    def residual_size(self) -> np.ndarray:
        """The magnitude of `residual`."""
        return self.sizes_of_activations[-1] + abs(self.Y)

    @cached_property
    def loss(self) -> LONG:
        """The loss with weight decay."""
        return self.scale / 2 * (self.residual**2).sum() + self.decay / 2 * (self.theta**2).sum()

    def loss_size(self, unit: float) -> LONG:
        """What the loss may be off by, in units of `unit` (eps times the number of roundings)."""
        size = self.residual_size
        first = 2 * (abs(self.residual) * size).sum() + unit * (size**2).sum()
        return self.scale / 2 * first + self.decay / 2 * (self.theta**2).sum()

    @cached_property
    def above(self) -> list[np.ndarray]:
        """The map from each layer's output to the prediction (o, m)."""
        return _above(self.weights)

    @cached_property
    def above_size(self) -> list[np.ndarray]:
        """The magnitudes of `above`."""
        return _above([abs(weight) for weight in self.weights])

    @cached_property
    def gradient(self) -> tuple[np.ndarray, np.ndarray]:
        """The gradient and its magnitude."""
        values, sizes = [], []
        rows = zip(self.activations, self.sizes_of_activations, self.above, self.above_size, self.biases, strict=False)
        for given, given_size, top, top_size, bias in rows:
            back, back_size = self.residual @ top, self.residual_size @ top_size
            values.append((back.T @ given).ravel())
            sizes.append((back_size.T @ given_size).ravel())
            if bias is not None:
                values.append(back.sum(0))
                sizes.append(back_size.sum(0))
        return (
            self.scale * np.concatenate(values) + self.decay * self.theta,
            self.scale * np.concatenate(sizes) + self.decay * abs(self.theta),
        )

    # The Hessian

    def _columns(self, layer: int, per_output: np.ndarray) -> np.ndarray:
        """Return (..., out, in [+1]) as (..., parameters of the layer): the weight row by row, then the bias."""
        lead = per_output.shape[:-2]
        inputs = self.weights[layer].shape[1]
        if self.biases[layer] is None:
            return per_output[..., :inputs].reshape(*lead, -1)
        weight = per_output[..., :inputs].reshape(*lead, -1)
        return np.concatenate([weight, per_output[..., inputs]], axis=-1)

    @cached_property
    def inputs(self) -> list[np.ndarray]:
        """Inputs of each layer with the constant one last."""
        ones = np.ones((len(self.X), 1), LONG)
        return [np.hstack([each, ones]) for each in self.activations[:-1]]

    @cached_property
    def input_norms(self) -> list[np.ndarray]:
        """The magnitudes of a layer's inputs over all samples, (in + 1,), and of the prediction last."""
        found = [np.sqrt((self.X**2).sum(0))]
        root = np.sqrt(LONG(len(self.X)))
        for weight, bias in zip(self.weights, self.biases, strict=True):
            following = abs(weight) @ found[-1]
            found.append(following if bias is None else following + root * abs(bias))
        return [np.append(each, root) for each in found[:-1]] + [found[-1]]

    @cached_property
    def residual_norms(self) -> np.ndarray:
        """The magnitude of the residual over all samples, (o,)."""
        return self.input_norms[-1] + np.sqrt((self.Y**2).sum(0))

    @cached_property
    def jacobian(self) -> np.ndarray:
        """Derivatives of every prediction, (N * o, P)."""
        samples, outputs = self.residual.shape
        pieces = []
        for layer, (given, top) in enumerate(zip(self.inputs, self.above, strict=True)):
            cube = top[None, :, :, None] * given[:, None, None, :]
            pieces.append(self._columns(layer, cube).reshape(samples * outputs, -1))
        return np.hstack(pieces)

    @cached_property
    def jacobian_size(self) -> np.ndarray:
        """The magnitude of `jacobian` over all samples, (o, P)."""
        return np.hstack(
            [
                self._columns(layer, top[:, :, None] * self.input_norms[layer][None, None, :])
                for layer, top in enumerate(self.above_size)
            ]
        )

    @cached_property
    def gauss_newton(self) -> np.ndarray:
        """The Gauss-Newton part, without weight decay."""
        return self.scale * (self.jacobian.T @ self.jacobian)

    @cached_property
    def gauss_newton_size(self) -> np.ndarray:
        """The magnitude of `gauss_newton`."""
        return self.scale * (self.jacobian_size.T @ self.jacobian_size)

    @cached_property
    def functional(self) -> np.ndarray:
        """The part with the residual."""
        backs = [(self.residual @ top).T for top in self.above]
        return self.scale * self._mixed(self.weights, [[back @ given for given in self.inputs] for back in backs])

    @cached_property
    def functional_size(self) -> np.ndarray:
        """The magnitude of `functional`."""
        backs = [self.residual_norms @ top for top in self.above_size]
        grams = [[np.outer(back, norms) for norms in self.input_norms[:-1]] for back in backs]
        return self.scale * self._mixed([abs(weight) for weight in self.weights], grams)

    def _mixed(self, weights: list[np.ndarray], grams: list[list[np.ndarray]]) -> np.ndarray:
        """Return ``M[s,p] (E B_m).T inputs_l [r,q]`` for all layers l < m, both halves."""
        full = np.zeros((self.count, self.count), LONG)
        for lower in range(len(weights)):
            between = np.eye(len(weights[lower]), dtype=LONG)
            for upper in range(lower + 1, len(weights)):
                cube = np.zeros((*weights[upper].shape, *(len(weights[lower]), weights[lower].shape[1] + 1)), LONG)
                cube += between[None, :, :, None] * grams[upper][lower][:, None, None, :]
                columns = self._columns(lower, cube).reshape(weights[upper].size, -1)
                row, column = int(self.offsets[upper]), int(self.offsets[lower])
                full[row : row + len(columns), column : column + columns.shape[1]] = columns
                between = weights[upper] @ between
        return full + full.T

    def hessian(self, mode: str = "full") -> np.ndarray:
        """The dense matrix of "full", "gauss_newton" or "functional"; weight decay belongs to the first."""
        if mode == "gauss_newton":
            return self.gauss_newton
        if mode == "functional":
            return self.functional
        return self._full

    def hessian_size(self, mode: str = "full") -> np.ndarray:
        """The magnitude of `hessian`."""
        if mode == "gauss_newton":
            return self.gauss_newton_size
        if mode == "functional":
            return self.functional_size
        return self._full_size

    @cached_property
    def _full(self) -> np.ndarray:
        return self.gauss_newton + self.functional + self.decay * np.eye(self.count, dtype=LONG)

    @cached_property
    def _full_size(self) -> np.ndarray:
        return self.gauss_newton_size + self.functional_size + self.decay * np.eye(self.count, dtype=LONG)


def _above(weights: list[np.ndarray]) -> list[np.ndarray]:
    maps = [np.eye(len(weights[-1]), dtype=LONG)]
    for weight in weights[:0:-1]:
        maps.insert(0, maps[0] @ weight)
    return maps


def column_order(weights: list[np.ndarray], biases: list[np.ndarray | None]) -> np.ndarray:
    """Return which row-major parameter stands where when every weight is flattened column after column."""
    order, at = [], 0
    for weight, bias in zip(weights, biases, strict=True):
        order.append(at + np.arange(weight.size).reshape(weight.shape).T.ravel())
        at += weight.size
        if bias is not None:
            order.append(at + np.arange(bias.size))
            at += bias.size
    return np.concatenate(order)


def rank_of_integers(matrix: np.ndarray) -> int:
    """Return the rank of a matrix of integers, modulo a prime of 61 bits: wrong with a probability of 1e-17 only."""
    prime = (1 << 61) - 1
    rows = [[int(entry) % prime for entry in row] for row in matrix]
    rank = 0
    for column in range(len(rows[0])):
        pivot = next((k for k in range(rank, len(rows)) if rows[k][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        lead = rows[rank]
        inverse = pow(lead[column], -1, prime)
        for k in range(rank + 1, len(rows)):
            if rows[k][column]:
                factor = rows[k][column] * inverse % prime
                rows[k] = [(entry - factor * top) % prime for entry, top in zip(rows[k], lead, strict=True)]
        rank += 1
        if rank == len(rows):
            break
    return rank
