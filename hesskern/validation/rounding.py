r"""How far apart two right answers may be: bounds on rounding, from the sizes and norms of a problem alone.

Every quantity is a sum of products of the same matrices, in any order of multiplication. A product over an inner
dimension n, in arithmetic of unit u, is wrong by at most ``g(n) ‖A‖_F ‖B‖_F`` in the Frobenius norm, with
``g(n) = min(n, 8 sqrt(n)) u``. The first is the worst case (Higham 2002, chapter 3). The second fails with a
probability of about 1e-13 if rounding errors are independent (Higham and Mary 2019). The R of a QR of n rows and k
columns is wrong by ``g(n k)`` of each column's norm (Connolly and Higham 2023). In a chain ``F_1 F_2 ...`` the errors
add up:

    ``‖error‖_F <= (Σ g) · ρ² · ∏ ‖F_j‖_2,   ρ = max_j ‖F_j‖_F / ‖F_j‖_2``

which holds for each order of multiplication. All bounds are of first order in u. None depends on a measured error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.cached import cached_property
from hesskern.validation.case import ValidationCase

#: Singular values of larger matrices cost more than the check; their Frobenius norm is also a bound.
_LARGEST_SVD = 2e8


def norm(array: NDArray[np.float64] | float) -> float:
    """Return the Frobenius norm; unlike in `numpy.linalg.norm`, squares of entries neither overflow nor vanish."""
    entries = np.asarray(array, dtype=np.float64)
    largest = float(np.abs(entries).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    exponent = math.frexp(largest)[1]
    # Half of the exponent at a time: a single factor would itself overflow for subnormal numbers.
    scaled = np.ldexp(np.ldexp(entries, -(exponent // 2)), -(exponent - exponent // 2))
    with np.errstate(over="ignore"):
        return float(np.ldexp(np.linalg.norm(scaled), exponent))


def square(value: float) -> float:
    """Return the square; infinite if it overflows, where ``value**2`` would raise an error."""
    return value * value


def spread_error(terms: float, unit: float) -> float:
    """Return ``g(terms)``: the relative rounding error of a sum of this many products."""
    return min(terms, 8.0 * math.sqrt(terms)) * unit


@dataclass(frozen=True, slots=True)
class ProductBound:
    """A product of matrices: its norm, its Frobenius norm over that, and its error in units of ``ρ² · norm``."""

    norm: float
    ratio: float
    units: float = 0.0

    def times(self, other: ProductBound, terms: int, unit: float) -> ProductBound:
        """Return the product over an inner dimension of this many terms."""
        return ProductBound(
            self.norm * other.norm,
            max(self.ratio, other.ratio),
            self.units + other.units + spread_error(terms, unit),
        )

    def plus(self, other: ProductBound, unit: float) -> ProductBound:
        """Return the sum."""
        return ProductBound(self.norm + other.norm, max(self.ratio, other.ratio), max(self.units, other.units) + unit)

    @property
    def size(self) -> float:
        """Bound on the Frobenius norm."""
        return self.norm * self.ratio

    @property
    def error(self) -> float:
        """Bound on the rounding error in the Frobenius norm."""
        return self.norm * square(self.ratio) * self.units


def factor_bound(matrix: NDArray[np.float64], units: float = 0.0) -> ProductBound:
    """Return the bound of a single matrix: a product with one factor."""
    frobenius = norm(matrix)
    if matrix.ndim == 2 and matrix.size * min(matrix.shape) <= _LARGEST_SVD:
        spectral = decompositions.norm(matrix)
        return ProductBound(spectral, max(1.0, frobenius / spectral) if spectral else 1.0, units)
    return ProductBound(frobenius, 1.0, units)


@dataclass(frozen=True, slots=True)
class ErrorBound:
    """A matrix of second derivatives: bounds on its Frobenius norm and on its rounding error."""

    size: float
    error: float

    def __add__(self, other: ErrorBound) -> ErrorBound:
        """Return the bounds of a sum."""
        return ErrorBound(self.size + other.size, self.error + other.error)


def kronecker(first: ProductBound, second: ProductBound, scale: float, unit: float) -> ErrorBound:
    """Return the bounds of ``scale · first ⊗ second``."""
    size = scale * first.size * second.size
    return ErrorBound(size, scale * (first.error * second.size + first.size * second.error) + 2 * unit * size)


class Bounds:
    """Bounds for a program with this rounding unit.

    Parameters
    ----------
    problem : ValidationCase
    unit : float
        ``2**-53`` for float64.
    rotated : bool
        Whether the program replaces data and wide layers by the triangular factors of their QR, as hesskern does.
    margin : float
        Each weight may have grown by this much in norm.
    """

    def __init__(self, problem: ValidationCase, unit: float, *, rotated: bool, margin: float = 0.0) -> None:
        self._problem, self._unit = problem, unit
        samples, inputs = problem.X.shape
        outputs = problem.Y.shape[1]
        self._bias = problem.net.has_bias
        columns = inputs + self._bias
        data_units = spread_error(samples * (columns + outputs), unit) if rotated and samples > columns else 0.0
        widths, depth = problem.net.widths, problem.net.depth
        weights = []
        for layer, weight in enumerate(problem.weights):
            turned = 0.0
            if rotated:
                hidden = [k for k in (layer, layer + 1) if 0 < k < depth]
                turned = sum(spread_error(widths[k] * (widths[k - 1] + 1 + widths[k + 1]), unit) for k in hidden)
            plain = factor_bound(weight, turned)
            weights.append(ProductBound(plain.norm + margin, plain.ratio, turned))
        self.weights = weights
        self.root = math.sqrt(samples)
        self.X = factor_bound(problem.X, data_units)
        self.Y = ProductBound(norm(problem.Y), 1.0, data_units)
        self.scale = {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]
        self.theta = norm(problem.theta) + margin * len(weights)
        self._margin = margin

    # What the layers see ----------------------------------------------------------------------------------------------

    @cached_property
    def _activations(self) -> list[ProductBound]:
        problem, unit = self._problem, self._unit
        activations = [self.X]
        for weight, bias, matrix in zip(self.weights, problem.biases, problem.weights, strict=True):
            activation = activations[-1].times(weight, matrix.shape[1], unit)
            if bias is not None:
                size = self.root * (norm(bias) + self._margin)
                activation = activation.plus(ProductBound(size, 1.0), unit)
            activations.append(activation)
        return activations

    def inputs(self, layer: int) -> ProductBound:
        """Return the inputs of a layer, with the constant one."""
        activation = self._activations[layer]
        if not self._bias:
            return activation
        return ProductBound(
            math.hypot(activation.norm, self.root), max(activation.ratio, 1.5), max(activation.units, self.X.units)
        )

    @property
    def prediction(self) -> ProductBound:
        """The predictions."""
        return self._activations[-1]

    @property
    def residual(self) -> ProductBound:
        """The residual, bounded by its two terms."""
        return self.prediction.plus(self.Y, self._unit)

    def above(self, layer: int) -> ProductBound:
        """Return the map from a layer's output to the prediction."""
        product = ProductBound(1.0, math.sqrt(self._problem.Y.shape[1]))
        for weight, matrix in zip(self.weights[layer + 1 :], self._problem.weights[layer + 1 :], strict=True):
            product = product.times(weight, len(matrix), self._unit)
        return product

    def between(self, lower: int, upper: int) -> ProductBound:
        """Return the map from the output of layer `lower` to the input of `upper`."""
        product = ProductBound(1.0, math.sqrt(len(self._problem.weights[lower])))
        for weight, matrix in zip(
            self.weights[lower + 1 : upper], self._problem.weights[lower + 1 : upper], strict=True
        ):
            product = product.times(weight, matrix.shape[1], self._unit)
        return product

    # First derivatives ------------------------------------------------------------------------------------------------

    def loss(self, value: float) -> float:
        """Return the bound for the loss, whose value decides how much the residual's error matters."""
        samples, outputs = self._problem.Y.shape
        decayed = 0.5 * self._problem.decay * square(self.theta)
        residual, error = math.sqrt(2.0 * abs(value) / self.scale), self.residual.error
        summed = spread_error(samples * outputs + 2, self._unit) * (abs(value) + decayed)
        terms = spread_error(self._problem.size + 2, self._unit) * decayed
        return self.scale * (residual * error + 0.5 * square(error)) + summed + terms

    def gradient(self, layer: int) -> ErrorBound:
        """Return size and error of a layer's gradient."""
        problem, unit = self._problem, self._unit
        back = self.residual.times(self.above(layer), problem.Y.shape[1], unit)
        product = back.times(self.inputs(layer), problem.samples, unit)
        decayed = problem.decay * self.theta
        return ErrorBound(
            self.scale * product.size + decayed,
            self.scale * (product.error + 2 * unit * product.size) + 3 * unit * decayed,
        )

    @property
    def whole_gradient(self) -> ErrorBound:
        """Size and error of the gradient."""
        return combined([self.gradient(layer) for layer in range(len(self.weights))])

    # Second derivatives -----------------------------------------------------------------------------------------------

    def gauss_newton(self, row: int, column: int) -> ErrorBound:
        """Return the bounds of a block of the Gauss-Newton part."""
        problem, unit = self._problem, self._unit
        outer = self.above(row).times(self.above(column), problem.Y.shape[1], unit)
        inner = self.inputs(row).times(self.inputs(column), problem.samples, unit)
        return kronecker(outer, inner, self.scale, unit)

    def functional(self, row: int, column: int) -> ErrorBound:
        """Return the bounds of a block of the functional part."""
        if row == column:
            return ErrorBound(0.0, 0.0)
        lower, upper = sorted((row, column))
        problem, unit = self._problem, self._unit
        back = self.residual.times(self.above(upper), problem.Y.shape[1], unit)
        return kronecker(
            self.between(lower, upper), back.times(self.inputs(lower), problem.samples, unit), self.scale, unit
        )

    def block(self, row: int, column: int) -> ErrorBound:
        """Return the bounds of a block of the Hessian."""
        total = self.gauss_newton(row, column) + self.functional(row, column)
        if row != column or not self._problem.decay:
            return total
        decay = self._problem.decay * math.sqrt(self._problem.size)
        return total + ErrorBound(decay, self._unit * (decay + total.size))

    def whole(self, mode: str) -> ErrorBound:
        """Return the bounds of "block" (the Hessian), "gauss_newton" or "functional" over all layers."""
        block, layers = getattr(self, mode), range(len(self.weights))
        return combined([block(row, column) for row in layers for column in layers])

    def difference(self, mode: str, row: int | None = None, column: int | None = None) -> ErrorBound:
        """Return the bounds of a part for a program that gets the functional part by subtraction."""
        bounds = {
            name: self.whole(name) if row is None or column is None else getattr(self, name)(row, column)
            for name in ("block", "gauss_newton", "functional")
        }
        if mode != "functional":
            return bounds[mode]
        terms = bounds["block"] + bounds["gauss_newton"]
        # Both subtractions round, also that of the decay.
        return ErrorBound(terms.size, terms.error + 2 * self._unit * terms.size)

    def product(self, part: ErrorBound) -> float:
        """Return the bound for the product of a part with a vector of length 1."""
        return part.error + spread_error(max(self._problem.net.widths) + 1, self._unit) * part.size


def combined(parts: Sequence[ErrorBound]) -> ErrorBound:
    """Return the bounds of a matrix that consists of these pieces."""
    return ErrorBound(math.hypot(*(part.size for part in parts)), math.hypot(*(part.error for part in parts)))
