"""The gradient of each sample's loss, and the matrices made of these gradients: empirical Fisher and its relatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.given.candidate_model import Curvature
from hesskern.explanation.given.orders import Tensor
from hesskern.explanation.given.rounding import LAMBDA
from hesskern.explanation.given.variants import DataVariant, WeightVariant
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork

Values = NDArray[np.float64]

#: The most numbers of the gradients in memory at once.
_AT_ONCE = 1 << 22


class SampleGradients:
    """Gradients of half the squared error of each sample, (N, P), with respect to some parameters, piece by piece.

    Parameters
    ----------
    net : LinearNetwork
        In float64.
    loss : SquaredLoss
        In float64; its kind does not matter here.
    tensors : sequence of Tensor
    """

    def __init__(self, net: LinearNetwork, loss: SquaredLoss, tensors: Sequence[Tensor]) -> None:
        self._net, self._loss, self._tensors = net, loss, tensors
        self.size, self.samples = tensors[-1].stop, len(loss.X)

    def pieces(self) -> Iterator[Values]:
        """Yield the gradients of some samples at a time, (n, P)."""
        step = max(1, _AT_ONCE // self.size)
        for start in range(0, len(self._loss.X), step):
            yield self._of(slice(start, start + step))

    def _of(self, some: slice) -> Values:
        net, weights = self._net, self._net.weights
        states = [np.asarray(self._loss.X[some])]
        for weight, bias in zip(weights, net.biases, strict=True):
            states.append(states[-1] @ weight.T + (0.0 if bias is None else bias))
        back = [states[-1] - self._loss.Y[some]]
        for weight in weights[:0:-1]:
            back.insert(0, back[0] @ weight)
        columns = []
        for tensor in self._tensors:
            delta = back[tensor.layer]
            outer = delta[:, :, None] * states[tensor.layer][:, None, :] if tensor.name == "weight" else delta
            columns.append(outer.reshape(len(delta), -1))
        return np.concatenate(columns, axis=1)

    @cached_property
    def total(self) -> Values:
        """Their sum (P,)."""
        return np.asarray(sum(piece.sum(axis=0) for piece in self.pieces()))

    @cached_property
    def rounding(self) -> float:
        """Bound on the rounding error of the sum of the outer products, as a Frobenius norm.

        A gradient's error grows with the terms of its residual, prediction and target, which may cancel.
        """
        net, X, Y = self._net, self._loss.X, self._loss.Y
        weights = [float(np.linalg.norm(weight)) for weight in net.weights]
        sizes = [np.linalg.norm(X, axis=1)]
        for weight, bias in zip(weights, net.biases, strict=True):
            sizes.append(sizes[-1] * weight + (0.0 if bias is None else float(np.linalg.norm(bias))))
        residual = sizes[-1] + np.linalg.norm(Y, axis=1)
        terms = np.zeros(len(X))
        for layer in range(len(weights)):
            terms += residual * float(np.prod(weights[layer + 1 :])) * (sizes[layer] + 1.0)
        norms = np.concatenate([np.linalg.norm(piece, axis=1) for piece in self.pieces()])
        count = X.shape[1] + sum(len(weight) for weight in net.weights) + len(X)
        unit = 0.5 * float(np.finfo(np.float64).eps)
        return float(LAMBDA * np.sqrt(count) * unit * (2.0 * np.dot(norms, terms) + np.dot(norms, norms)))


class OuterProducts(Curvature):
    """A multiple of ``Σ_n g_n g_n.T`` in place of the Hessian; its parts are "full", "layers" and "tensors".

    Parameters
    ----------
    gradients : SampleGradients
    kind : {"all", "centred", "sum"}
        Outer products of each sample's gradient, of its distance from the mean, or of the sum of all gradients.
    factor : float
    data, weights, tensors, epsilon
        As in `Curvature`.
    """

    def __init__(
        self,
        gradients: SampleGradients,
        kind: str,
        factor: float,
        data: DataVariant,
        weights: WeightVariant,
        tensors: Sequence[Tensor],
        epsilon: float,
    ) -> None:
        super().__init__(data, weights, tensors, epsilon)
        self._gradients, self._kind, self._factor = gradients, kind, factor

    def _rows(self) -> Iterator[Values]:
        total = self._gradients.total
        if self._kind == "sum":
            yield total[None, :]
            return
        for piece in self._gradients.pieces():
            yield piece - total / self._gradients.samples if self._kind == "centred" else piece

    def _over(self, of: Callable[[Values], Values]) -> Values:
        return self._factor * np.asarray(sum(map(of, self._rows())))

    @cached_property
    def diagonal(self) -> Values:
        """The diagonal."""
        return self._over(lambda rows: np.square(rows).sum(axis=0))

    def product(self, part: str, V: Values) -> Values:
        """Return the product of a part with (P, k) vectors, without a matrix."""
        if part == "full":
            return self._over(lambda rows: rows.T @ (rows @ V))
        return np.concatenate([self._block_product(at, V) for at, _ in self._pieces(part)])

    def _block_product(self, at: slice, V: Values) -> Values:
        return self._over(lambda rows: rows[:, at].T @ (rows[:, at] @ V[at]))

    def _whole(self) -> Values:
        return self._over(lambda rows: rows.T @ rows)

    @cached_property
    def rounding(self) -> float:
        """Bound on the rounding error, as a Frobenius norm."""
        return self._factor * self._gradients.rounding * (self._gradients.samples if self._kind == "sum" else 1)
