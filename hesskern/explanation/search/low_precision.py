"""A Hessian as a program with fewer digits computes it, column by column, in autograd's order of operations.

With `Nearest` rounding it is the matrix that such a program returns, up to the order within sums. With `Scattered`
rounding each error keeps its size and gets a random sign: a sample of possible rounding errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.given.formats import Format, rounded
from hesskern.explanation.given.orders import Tensor
from hesskern.losses.squared import SquaredLoss
from hesskern.network.linear_network import LinearNetwork

Values = NDArray[np.float64]

#: Standard deviation of the error of rounding to nearest, in units of 2**-bits of the number: uniform between plus and
#: minus half a unit in the last place, which is one to two of those.
_SPREAD = 0.42

#: Pieces into which a sum is split, to estimate the size of its partial sums.
_PIECES = 8


class Rounding(Protocol):
    """How a result is rounded to a format."""

    def round(self, values: Values, bits: int) -> Values:
        """Return the values with fewer digits."""

    def multiply(self, left: Values, right: Values, bits: int) -> Values:
        """Return a product of (stacks of) matrices, summed with a significand of 24 bits, before it is rounded."""


class Nearest:
    """Rounding as arithmetic does it."""

    def round(self, values: Values, bits: int) -> Values:
        """Round to nearest."""
        return rounded(values, bits)

    def multiply(self, left: Values, right: Values, bits: int) -> Values:
        """Sum in float32."""
        del bits
        product: Values = np.matmul(left.astype(np.float32), right.astype(np.float32)).astype(np.float64)
        return product


class Scattered:
    """The errors of `Nearest` with random signs."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def round(self, values: Values, bits: int) -> Values:
        """Move each value by its rounding error, up or down."""
        signs = 2.0 * self._rng.integers(0, 2, values.shape, dtype=np.int8) - 1.0
        moved: Values = values + signs * (rounded(values, bits) - values)
        return moved

    def multiply(self, left: Values, right: Values, bits: int) -> Values:
        """Add the error of rounding each partial sum to float32; shorter formats round far more than that."""
        if bits < 24:
            exact: Values = np.matmul(left, right)
            return exact
        terms = left.shape[-1]
        width = -(-terms // _PIECES)
        total: Values | float = 0.0
        squares: Values | float = 0.0
        for start in range(0, terms, width):
            stop = min(start + width, terms)
            total = total + np.matmul(left[..., start:stop], right[..., start:stop, :])
            squares = squares + (stop - start) * np.square(total)
        assert not isinstance(total, float)
        return total + 2.0**-24 * _SPREAD * np.sqrt(squares) * self._rng.standard_normal(total.shape)


def columns(
    format_: Format,
    rounding: Rounding,
    net: LinearNetwork,
    loss: SquaredLoss,
    tensors: Sequence[Tensor],
    chosen: NDArray[np.intp],
    *,
    gauss_newton: bool = False,
) -> Values:
    """Return some columns of the Hessian with respect to some parameters, without weight decay.

    Forward over reverse: the derivative of backpropagation along each chosen parameter. O(N P) operations a column.
    """

    def keep(values: NDArray[Any]) -> Values:
        return rounding.round(values, format_.product_bits)

    def times(left: Values, right: Values) -> Values:
        factors = rounding.round(left, format_.bits), rounding.round(right, format_.bits)
        return keep(rounding.multiply(*factors, format_.product_bits))

    def total(terms: Sequence[Values]) -> Values:
        summed = terms[0]
        for term in terms[1:]:
            summed = keep(summed + term)
        return summed

    count, samples = len(chosen), len(loss.X)
    weights = [keep(weight) for weight in net.weights]
    states = [keep(loss.X)]
    for weight, bias in zip(weights, net.biases, strict=True):
        state = times(states[-1], weight.T)
        states.append(state if bias is None else keep(state + keep(bias)))
    back = [keep(loss.scale * keep(states[-1] - keep(loss.Y)))]
    for weight in weights[:0:-1]:
        back.insert(0, times(back[0], weight))

    along = {(t.layer, t.name): _direction(t, chosen) for t in tensors}
    moved: list[Values | None] = [None]  # derivatives of the states
    for layer, weight in enumerate(weights):
        last, terms = moved[-1], []
        if last is not None:
            terms.append(times(last, weight.T))
        if (layer, "weight") in along:
            terms.append(times(states[layer], along[layer, "weight"].swapaxes(-1, -2)))
        if (layer, "bias") in along:
            shift = along[layer, "bias"][:, None, :]
            terms.append(np.broadcast_to(shift, (count, samples, shift.shape[-1])))
        moved.append(total(terms) if terms else None)
    assert moved[-1] is not None, "some parameter moves"
    moved_back = keep(loss.scale * moved[-1])
    derivatives: dict[tuple[int, str], Values] = {}
    for layer in reversed(range(net.depth)):
        terms, moved_layer = [times(moved_back.swapaxes(-1, -2), states[layer])], moved[layer]
        if moved_layer is not None and not gauss_newton:
            terms.append(times(back[layer].T, moved_layer))
        derivatives[layer, "weight"] = total(terms)
        derivatives[layer, "bias"] = times(np.ones((1, samples)), moved_back)
        if layer:
            terms = [times(moved_back, weights[layer])]
            if (layer, "weight") in along and not gauss_newton:
                terms.append(times(back[layer], along[layer, "weight"]))
            moved_back = total(terms)
    pieces = [derivatives[t.layer, t.name].reshape(count, -1) for t in tensors]
    joined: Values = np.concatenate(pieces, axis=1).T
    return joined


def _direction(tensor: Tensor, chosen: NDArray[np.intp]) -> Values:
    """Return unit vectors along the chosen parameters, as arrays of this tensor's shape: zero where others move."""
    units = np.zeros((len(chosen), tensor.stop - tensor.start))
    inside = np.flatnonzero((chosen >= tensor.start) & (chosen < tensor.stop))
    units[inside, chosen[inside] - tensor.start] = 1.0
    return units.reshape(len(chosen), *tensor.shape)
