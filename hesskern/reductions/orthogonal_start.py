r"""A deep network of equal widths that starts from orthogonal inner layers stays in i + o directions of each layer.

*When it holds.* Every inner layer W_2 ... W_{L-1} is square and starts as ``s_l`` times an orthogonal matrix
(orthogonal or identity initialisation, another s_l for each layer). Then, with ``A_l = W_l ... W_1`` and
``B_l = W_L ... W_{l+1}`` at the start, ``K_l = span(A_l, B_l.T)`` satisfies ``W_l K_{l-1} = K_l`` and
``W_l.T K_l = K_{l-1}``, and every gradient stays in ``K_l ⊗ K_{l-1}``. The updates are those of
`hesskern.reductions.widths`. With biases ``K_1 = span(W_1, b_1, W_2.T b_2, W_2.T W_3.T b_3, ..., B_1.T)``.

*What it leaves.* The network ``V_l = K_l.T W_l K_{l-1}`` (K_0 and K_L are identities) of inner width at most i + o, and
one more for each inner bias that is not zero. In bases ``K_l = W_l K_{l-1} / s_l`` its inner layers start as ``s_l I``,
and the QR decomposition of one stack of n columns gives all of it. The complement of K_l only decays, by the c of
`hesskern.reductions.input_rank`. The Hessian sees it all the same, as a network in which every W_l is ``c s_l`` times
an orthogonal matrix. One *spare* unit in every hidden layer, with ``c s_l`` between them and no other weights, has the
same eigenvalues as each of its directions.

*How runs are transformed back.* ``K_l V_l K_{l-1}.T + c (W_l(0) - s_l K_l K_{l-1}.T)``; while c = 1 as a change of
``W_l(0)``.

*What it costs.* O(h³) for each inner layer, to see whether it is orthogonal; O(h² n) for the bases.

*Where it is not used.* The exact orbit belongs to layers that are orthogonal up to rounding. Layers that are orthogonal
to 1e-12 only have an orbit of their own, and are refused. So are square layers in general position, and units that
differ by orders of magnitude, see `hesskern.reductions.widths`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hesskern._base.array_types import Array, Matrix
from hesskern.backends.protocol import UNBALANCED, HostBackend, PlainLayers
from hesskern.reductions.widths import orthogonal_basis, plain

#: Largest ``‖W.T W / s² - I‖`` (Frobenius) of an orthogonal layer, in units of rounding times the width, and its limit.
_UNITS, _MOST = 8.0, 4000.0
#: Layers with a larger one are in general position.
_GENERAL = 1e-3
GENERAL_POSITION = "square inner layers in general position"


@dataclass(frozen=True, slots=True, eq=False)
class OrthogonalStart:
    """The small network that starts from orthogonal inner layers.

    Attributes
    ----------
    before : PlainLayers
        The network at the start.
    reduced : PlainLayers
        The small network at the start.
    bases : list of (h, n) arrays
        K_1 ... K_{L-1}.
    factors : list of float
        ``s_2 ... s_{L-1}``.
    stack : (h, n) array
        The weights whose span K_1 is.
    spare : bool
        Whether every hidden layer of the small network has a spare unit, its last one.
    """

    before: PlainLayers
    reduced: PlainLayers
    bases: list[Matrix]
    factors: list[float]
    stack: Matrix
    spare: bool

    @property
    def outside(self) -> int:
        """How many directions of each hidden layer are outside K."""
        units, kept = self.bases[0].shape
        return int(units) - int(kept)

    @property
    def decaying(self) -> float:
        """The norm of what only decays, except the spare units' weights."""
        return math.sqrt(self.outside - self.spare) * math.hypot(*self.factors)

    def mixes_units(self, backend: HostBackend) -> bool:
        """Return whether hidden units are too different in size."""
        outputs = len(self.before.weights[-1])
        if _alike(self.stack[:, :-outputs]) and _alike(self.stack[:, -outputs:]):  # also with zeros, as in identities
            return False
        return backend.mixes_units(self.stack.T, outputs)

    def lift(self, layers: PlainLayers, decayed: float) -> PlainLayers:
        """Return the network as given at these parameters; the complement is `decayed` times what it was."""
        kept, last = self.bases[0].shape[1], len(layers.weights) - 1
        weights: list[Array] = []
        biases: list[Array | None] = []
        for layer in range(last + 1):
            above = self.bases[layer] if layer < last else None
            below = self.bases[layer - 1] if layer else None
            rows, columns = kept if above is not None else None, kept if below is not None else None
            small, start = layers.weights[layer], self.before.weights[layer]
            if decayed == 1.0:  # as a change of the start, which is exact there
                small = small - self.reduced.weights[layer]
            weight = small[:rows, :columns].astype(np.float64)
            weight = weight if above is None else above @ weight
            weight = weight if below is None else weight @ below.T
            if decayed == 1.0:
                weight = start + weight
            elif above is not None and below is not None:
                weight += decayed * (start - self.factors[layer - 1] * above @ below.T)
            weights.append(weight.astype(start.dtype, copy=False))
            biases.append(self._lifted_bias(layers, layer, above))
        return plain(weights, biases)

    def _lifted_bias(self, layers: PlainLayers, layer: int, basis: Matrix | None) -> Array | None:
        bias, start, first = layers.biases[layer], self.before.biases[layer], self.reduced.biases[layer]
        if basis is None or bias is None or start is None or first is None:
            return bias
        moved: Array = start + basis @ (bias - first)[: basis.shape[1]]
        return moved.astype(start.dtype, copy=False)


