r"""What rounding does to the residual, and through it to the functional part of the Hessian.

The prediction is a chain of products, ``Z_l = Z_{l-1} W_l.T + 1 b_l.T``. Each is rounded, as if an error D_l of about
``sqrt(m_{l-1}) * eps * ‖Z_{l-1}‖ ‖W_l‖`` were added to Z_l: rounding errors of n terms add up like sqrt(n). To
first order D_l arrives in the prediction as ``D_l B_l.T``, with the product ``B_l = W_L ... W_{l+1}`` that is there
anyway, so the error of the residual is at most

    ``Σ_l ‖D_l‖ ‖B_l‖ + eps ‖Y‖``.

Norms of the partial products stand in it, not products of the layers' norms: it does not grow with the depth unless the
error itself does. Moving weights and data by half a unit in the last place is bounded in the same way.

A residual of norm e makes a functional part of at most ``e`` times the norm of the matrix of
``scale ‖M_lm‖ ‖B_m‖ ‖inputs_l‖`` over pairs of layers: the block with entries ``M_lm[s,p] ((E B_m).T inputs_l)[r,q]``
maps a matrix V to ``(E B_m).T inputs_l V.T M_lm.T``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern import decompositions
from hesskern.backends.protocol import Layers
from hesskern.factors import Factors
from hesskern.powers import Scaled
from hesskern.problem import Data

#: Norms of matrices up to this many rows or columns are taken exactly, of larger ones as Frobenius norms.
_EXACT = 64
#: The unit in the last place of float32, relative, about.
_UNIT = 0.5 * float(np.finfo(np.float32).eps)
#: What the estimate of a rounding error is multiplied by, for it is one of its typical size.
_SAFETY = 4.0


class Bounds:
    """Bounds on rounding errors, from the norms of a network's factors."""

    def __init__(self, factors: Factors) -> None:
        self._factors = factors
        self._above = [_log(top) for top in factors.above]
        self._inputs = [_log(below) for below in factors.inputs]
        #: Norm of the residual.
        self.residual = _power(_log(factors.residual))

    def residual_error(self, computation: float, inputs: float) -> float:
        """Return a bound on the norm of the error of the residual.

        Parameters
        ----------
        computation : float
            Relative error of an operation.
        inputs : float
            Relative error of each weight and each number of the data.
        """
        factors, error = self._factors, _SAFETY * computation + inputs
        terms = [math.log2(error) + _log(Scaled(factors.Y))]
        column = _log(Scaled(factors.column))
        for weight, bias, below, above in zip(factors.weights, factors.biases, self._inputs, self._above, strict=True):
            units = _SAFETY * computation * math.sqrt(weight.shape[1]) + inputs
            terms.append(math.log2(units) + below + _log(Scaled(weight), exact=False) + above)
            if bias is not None:
                terms.append(math.log2(error) + column + _log(Scaled(bias)) + above)
        return sum(map(_power, terms))

    def functional_part(self, layers: Sequence[int], residual: float) -> float:
        """Return a bound on the norm of the functional part between these layers for a residual of this norm."""
        if residual == 0:
            return 0.0
        size = math.log2(self._factors.scale * residual)
        pairs = np.zeros((len(layers), len(layers)))
        for at, lower in enumerate(layers):
            for row, upper in enumerate(layers[at + 1 :], at + 1):
                reach = _log(self._factors.between(lower, upper)) + self._above[upper] + self._inputs[lower]
                pairs[row, at] = pairs[at, row] = _power(reach + size)
        return decompositions.norm(pairs) if np.isfinite(pairs).all() else math.inf


def moved_by_rounding(
    net: Layers, data: Data, samples: int
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64] | None], Data]:
    """Return weights, biases and data in float64, moved by about one unit in the last place of float32, at random.

    Rounding has moved each number by half a unit at most. Of rows that `samples` were reduced to, every number moves by
    what rounding does to a column of samples, in any direction; always the same numbers.
    """
    generator = np.random.default_rng(0)

    def moved(matrix: Any) -> NDArray[np.float64]:
        exact = np.asarray(matrix, dtype=np.float64)
        size = exact
        if exact is data.X or exact is data.Y:
            size = exact if len(exact) == samples else np.linalg.norm(exact, axis=0) / math.sqrt(samples)
        found: NDArray[np.float64] = exact + _UNIT * size * generator.standard_normal(exact.shape)
        return found

    data = data.astype(np.dtype(np.float64))
    return (
        [moved(weight) for weight in net.weights],
        [None if bias is None else moved(bias) for bias in net.biases],
        data._replace(X=moved(data.X), Y=moved(data.Y)),
    )


def undetermined(here: NDArray[np.float64], there: NDArray[np.float64], least: float, most: float) -> float:
    """Return the largest absolute eigenvalue between two bounds that a change makes another number; 0 if there is none.

    `here` and `there`: all absolute eigenvalues before and after the change, descending.
    """
    other = (np.abs(here - there) > 0.5 * here) & (here > least) & (here <= most)
    return float(here[other].max(initial=0.0))


def moves(here: NDArray[np.float64], there: NDArray[np.float64], shift: float, rank: int) -> float:
    """Return by how much a condition number changes with its absolute eigenvalues: the first `rank`, plus `shift`."""
    if rank == 0:
        return 0.0
    kept = here[:rank] + shift
    relative = np.abs(here - there)[:rank] / np.where(kept > 0, kept, 1.0)
    # Of the smallest ones the most that any changes: one alone may stay where it is by chance.
    return float(relative[0] + relative[kept <= 4.0 * kept[-1]].max())


def _log(scaled: Scaled | None, *, exact: bool = True) -> float:
    """Return the logarithm of a matrix's norm; of the identity (None) 0."""
    if scaled is None:
        return 0.0
    matrix = scaled.matrix
    small = exact and matrix.ndim == 2 and min(matrix.shape) <= _EXACT
    largest = float(np.abs(matrix).max(initial=0.0))
    if largest == 0:
        return -math.inf
    unit = matrix / largest
    size = decompositions.norm(unit) if small else float(np.linalg.norm(unit))
    return math.log2(largest) + math.log2(size) + scaled.exponent


def _power(logarithm: float) -> float:
    return 2.0**logarithm if logarithm < 1024 else math.inf
