"""Eigenvalues of the Gauss-Newton matrix as squared singular values of the Jacobian.

Squaring first, by forming ``J.T J``, would lose half of the digits. For two layers the Jacobian is block-diagonal in
the basis of the left singular vectors of W_2: the block of the singular value s is ``[s X, X W_1.T]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions, memory
from hesskern._base.array_types import Matrix
from hesskern.curvature.dense_blocks import inner_indices, interleaved
from hesskern.curvature.layer_factors import Factors
from hesskern.linalg.eigenbasis import DenseBasis, Eigenbasis, Values, ValuesOnly, ZeroBasis
from hesskern.network.parameters import Part

#: Most numbers in the matrices that are decomposed in one call; a single matrix may have more.
_NUMBERS_AT_ONCE = 1 << 14


def gauss_newton_basis(factors: Factors, parts: Sequence[Part], *, lift: bool) -> Eigenbasis:
    """Return the eigenbasis of ``J.T J`` for the selected parameters; `lift`: with eigenvectors."""
    weights = factors.weights
    pairs = [factors.jacobian(part.layer, inner_indices(part, weights[part.layer].shape[1])) for part in parts]
    orders = [
        interleaved(below.shape[1], len(weights[part.layer]), part)
        for (_, below), part in zip(pairs, parts, strict=True)
    ]
    two = factors.depth == 2
    return squares_of_jacobian(pairs, orders, len(weights[-1]), factors.scale, two_layers=two, lift=lift)


def squares_of_jacobian(
    pairs: Sequence[tuple[Matrix | None, Matrix]],
    orders: Sequence[NDArray[np.intp] | None],
    outputs: int,
    scale: float,
    *,
    two_layers: bool,
    lift: bool,
) -> Eigenbasis:
    """Return the eigenbasis of ``scale * J.T J`` for a Jacobian of Kronecker products, side by side.

    Parameters
    ----------
    pairs : sequence of (o, b) array or None, and (N, a) array
        The two factors of each layer, None: the identity.
    orders : sequence of arrays or None
        The Kronecker position of each column that the Jacobian has, None: as they are.
    outputs : int
    scale : float
    two_layers : bool
        Whether the network has two layers.
    lift : bool
    """
    outer, inner = [top for top, _ in pairs], [below for _, below in pairs]
    rows = len(inner[0])
    size = sum(below.shape[1] * (outputs if top is None else top.shape[1]) for top, below in pairs)
    if size == 0:
        return ZeroBasis(0)
    largest = max(size, outputs * rows)
    if not lift and two_layers and len(pairs) == 2 and outer[0] is not None:
        strengths = decompositions.svdvals(outer[0])
        columns = inner[0].shape[1] + inner[1].shape[1]
        step = max(1, _NUMBERS_AT_ONCE // (rows * columns))
        singular_values = [_mixed(strengths[at : at + step], *inner) for at in range(0, len(strengths), step)]
        # Outputs that W_2 does not reach depend on the last layer only.
        if outputs > len(strengths):
            singular_values += [decompositions.svdvals(inner[1])] * (outputs - len(strengths))
        nonzero: Values = scale * np.concatenate(singular_values) ** 2
        return ValuesOnly(nonzero, zeros=size - len(nonzero), dense_size=largest)
    small = min(size, outputs * rows)
    # The Jacobian, its pieces and LAPACK's copy; with eigenvectors the full U and V, and LAPACK's work space.
    numbers = 3 * size * outputs * rows + (size**2 + (outputs * rows) ** 2 + 4 * small**2 if lift else small**2)
    memory.require(
        8 * numbers,
        f"the Jacobian of {outputs * rows} x {size} that is left after all reductions",
        "use H.eigsh(k) for a few eigenvalues.",
    )
    pieces = []
    for top, matrix, order in zip(outer, inner, orders, strict=True):
        piece = np.kron(np.eye(outputs) if top is None else top, matrix)
        pieces.append(piece if order is None else piece[:, order])
    jacobian = np.hstack(pieces)
    if not lift:
        values: Values = scale * decompositions.svdvals(jacobian) ** 2
        return ValuesOnly(values, zeros=size - len(values), dense_size=largest)
    _, sigma, vectors = decompositions.svd(jacobian)
    padded = np.zeros(size)
    padded[: len(sigma)] = scale * sigma**2
    return DenseBasis(padded, vectors.T, dense_size=largest)


def _mixed(strengths: Values, first: Matrix, second: Matrix) -> Values:
    """Return the singular values of ``[s first, second]`` for each s."""
    stack = np.empty((len(strengths), len(first), first.shape[1] + second.shape[1]))
    np.multiply(strengths[:, None, None], first, out=stack[:, :, : first.shape[1]])
    stack[:, :, first.shape[1] :] = second
    return decompositions.svdvals_of_each(stack).ravel()
