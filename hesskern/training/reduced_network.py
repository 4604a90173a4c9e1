r"""The exact reductions of a training run: the smaller network that is trained, and the transformation back.

A hidden layer with more units than its neighbours together is replaced by a layer with as many units as the weights
that touch it can span (see `hesskern.backends.hidden_units`). Gradient steps with momentum and weight decay keep every
iterate in that span. So the run of the small network, transformed back, is the run of the given network.

This needs units of similar size. Suppose that one hidden unit has large weights on its input side and small weights on
its output side, and the next unit has the opposite. Then the product of the two sides is much smaller than the weights.
An orthogonal change of units rounds relative to the weights, so its errors are too large for this product. Such a
network is trained at its given widths.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Array, Matrix
from hesskern._base.flat_layout import join, split_as
from hesskern.backends.hidden_units import LOWER_RANK, reducible, replaced, stacked
from hesskern.backends.protocol import HostBackend, PlainLayers
from hesskern.network.linear_network import LinearNetwork


@dataclass(frozen=True, slots=True)
class Reduction:
    """Sizes before and after the reductions of a training run; false if nothing was reduced.

    Attributes
    ----------
    samples : (int, int) or None
        Rows of data before and after; None: the data as given.
    widths : (tuple, tuple) or None
        ``net.widths`` before and after; None: the network as given.
    leak : float
        ``ε ∏ (1 + η‖G_t‖₂)``; with momentum, the growth of its recurrence replaces each factor. It estimates how far,
        relatively, rounding may move the run *without* width reduction away from the exact trajectory. The reduced run
        stays on it. 0 if no width was reduced.
    unbalanced : int
        Number of networks whose hidden units have too different sizes for the reduction. If there are any, all networks
        are trained at their given widths.

    Examples
    --------
    >>> print(Reduction((500, 5), ((5, 100, 5), (5, 10, 5)), 1e-15))
    500 samples to 5 rows; widths 5-100-5 to 5-10-5
    """

    samples: tuple[int, int] | None = None
    widths: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    leak: float = 0.0
    unbalanced: int = 0

    def __bool__(self) -> bool:
        return self.samples is not None or self.widths is not None

    def __str__(self) -> str:
        sentences = []
        if self.samples is not None:
            sentences.append(f"{self.samples[0]} samples to {self.samples[1]} rows")
        if self.widths is not None:
            before, after = ("-".join(map(str, widths)) for widths in self.widths)
            sentences.append(f"widths {before} to {after}")
        if self.unbalanced:
            sentences.append(
                "widths not reduced, because the weights of the hidden units differ by orders of magnitude from unit "
                "to unit, and a reduction would lose digits"
            )
        return "; ".join(sentences)


class Stage(NamedTuple):
    """One hidden layer reduced; see `hesskern.backends.hidden_units`."""

    layer: int
    basis: Matrix  # Q, (units, kept)
    before: Matrix  # the stack, (units, weights of a unit), and what it is in that basis, (kept, weights of a unit)
    after: Matrix


class ReducedNetwork:
    """The small network that is trained instead of `net`.

    Parameters
    ----------
    net : LinearNetwork
    reduce : bool
        Whether widths are reduced at all.
    """

    def __init__(self, net: LinearNetwork, *, reduce: bool) -> None:
        self._net = net
        self.stages: list[Stage] = []
        layers = PlainLayers(net.weights, net.biases)
        for layer in reducible(layers) if reduce else ():
            self.stages.append(_reduce(layers, layer))
            layers = _plain(*replaced(layers, layer, self.stages[-1].after))
        self.layers = layers
        #: Whether hidden units are too different in size for this; see `reduced_networks`.
        self.unbalanced = False

    def as_given(self) -> None:
        """Train the network as it is after all."""
        self.stages, self.layers = [], PlainLayers(self._net.weights, self._net.biases)

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the small network."""
        return (self.layers.weights[0].shape[1], *(len(weight) for weight in self.layers.weights))

    @property
    def reduced_layers(self) -> tuple[int, ...]:
        """Hidden layers whose width was reduced, counted from 1."""
        return tuple(sorted({stage.layer + 1 for stage in self.stages}))

    def left_over(self) -> dict[int, int]:
        """Return how many units of each hidden layer (counted from 1) are outside the span."""
        counts: dict[int, int] = {}
        for stage in self.stages:
            units, kept = stage.basis.shape
            counts[stage.layer + 1] = counts.get(stage.layer + 1, 0) + units - kept
        return counts

    def lift(self, flat: Array) -> LinearNetwork:
        """Return the network given at the small network's parameters.

        The change of the parameters is transformed back and added to the parameters at the start. So the result is
        exact at the start, and rounding grows only with the distance.
        """
        if not self.stages:
            return self._net._with(flat)
        layers = split(self.layers, flat)
        for stage in reversed(self.stages):
            moved = stacked(layers, stage.layer) - stage.after
            lifted = (moved.T @ stage.basis.T).T  # in Fortran order, as the stack is
            layers = _plain(*replaced(layers, stage.layer, stage.before + lifted))
        return self._net._with(join(layers.weights, layers.biases))


def reduced_networks(nets: Sequence[LinearNetwork], backend: HostBackend, *, reduce: bool) -> list[ReducedNetwork]:
    """Return the networks to train instead of these, all of one width; if one is unbalanced, the given ones."""
    reduced = [ReducedNetwork(net, reduce=reduce) for net in nets]
    for small in reduced:
        small.unbalanced = any(
            backend.mixes_units(stage.before.T, len(nets[0].weights[stage.layer + 1])) for stage in small.stages
        )
    if any(small.unbalanced for small in reduced):
        for small in reduced:
            small.as_given()
    return reduced


def split(layers: PlainLayers, flat: Array) -> PlainLayers:
    """Return weights and biases of these shapes over a flat vector."""
    return _plain(*split_as(layers.weights, layers.biases, flat))


def _plain(weights: list[Array], biases: list[Array | None]) -> PlainLayers:
    return PlainLayers(tuple(weights), tuple(biases))


def _reduce(layers: PlainLayers, layer: int) -> Stage:
    stack = stacked(layers, layer)
    size = stack.shape[1]
    # The stack is Fortran-ordered: LAPACK takes it, and gives Q back, without a copy in another order.
    reflectors, tau = decompositions.reflectors(stack.copy(order="F"))  # the stack itself is kept
    basis = decompositions.orthogonal_columns(reflectors, tau)
    triangle = reflectors[:size].copy(order="F")
    triangle[_below_diagonal(size)] = 0.0
    pivots = np.abs(triangle.diagonal())
    if pivots.min() < LOWER_RANK * pivots.max():
        basis, triangle = _without_rounding(basis, triangle)
    return Stage(layer, basis, stack, triangle)


def _without_rounding(basis: Matrix, triangle: Matrix) -> tuple[Matrix, Matrix]:
    """Rotate the basis so that directions in which the stack has only rounding errors hold zeros.

    A unit without weights keeps zero weights for the whole run. A unit with rounding errors as weights would not: see
    `Reduction.leak`. Each weight is judged by its own size over all units, so that small ones next to large ones count.
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
