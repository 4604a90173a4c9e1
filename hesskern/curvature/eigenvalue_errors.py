"""The accuracy of the eigenvalues of a Hessian: which of them count as zero, and the error of the others.

All is computed in float64 from the given numbers, also for a float32 network. The errors of the eigenproblem and the
errors of the products in its matrix (`hesskern.curvature.rounding`) add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern._base.cached import cached_property
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.curvature.point import Point
from hesskern.curvature.rounding import Errors, logarithm
from hesskern.curvature.rounding_norms import errors_from_norms
from hesskern.linalg.eigenbasis import Eigenbasis
from hesskern.network.parameters import Part
from hesskern.reductions.deep_ranks import Dropped

_EPSILON = float(np.finfo(np.float64).eps)
#: Bounds on errors that are this many times those of LAPACK are good enough.
_GOOD_ENOUGH = 8.0
#: Logarithm of the relative error of the residual below which a rough bound on it is good enough.
_CLOSE_RESIDUAL = -46.0


class EigenvalueErrors:
    """Bounds on the errors of the eigenvalues of one Hessian.

    Parameters
    ----------
    point : Point
    parts : sequence of Part
    mode : {"full", "gauss_newton", "functional"}
    of_squares : bool
        Whether the eigenvalues are squared singular values. Then the errors of these decide.
    """

    #: Factors of the network that was decomposed: after the reductions of width.
    decomposed: Factors
    #: What was taken for zero on the way to the matrix that was decomposed.
    dropped = Dropped(0.0, 0.0)

    def __init__(self, point: Point, parts: Sequence[Part], mode: Mode, *, of_squares: bool) -> None:
        self._point, self._parts, self._mode, self._of_squares = point, parts, mode, of_squares

    def tolerances(self, basis: Eigenbasis) -> tuple[float, float]:
        """Return the tolerance for a zero eigenvalue and the error of an eigenvalue, both absolute."""
        largest = float(np.abs(basis.groups.values).max(initial=0.0))
        unit = basis.dense_size * _EPSILON
        if self._of_squares:
            root = math.sqrt(largest)
            error = unit * root + self._bounds(unit * root).jacobian + self.dropped.jacobian
            return error**2, error * root
        error = unit * largest
        bounds = self._bounds(error / (2.0 * math.sqrt(largest * len(self._parts)) or 1.0), error)
        if self._mode == "full":
            # Blocks on the diagonal are Gauss-Newton, so the norm of J J.T is at most the number of layers times that
            # of H.
            error += 2.0 * math.sqrt(largest * len(self._parts)) * (bounds.jacobian + self.dropped.jacobian)
        error += bounds.functional + self.dropped.functional
        return error, error

    def with_noise(self, tolerance: float) -> float:
        """Return the tolerance, at least the size of the functional part where that is rounding noise."""
        if not self._of_squares and self.residual_is_noise:
            return max(tolerance, self._point.magnitudes.functional_part(self._parts))
        return tolerance

    def residual_error(self) -> float:
        """Return a bound on the error of the residual's norm by the computation alone."""
        if self._mode == "gauss_newton":
            return 0.0
        widths = self._point.net.widths[:-1]
        rough = errors_from_norms(self.decomposed, self._parts, widths, 0.0, functional=True).residual
        enough = logarithm(self.decomposed.residual) + _CLOSE_RESIDUAL
        error = rough if rough <= enough else self._point.magnitudes.residual_error(0.0)
        return math.inf if error > 1023 else 2.0**error

    @cached_property
    def residual_is_noise(self) -> bool:
        """Whether rounding weights and data to the network's dtype could have made the whole residual."""
        size = logarithm(self.decomposed.residual)
        return size <= self.rough.residual and size <= self.close.residual

    def blocks_and_gradient(self) -> tuple[NDArray[np.float64], list[float]]:
        """Return bounds, as norms, on the errors that rounding in products of the network's matrices makes.

        In the blocks of the Hessian (L, L), and in the gradient with respect to the parameters of each layer.
        """
        magnitudes = self._point.magnitudes
        return magnitudes.blocks(self._parts, self._mode), magnitudes.gradient(self._parts, self._input_error)

    def _bounds(self, jacobian: float, functional: float = math.inf) -> Errors:
        """Return bounds on rounding errors: rough ones, or close ones where the rough ones exceed these numbers."""
        if self.rough.jacobian <= _GOOD_ENOUGH * jacobian and self.rough.functional <= _GOOD_ENOUGH * functional:
            return self.rough
        return self.close

    @cached_property
    def rough(self) -> Errors:
        """Bounds from norms."""
        widths, functional = self._point.net.widths[:-1], self._mode != "gauss_newton"
        return errors_from_norms(self.decomposed, self._parts, widths, self._input_error, functional=functional)

    @cached_property
    def close(self) -> Errors:
        """Bounds from the magnitudes of all entries."""
        return self._point.magnitudes.errors(self._parts, self._input_error)

    @property
    def _input_error(self) -> float:
        """The relative change of weights and data by rounding to the network's dtype."""
        return 0.5 * float(np.finfo(self._point.dtype).eps)