def span_columns(layers: PlainLayers, biased: Sequence[bool]) -> int:
    """Return how many directions the start of a network can span; `biased`: which hidden layers' biases count."""
    inputs, outputs = int(layers.weights[0].shape[1]), len(layers.weights[-1])
    return inputs + sum(biased) + outputs


def may_reduce(layers: PlainLayers, biased: Sequence[bool]) -> bool:
    """Return whether the inner layers are square, and wide enough for this reduction."""
    inner = layers.weights[1:-1]
    width = len(layers.weights[0])
    return bool(inner) and all(w.shape == (width, width) for w in inner) and span_columns(layers, biased) + 1 < width


def orthogonal_factors(layers: PlainLayers) -> list[float] | str:
    """Return s_2 ... s_{L-1}, or in words why there are none.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> square = rng.standard_normal((20, 20))
    >>> outer = rng.standard_normal((20, 2)), rng.standard_normal((3, 20))
    >>> orthogonal_factors(PlainLayers((outer[0], square, outer[1]), (None,) * 3))
    'square inner layers in general position'
    >>> [round(s, 12) for s in orthogonal_factors(PlainLayers((outer[0], np.diag([-3.0] * 20), outer[1]), (None,) * 3))]
    [3.0]
    """
    rounding = float(np.finfo(layers.weights[0].dtype).eps)
    factors, worst = [], 0.0
    for given in layers.weights[1:-1]:
        weight = given.astype(np.float64)
        width = len(weight)
        exponent = int(np.frexp(np.abs(weight).max())[1])  # squares may be out of range
        weight = np.ldexp(weight, -exponent)
        square = float(np.vdot(weight, weight)) / width
        if not square > 0:
            return "an inner layer is zero"
        some = weight[:, :4].T @ weight / square  # in general position, a few columns show it
        if float(np.linalg.norm(some - np.eye(*some.shape))) > _GENERAL:
            return GENERAL_POSITION
        gram = weight.T @ weight / square
        gram.reshape(-1)[:: width + 1] -= 1.0
        defect = float(np.linalg.norm(gram))
        if defect > _GENERAL:
            return GENERAL_POSITION
        if defect > rounding * min(_UNITS * max(8, width), _MOST):
            worst = max(worst, defect)
        factors.append(float(np.ldexp(np.sqrt(square), exponent)))
    return f"inner layers are orthogonal only to {worst:.1e}" if worst else factors


def orthogonal_start(
    layers: PlainLayers, factors: Sequence[float], biased: Sequence[bool], *, spare: bool
) -> OrthogonalStart:
    """Return the small network of one with these factors.

    Parameters
    ----------
    layers : PlainLayers
    factors : sequence of float
        From `orthogonal_factors`.
    biased : sequence of bool
        For each hidden layer, whether its bias may be other than zero at the start.
    spare : bool
        Whether every hidden layer gets a spare unit.
    """
    weights = [weight.astype(np.float64) for weight in layers.weights]
    turns = [weight / factor for weight, factor in zip(weights[1:-1], factors, strict=True)]
    columns, inputs = [weights[0]], weights[0].shape[1]
    for layer, bias in enumerate(layers.biases[:-1]):
        if bias is not None and biased[layer]:
            columns.append(_pulled_back(bias.astype(np.float64)[:, None], turns[:layer]))
    columns.append(_pulled_back(weights[-1].T, turns))
    stack = np.concatenate([column.T for column in columns]).T  # in Fortran order
    basis, small = orthogonal_basis(stack)
    bases = [basis]
    for turn in turns:
        bases.append(turn @ bases[-1])
    size = basis.shape[1] + spare
    padded = np.zeros((size, small.shape[1]))
    padded[: len(small)] = small
    dtype = layers.weights[0].dtype
    inner = [np.diag(np.full(size, factor)).astype(dtype) for factor in factors]
    biases: list[Array | None] = []
    at = inputs
    for layer, bias in enumerate(layers.biases[:-1]):
        if bias is None or not biased[layer]:
            biases.append(None if bias is None else np.zeros(size, dtype))
            continue
        biases.append(padded[:, at].astype(dtype))
        at += 1
    first, last = np.ascontiguousarray(padded[:, :inputs], dtype), np.ascontiguousarray(padded[:, at:].T, dtype)
    reduced = plain([first, *inner, last], [*biases, layers.biases[-1]])
    return OrthogonalStart(layers, reduced, bases, list(factors), stack, spare)


def _alike(rows: Matrix) -> bool:
    """Return whether all rows that are not zero are of similar size."""
    sizes = np.abs(rows).max(axis=1)
    return bool(sizes.max() <= UNBALANCED * np.where(sizes > 0, sizes, np.inf).min())


def _pulled_back(vectors: Matrix, turns: Sequence[Matrix]) -> Matrix:
    """Return the vectors of a hidden layer in the coordinates of the first."""
    for turn in reversed(turns):
        vectors = turn.T @ vectors
    return vectors
