r"""The exact reduction of a hidden layer that is wider than its neighbours together.

Let the hidden layer have h units and stack, for each of them, all weights that touch it: ``S = [W_l, b_l, W_{l+1}.T]``
(h rows), with thin QR ``S = Q R``. The network with the rows of R for weights has r <= m_{l-1} + 1 + m_{l+1} units and
the same curvature along ``Q``. Every unit vector q orthogonal to Q adds the same small block, between ``δW_l = q a.T``
and ``δW_{l+1} = c q.T``: zero but for ``c.T C a`` with ``C = scale * B_{l+1}.T G A_l.T``. Its eigenvalues are plus and
minus the singular values of C, and zeros.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hesskern._array import Array
from hesskern._cached import cached_property
from hesskern.backends.protocol import Backend
from hesskern.factors import Factors, Matrix
from hesskern.orthogonal import TallQR
from hesskern.selection import Part


class PlainLayers(NamedTuple):
    """Weights and biases, nothing else."""

    weights: tuple[Array, ...]
    biases: tuple[Array | None, ...]


def reducible(net: PlainLayers) -> int | None:
    """Return the first layer whose outputs outnumber everything that touches them, or None."""
    for layer in range(len(net.weights) - 1):
        bias = net.biases[layer] is not None
        if len(net.weights[layer]) > net.weights[layer].shape[1] + bias + len(net.weights[layer + 1]):
            return layer
    return None


class WidthReduction:
    """One hidden layer reduced: the smaller network, the small block of the rest, and the way between coordinates."""

    def __init__(self, net: PlainLayers, layer: int, parts: dict[int, Part]) -> None:
        self.net, self.layer = net, layer
        self._lower, self._upper, self._bias = net.weights[layer], net.weights[layer + 1], net.biases[layer]
        self.units, self._inputs = self._lower.shape
        self._outputs = len(self._upper)
        part, above = parts.get(layer), parts.get(layer + 1)
        self._lower_weight = part is not None and part.weight
        self._lower_bias = part is not None and part.bias
        self._upper_weight = above is not None and above.weight
        #: rank of the stack's QR factor, and how many units are left over
        self.kept = self._inputs + (self._bias is not None) + self._outputs
        self.left_over = self.units - self.kept

    def _stack(self) -> list[Array]:
        bias = [] if self._bias is None else [self._bias[:, None]]
        return [self._lower, *bias, self._upper.T]

    @cached_property
    def _qr(self) -> TallQR:
        return TallQR(np.concatenate(self._stack(), axis=1))

    def reduced(self, backend: Backend, *, lift: bool) -> PlainLayers:
        """Return the network of `kept` units; with `lift` by a QR whose Q is remembered for `rotate`."""
        R = self._qr.R if lift else backend.triangular_factor(self._stack())
        weights, biases = list(self.net.weights), list(self.net.biases)
        weights[self.layer] = np.ascontiguousarray(R[:, : self._inputs])
        weights[self.layer + 1] = np.ascontiguousarray(R[:, self.kept - self._outputs :].T)
        if self._bias is not None:
            biases[self.layer] = np.ascontiguousarray(R[:, self._inputs])
        return PlainLayers(tuple(weights), tuple(biases))

    def coupling(self, factors: Factors, *, zero: bool) -> Matrix:
        """Return C between the selected parameters of each left-over unit, (above, below).

        Parameters
        ----------
        factors : Factors
            Of the network before or after the reduction: C is the same.
        zero : bool
            Whether the functional part is left out, as in the Gauss-Newton matrix.
        """
        columns = self._inputs * self._lower_weight + self._lower_bias
        rows = self._outputs * self._upper_weight
        if zero or columns == 0 or rows == 0:
            return np.zeros((rows, columns))
        full = factors.residual_gram(self.layer + 1, self.layer)
        below = [full[:, : self._inputs]] if self._lower_weight else []
        below += [full[:, self._inputs :]] if self._lower_bias else []
        return np.concatenate(below, axis=1)

    def rotate(self, vectors: Matrix, *, back: bool) -> Matrix:
        """Return ``Q.T vectors`` or (`back`) ``Q vectors`` for the full orthogonal Q (h, h), never formed."""
        return self._qr.rotate(vectors, back=back)
