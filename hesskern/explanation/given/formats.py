"""Number formats with fewer digits than float64, binary and decimal: rounding to them and recognising them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class Format(NamedTuple):
    """A format, by the digits of its significand; both the factors of a product and the product are rounded."""

    name: str
    bits: int  # of the factors of a product
    product_bits: int  # of a matrix product and of stored numbers: TF32 sums and stores in float32
    fix: str

    def round(self, values: NDArray[np.floating]) -> Values:
        """Return the nearest numbers of this format (of any exponent)."""
        return rounded(values, self.bits)


FORMATS = (
    Format("float32", 24, 24, "keep everything in float64: .double() for the model, X and Y (JAX: jax_enable_x64)"),
    Format("TF32", 11, 24, "torch.backends.cuda.matmul.allow_tf32 = False, and .double() for the model, X and Y"),
    Format("float16", 11, 11, "no .half() and no autocast around the Hessian: .double() for the model, X and Y"),
    Format("bfloat16", 8, 8, "no .bfloat16() and no autocast around the Hessian: .double() for the model, X and Y"),
)

#: Decimal digits from which on every float64 looks like a decimal number.
_DIGITS = 13

#: Entries whose decimals are read.
_LOOKED_AT = 500


def rounded(values: NDArray[np.floating], bits: int) -> Values:
    """Return values rounded to this number of significant binary digits, to nearest, ties to even."""
    if bits == 24:
        with np.errstate(over="ignore", under="ignore"):
            return values.astype(np.float32).astype(np.float64)
    fraction, exponent = np.frexp(values)
    result: Values = np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)
    return result


def on_grid(values: NDArray[np.floating], bits: int) -> bool:
    """Whether no value has more significant digits than this."""
    return bool(np.array_equal(rounded(values, bits), values))


def grid_of(matrix: Values, strips: list[slice]) -> Format | None:
    """Return the shortest format that holds all entries, or None if only float64 does."""
    for format_ in (FORMATS[3], FORMATS[2], FORMATS[0]):
        if all(on_grid(matrix[at], format_.product_bits) for at in strips):
            return format_
    return None


class Storage(NamedTuple):
    """A way to store a finished matrix with fewer digits.

    `store` rounds; `half_unit` returns how far that may move each entry.
    """

    key: str
    words: str
    fix: str
    store: Callable[[Values], Values]
    half_unit: Callable[[Values], Values]


def storages(matrix: Values, strips: list[slice]) -> Iterator[Storage]:
    """Yield the ways of storing that fit all entries."""
    binary = grid_of(matrix, strips)
    if binary is not None:
        bits = binary.product_bits
        yield Storage(
            f"{binary.name}-stored",
            f"the finished matrix is rounded to {binary.name}",
            binary.fix,
            partial(rounded, bits=bits),
            partial(_half_bit, bits=bits),
        )
    flat = matrix.ravel()
    looked_at = flat[:: max(1, flat.size // _LOOKED_AT)]
    # The shortest decimal that gives this float64: the printed number, if it was printed with few digits.
    shortest = [Decimal(repr(float(value))).normalize().as_tuple() for value in looked_at if value != 0]
    digits = max((len(number.digits) for number in shortest), default=_DIGITS)
    decimals = max((-int(number.exponent) for number in shortest), default=_DIGITS)
    written = "write it with all its digits: numpy.save, or numpy.savetxt with its usual format"
    if 0 <= decimals < _DIGITS:
        yield Storage(
            f"decimals[{decimals}]",
            f"the finished matrix is rounded to {decimals} decimals",
            written,
            partial(_decimal, decimals=decimals),
            partial(np.full_like, fill_value=0.5 * 10.0**-decimals),
        )
    if digits < _DIGITS:
        yield Storage(
            f"digits[{digits}]",
            f"the finished matrix is rounded to {digits} significant decimal digits",
            written,
            partial(_significant, digits=digits),
            partial(_half_digit, digits=digits),
        )


def _half_bit(values: Values, bits: int) -> Values:
    half_units: Values = 2.0**-bits * (1 + 2.0 ** (1 - bits)) * np.abs(values)
    return half_units


def _half_digit(values: Values, digits: int) -> Values:
    return 0.5 / _units(values, digits)


def _units(values: Values, digits: int) -> Values:
    """Return the powers of ten that turn the last of these digits into a unit."""
    sizes = np.abs(values)
    units: Values = 10.0 ** (digits - 1 - np.floor(np.log10(np.where(sizes > 0, sizes, 1.0))))
    return units


def _decimal(values: Values, decimals: int) -> Values:
    return np.round(values, decimals)


def _significant(values: Values, digits: int) -> Values:
    units = _units(values, digits)
    rounded_values: Values = np.round(values * units) / units
    return rounded_values
