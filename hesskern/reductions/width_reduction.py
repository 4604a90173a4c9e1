r"""The exact reduction of a hidden layer that is wider than its neighbours together.

*When it holds.* For any loss, where no scales are mixed: see `WidthReduction.reduced`.

*What is left, and how results are transformed back.* Let the hidden layer have h units and stack, for each of them, all
weights that touch it: ``S = [W_l, b_l, W_{l+1}.T]`` (h rows), with thin QR ``S = Q R``. The network with the rows of R
for weights has r <= m_{l-1} + 1 + m_{l+1} units and the same curvature along ``Q``. Every unit vector q orthogonal to Q
adds the same small block, between ``δW_l = q a.T`` and ``δW_{l+1} = c q.T``: zero but for ``c.T C a`` with
``C = scale * B_{l+1}.T G A_l.T``. Its eigenvalues are plus and minus the singular values of C, and zeros.

*What it costs.* One thin QR decomposition, O(h r²).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hesskern._base.array_types import Array, Matrix
from hesskern._base.cached import cached_property
from hesskern._base.powers import Scaled, moderate
from hesskern.backends.hidden_units import replaced, stacked
from hesskern.backends.protocol import HostBackend, PlainLayers
from hesskern.linalg.tall_qr import TallQR
from hesskern.network.parameters import Part


class WidthReduction:
    """One hidden layer reduced: the smaller network, the small block of the rest, and the change of coordinates."""

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

    @cached_property
    def _below(self) -> list[Array]:
        """Weights and bias of the layer, one row for each unit."""
        return [self._lower] if self._bias is None else [self._lower, self._bias[:, None]]

    @cached_property
    def _qr(self) -> TallQR:
        return TallQR(stacked(self.net, self.layer))

    def reduced(self, backend: HostBackend, *, lift: bool) -> tuple[PlainLayers, Scaled]:
        """Return the network of `kept` units, and ``W_{l+1} [W_l, b_l]`` of the network given.

        The product of the reduced weights is the same but for errors of ``ε ‖W_{l+1}‖ ‖W_l‖``. That may be more than
        the product where units differ by orders of magnitude: weights into them large where those out are small.

        Parameters
        ----------
        backend : HostBackend
        lift : bool
            Take the QR whose Q is remembered for `rotate`.
        """
        if lift:
            R = self._qr.R
            across = np.asarray(self._upper @ np.concatenate(self._below, axis=1), dtype=np.float64)
        else:
            R, across = _wide_layer(self._below, self._upper.T, backend)
        weights, biases = replaced(self.net, self.layer, R)
        return PlainLayers(tuple(weights), tuple(biases)), self._in_range(across)

    def _in_range(self, across: Matrix) -> Scaled:
        """Return this product, computed again where it left the range of float64 on the way."""
        sizes = np.abs(across)
        if ((sizes > _TINY) & np.isfinite(sizes)).all():
            return Scaled(across)
        above, below = moderate(self._upper), moderate(np.concatenate(self._below, axis=1))
        return Scaled(above.matrix @ below.matrix, above.exponent + below.exponent)

    def coupling(self, gradient: Callable[[], Matrix | None]) -> Matrix:
        """Return C between the selected parameters of each left-over unit, (above, below).

        Parameters
        ----------
        gradient : callable
            Returns ``scale * (E B_{l+1}).T inputs_l`` of the network before or after the reduction: C is the same. It
            returns None where the functional part is left out, as in the Gauss-Newton matrix.
        """
        columns = self._inputs * self._lower_weight + self._lower_bias
        rows = self._outputs * self._upper_weight
        full = gradient() if columns and rows else None
        if full is None:
            return np.zeros((rows, columns))
        below = [full[:, : self._inputs]] if self._lower_weight else []
        below += [full[:, self._inputs :]] if self._lower_bias else []
        return np.concatenate(below, axis=1)

    def rotate(self, vectors: Matrix, *, back: bool) -> Matrix:
        """Return ``Q.T vectors`` or (`back`) ``Q vectors`` for the full orthogonal Q (h, h), never formed."""
        return self._qr.rotate(vectors, back=back)


class AllUnits(WidthReduction):
    """The functional part of two layers: no unit is mixed with another, and none is kept."""

    def __init__(self, net: PlainLayers, parts: dict[int, Part]) -> None:
        super().__init__(net, 0, parts)
        self.kept, self.left_over = 0, self.units

    @property
    def empty(self) -> PlainLayers:
        """The network without hidden units."""
        lower, upper = self.net.weights
        bias = self.net.biases[0]
        return PlainLayers((lower[:0], upper[:, :0]), (None if bias is None else bias[:0], self.net.biases[1]))

    def rotate(self, vectors: Matrix, *, back: bool) -> Matrix:
        """Return the vectors."""
        del back
        return vectors


#: A sum larger than this has lost no digit to underflow.
_TINY = 1e-280

#: Norms whose squares neither overflow nor vanish, with room for sums.
_SQUARES = (1e-140, 1e140)


def _wide_layer(below: list[Array], above: Array, backend: HostBackend) -> tuple[Matrix, Matrix]:
    """Return the result of `HostBackend.wide_layer`, also where squares of the weights overflow or vanish."""
    R, across = backend.wide_layer(below, above)
    sizes = np.abs(R).max(axis=0)
    if not ((sizes > _SQUARES[0]) & (sizes < _SQUARES[1])).all():
        R = backend.triangular_factor([*below, above])
    return R, across
