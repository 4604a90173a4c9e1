"""Number formats with fewer digits: rounding to them, and a Hessian computed in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern.explanation.orders import Tensor
from hesskern.loss import SquaredLoss
from hesskern.network import LinearNetwork

Values = NDArray[np.float64]


class Format(NamedTuple):
    """A format by the digits of its significand; products are taken of rounded factors and rounded themselves."""

    name: str
    bits: int  # of a number stored in it
    product_bits: int  # of a product of matrices: TF32 sums in float32
    mend: str

    def round(self, values: NDArray[np.floating]) -> Values:
        """Return the nearest numbers of this format (of any exponent)."""
        return rounded(values, self.bits)


FORMATS = (
    Format("float32", 24, 24, "keep everything in float64: .double() for the model, X and Y (JAX: jax_enable_x64)"),
    Format("TF32", 11, 24, "torch.backends.cuda.matmul.allow_tf32 = False, and .double() for the model, X and Y"),
    Format("float16", 11, 11, "no .half() and no autocast around the Hessian: .double() for the model, X and Y"),
    Format("bfloat16", 8, 8, "no .bfloat16() and no autocast around the Hessian: .double() for the model, X and Y"),
)


def rounded(values: NDArray[np.floating], bits: int) -> Values:
    """Return values with so many significant binary digits, rounded to nearest, ties to even."""
    if bits == 24:
        with np.errstate(over="ignore", under="ignore"):
            return values.astype(np.float32).astype(np.float64)
    fraction, exponent = np.frexp(values)
    result: Values = np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)
    return result


def on_grid(values: NDArray[np.floating], bits: int) -> bool:
    """Whether all values have no more significant digits than this."""
    return bool(np.array_equal(rounded(values, bits), values))


def computed_in(format_: Format, net: LinearNetwork, loss: SquaredLoss, tensors: Sequence[Tensor]) -> Values:
    """Return the dense Hessian as a program in this format gets it: every product of matrices is rounded.

    The order of the operations is one of many, so the error has the size of theirs, not its digits.
    """

    def times(left: Values, right: Values) -> Values:
        taken = format_.round(left).astype(np.float32) @ format_.round(right).astype(np.float32)
        return rounded(taken, format_.product_bits)

    weights = [format_.round(weight) for weight in net.weights]
    ones = np.ones((len(loss.X), 1))
    inputs, state = [], format_.round(loss.X)
    for weight, bias in zip(weights, net.biases, strict=True):
        inputs.append(state)
        state = times(state, weight.T)
        if bias is not None:
            state = rounded(state + bias, format_.product_bits)
    residual = rounded(state - format_.round(loss.Y), format_.product_bits)
    above = [np.eye(len(weights[-1]))]
    for weight in weights[:0:-1]:
        above.insert(0, times(above[0], weight))
    size = tensors[-1].stop
    matrix = np.empty((size, size))
    for row in tensors:
        for column in tensors:
            upper, lower = (row, column) if row.layer >= column.layer else (column, row)
            outer = times(above[upper.layer].T, above[lower.layer])
            left = inputs[upper.layer] if upper.name == "weight" else ones
            right = inputs[lower.layer] if lower.name == "weight" else ones
            block = np.einsum("rp,sq->rspq", outer, times(left.T, right))
            if upper.layer > lower.layer and upper.name == "weight":
                between = np.eye(len(weights[lower.layer]))
                for weight in weights[lower.layer + 1 : upper.layer]:
                    between = times(weight, between)
                back = times(times(residual, above[upper.layer]).T, right)
                block += np.einsum("sp,rq->rspq", between, back)
            flat = block.reshape(upper.stop - upper.start, lower.stop - lower.start)
            matrix[upper.start : upper.stop, lower.start : lower.stop] = flat
            matrix[lower.start : lower.stop, upper.start : upper.stop] = flat.T
    return loss.scale * matrix
