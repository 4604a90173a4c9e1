r"""A hidden layer that is wider than its neighbours together becomes as wide as the weights that touch it can span.

*When it holds.* For every update that commutes with an orthogonal change of the hidden units: gradient descent with
full batches or minibatches, momentum from zero, Nesterov, weight decay. It helps where a hidden layer has more units
than weights touch each of them (see `hesskern.backends.hidden_units`).

*What it leaves.* With the thin QR ``[W_l, b_l, W_{l+1}.T] = Q R``, the layer R. Gradient steps keep every later stack
in the span of Q, so nothing is left outside.

*How runs are transformed back.* The change of the stack is multiplied by Q and added to the stack at the start. So the
result is exact at the start, and rounding grows only with the distance.

*What it costs.* One QR decomposition for each layer, and a product with Q to transform back.

*Where it is not used.* Where units differ by orders of magnitude, Q mixes them and loses digits: see
`hesskern.backends.protocol.HostBackend.mixes_units`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Array, Matrix
from hesskern.backends.hidden_units import LOWER_RANK, reducible, replaced, stacked
from hesskern.backends.protocol import HostBackend, PlainLayers

#: Weights below this share of those at the start are transformed back themselves, not as a change of the start.
_SHRUNK = 0.01


class WidthStage(NamedTuple):
    """One hidden layer reduced; see `hesskern.backends.hidden_units`."""

    layer: int
    basis: Matrix  # Q, (units, kept)
    before: Matrix  # the stack, (units, weights of a unit), and what it is in that basis, (kept, weights of a unit)
    after: Matrix

    def lift(self, layers: PlainLayers, decayed: float) -> PlainLayers:
        """Return the wide layer at these parameters of the narrow one; nothing is outside its span, nothing decays."""
        stack = stacked(layers, self.layer)
        if np.linalg.norm(stack) < _SHRUNK * np.linalg.norm(self.after):  # errors are relative to what there is now
            return plain(*replaced(layers, self.layer, (stack.T @ self.basis.T).T))
        lifted = ((stack - self.after).T @ self.basis.T).T  # in Fortran order, as the stack is
        return plain(*replaced(layers, self.layer, self.before + lifted))

    def mixes_units(self, layers: PlainLayers, backend: HostBackend) -> bool:
        """Return whether the units of `layers`, the network as given, are too different in size."""
        return backend.mixes_units(self.before.T, len(layers.weights[self.layer + 1]))


def reduce_widths(layers: PlainLayers) -> tuple[list[WidthStage], PlainLayers]:
    """Return a stage for each layer that can be reduced, and the small network.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> wide = PlainLayers((rng.standard_normal((100, 5)), rng.standard_normal((3, 100))), (None, None))
    >>> stages, small = reduce_widths(wide)
    >>> [weight.shape for weight in small.weights]
    [(8, 5), (3, 8)]
    >>> bool(np.allclose(small.weights[1] @ small.weights[0], wide.weights[1] @ wide.weights[0]))
    True
    """
    stages: list[WidthStage] = []
    for layer in reducible(layers):
        stack = stacked(layers, layer)
        basis, after = orthogonal_basis(stack)
        stages.append(WidthStage(layer, basis, stack, after))
        layers = plain(*replaced(layers, layer, after))
    return stages, layers


def plain(weights: list[Array], biases: list[Array | None]) -> PlainLayers:
    """Return these lists as layers."""
    return PlainLayers(tuple(weights), tuple(biases))


def orthogonal_basis(stack: Matrix) -> tuple[Matrix, Matrix]:
    """Return Q (units, n) and ``Q.T stack`` (n, n) of a tall stack (units, n) of weights."""
    size = stack.shape[1]
    # The stack is Fortran-ordered: LAPACK takes it, and gives Q back, without a copy in another order.
    reflectors, tau = decompositions.reflectors(stack.copy(order="F"))  # the stack itself is kept
    basis = decompositions.orthogonal_columns(reflectors, tau)
    triangle = reflectors[:size].copy(order="F")
    triangle[_below_diagonal(size)] = 0.0
    pivots = np.abs(triangle.diagonal())
    if pivots.min() < LOWER_RANK * pivots.max():
        return _without_rounding(basis, triangle)
    return basis, triangle


def _without_rounding(basis: Matrix, triangle: Matrix) -> tuple[Matrix, Matrix]:
    """Rotate the basis so that directions in which the stack has only rounding errors hold zeros.

    A unit without weights keeps zero weights for the whole run. A unit with rounding errors as weights would not: see
    `hesskern.Reduction.leak`. Each weight is judged by its own size over all units, so that small ones next to large
    ones count.
    """
    from scipy.linalg import qr  # noqa: PLC0415 - `import hesskern` need not wait for it

    exponents = np.frexp(np.abs(triangle).max(axis=0))[1]  # squares may be out of range without them
    scaled = np.ldexp(triangle, -exponents)
    sizes = np.linalg.norm(scaled, axis=0)
    turn, pivoted, order = qr(np.divide(scaled, sizes, where=sizes > 0, out=np.zeros_like(scaled)), pivoting=True)
    pivots = np.abs(pivoted.diagonal())
    pivoted[pivots <= len(basis) * np.finfo(np.float64).eps * pivots[0]] = 0.0
    turned = np.empty_like(triangle)
    turned[:, order] = pivoted
    return basis @ turn, np.ldexp(turned * sizes, exponents)


@functools.lru_cache(maxsize=4)
def _below_diagonal(size: int) -> NDArray[np.bool_]:
    """Return where a square matrix's entries below the diagonal are; without a cache it takes as long as a small QR."""
    return np.tril(np.ones((size, size), dtype=np.bool_), -1)
