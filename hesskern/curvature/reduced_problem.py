"""The eigenproblem of a Hessian after all exact reductions, and the way back.

The order is fixed: samples (the objective's), inputs, hidden widths, ranks (`hesskern.reductions`). Each step leaves a
smaller network or a smaller matrix with known further eigenvalues; the last one is decomposed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hesskern._base import decompositions, memory
from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern._base.interrupt import BYTES, interruptibly
from hesskern._base.powers import Scaled
from hesskern.backends.hidden_units import reducible
from hesskern.backends.protocol import Block, PlainLayers, Side
from hesskern.curvature.deep_problem import deep_basis, deep_ranks_of, moderate_sizes, structural_zeros
from hesskern.curvature.dense_blocks import grid
from hesskern.curvature.eigenvalue_errors import EigenvalueErrors
from hesskern.curvature.gauss_newton import gauss_newton_basis, squares_of_jacobian
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.curvature.point import Point
from hesskern.linalg.eigenbasis import DenseBasis, Eigenbasis, ValuesOnly, ZeroBasis, ZeroedBasis
from hesskern.linalg.extreme_magnitudes import extreme_magnitudes
from hesskern.network.parameters import Part, part_size
from hesskern.reductions.deep_ranks import DeepRanks, Dropped
from hesskern.reductions.inputs import InputsBasis, InputSpan
from hesskern.reductions.width_basis import WidthBasis
from hesskern.reductions.width_reduction import AllUnits, WidthReduction

#: Matrices from this size on have their extreme eigenvalues sooner than all.
_EXTREMES_FROM = 300


class ExtremeEigenvalues(NamedTuple):
    """What a condition number needs, where every eigenvalue is certainly zero or certainly not."""

    largest: float
    smallest: float
    rank: int

    @property
    def value(self) -> float:
        """The condition number."""
        return self.largest / self.smallest


class ReducedLayer:
    """One hidden layer reduced.

    Parameters
    ----------
    reduction : WidthReduction
    small : PlainLayers
        After the reduction.
    coupling : (above, below) array
        Between the parameters of each unit that is left out.
    rank : int
        A bound on its rank.
    """

    def __init__(self, reduction: WidthReduction, small: PlainLayers, coupling: Matrix, rank: int) -> None:
        self.reduction, self.small, self.coupling = reduction, small, coupling
        self.rank = min(rank, *coupling.shape)

    @property
    def zeros(self) -> int:
        """How many eigenvalues of all units that are left out are zero."""
        return int(self.reduction.left_over * (sum(self.coupling.shape) - 2 * self.rank))

    @property
    def nonzero(self) -> int:
        """How many are not."""
        return int(self.reduction.left_over * 2 * self.rank)


class ReducedProblem:
    """One Hessian's eigenproblem, reduced.

    Parameters
    ----------
    point : Point
    parts : sequence of Part
    mode : {"full", "gauss_newton", "functional"}
    errors : EigenvalueErrors
        It is told what is decomposed.
    lift : bool
        Whether eigenvectors will be wanted.
    """

    def __init__(
        self, point: Point, parts: Sequence[Part], mode: Mode, errors: EigenvalueErrors, *, lift: bool
    ) -> None:
        self._point, self._parts, self._mode, self._errors, self._lift = point, parts, mode, errors, lift
        self._net = point.net
        self._layers = PlainLayers(tuple(point.factors.weights), tuple(point.factors.biases))
        self.span: InputSpan | None = None
        self.stages: list[ReducedLayer] = []
        self.factors = self._of_all_units() if self._closed_form else self._reduced()
        errors.decomposed = self.factors

    # Reductions -------------------------------------------------------------------------------------------------------

    @property
    def _selected(self) -> dict[int, Part]:
        return {part.layer: part for part in self._parts}

    @property
    def _closed_form(self) -> bool:
        """Whether it is the functional part of two layers: every hidden unit has the same small block."""
        return self._mode == "functional" and len(self._layers.weights) == 2

    @property
    def _last_biases(self) -> int:
        """How many biases of the last layer are selected: no second derivative of the network has them."""
        last = self._selected.get(1)
        return len(self._layers.weights[1]) if last is not None and last.bias else 0

    def _of_all_units(self) -> Factors:
        factors = self._point.factors
        reduction = AllUnits(self._layers, self._selected)
        coupling = reduction.coupling(self._gradient(factors, 0))
        self.stages.append(ReducedLayer(reduction, reduction.empty, coupling, self._rank(factors, 0)))
        return factors

    def _reduced(self) -> Factors:
        factors, layers, data = self._point.factors, self._layers, self._point.data
        first = self._selected.get(0)
        if first is not None and first.weight and moderate_sizes(factors) and len(data.X) < data.X.shape[1]:
            span = InputSpan(data.astype(np.dtype(np.float64)))
            if not span.mixes_features(factors.weights[0]):
                self.span, layers, data = span, span.reduced(layers), span.data
                factors = Factors(layers, data, factors.scale, ordinary=factors.ordinary or None)
        across: dict[int, Scaled] = {}
        for layer in reducible(layers, set(self._selected)):
            reduction = WidthReduction(layers, layer, self._selected)
            layers, across[layer] = reduction.reduced(self._point.backend, lift=self._lift)
            factors = Factors(layers, data, factors.scale, dict(across), ordinary=factors.ordinary)
            coupling = reduction.coupling(self._gradient(factors, layer))
            self.stages.append(ReducedLayer(reduction, layers, coupling, self._rank(factors, layer)))
        return factors

    def _gradient(self, factors: Factors, layer: int) -> Callable[[], Matrix | None]:
        return lambda: None if self._mode == "gauss_newton" else factors.residual_gram(layer + 1, layer).value

    def _rank(self, factors: Factors, layer: int) -> int:
        """Return a bound on the rank of the gradient with respect to the product of two layers."""
        if self._mode == "gauss_newton":
            return 0
        below = [factors.weights[0].shape[1], *(len(weight) for weight in factors.weights[:layer])]
        above = [len(weight) for weight in factors.weights[layer + 1 :]]
        return int(min(len(factors.X), *above, min(below) + factors.has_bias))

    @cached_property
    def deep(self) -> DeepRanks | None:
        """The reduction by ranks; None where it leaves everything."""
        return deep_ranks_of(self.factors, self._parts, self._mode, self._errors.residual_error)

    # The way back -----------------------------------------------------------------------------------------------------

    def basis(self, *, lift: bool) -> Eigenbasis:
        """Return the eigenbasis of all selected parameters; `lift`: with eigenvectors."""
        return self.lifted(ZeroBasis(self._last_biases) if self._closed_form else self._decomposed(lift=lift))

    def lifted(self, basis: Eigenbasis) -> Eigenbasis:
        """Return the eigenbasis of all selected parameters from that of the network after the reductions of width."""
        for stage in reversed(self.stages):
            basis = WidthBasis(stage.reduction, stage.small, stage.coupling, basis, self._parts, stage.rank)
        return basis if self.span is None else InputsBasis(self.span, self._layers, basis, self._parts)

    def _decomposed(self, *, lift: bool) -> Eigenbasis:
        factors, deep = self.factors, self.deep
        if self._mode == "gauss_newton":
            if deep is None:
                return self._zeroed(gauss_newton_basis(factors, self._parts, lift=lift))
            self._errors.dropped = Dropped(deep.dropped_jacobian, 0.0)
            pairs, outputs = deep.jacobian, len(factors.weights[-1])
            squares = squares_of_jacobian(
                pairs, [None] * len(pairs), outputs, factors.scale, two_layers=factors.depth == 2, lift=lift
            )
            return deep_basis(deep, squares, factors, self._parts, self._mode)
        sides, blocks = self._matrix()
        size = self.size
        memory.require(
            8 * size * ((5 if lift else 2) * size + 256),  # the matrix and LAPACK's copies and work space
            f"the eigenproblem of size {size} that is left after all reductions",
            "use H.eigsh(k) for a few eigenvalues.",
        )
        dense = self._assembled(sides, blocks)
        inner = DenseBasis(*decompositions.eigh(dense)) if lift else ValuesOnly(decompositions.eigvalsh(dense))
        return self._zeroed(inner) if deep is None else deep_basis(deep, inner, factors, self._parts, self._mode)

    def _zeroed(self, basis: Eigenbasis) -> Eigenbasis:
        """Return the basis with all eigenvalues zero that are so by shape."""
        zeros = structural_zeros(self.factors, self._parts, self._mode)
        return ZeroedBasis(basis, self.size - zeros) if zeros > basis.structural_zeros else basis

    def _matrix(self) -> tuple[list[Side], list[Block]]:
        """Return the matrix that is decomposed, as `Backend.assemble` takes it."""
        if self.deep is None:
            _, sides, blocks = grid(self.factors, self._parts, self._parts, self._mode, "row", np.dtype(np.float64))
        else:
            sides, blocks, self._errors.dropped = self.deep.problem()
        return sides, blocks

    def extremes(self, shift: float) -> ExtremeEigenvalues | None:
        """Return the largest and the smallest absolute eigenvalue, and the rank; None where it takes all eigenvalues.

        So it does where the matrix is small, and where an eigenvalue cannot be told from zero.

        Parameters
        ----------
        shift : float
            The multiple of the identity that is added.
        """
        if self._mode != "full" or self._closed_form or self.size < _EXTREMES_FROM:
            return None
        sides, blocks = self._matrix()
        dense = self._assembled(sides, blocks)
        dense.reshape(-1)[:: self.size + 1] += shift
        found = extreme_magnitudes(dense)
        if found is None:
            return None
        outside = [decompositions.svdvals(stage.coupling)[: stage.rank] for stage in self.stages]
        closed = np.concatenate([np.zeros(0), *outside])
        closed = np.abs(np.concatenate([closed + shift, closed - shift]))
        parameters = sum(part_size(self._net, part) for part in self._parts)
        known = self.size + sum(stage.nonzero for stage in self.stages)
        sizes = [*found, *closed.tolist(), *([abs(shift)] if shift and parameters > known else [])]
        largest, smallest = max(sizes), min(sizes)
        basis = ValuesOnly(np.array([found[0] + abs(shift)]), dense_size=self.size)
        if smallest <= self._errors.with_noise(sum(self._errors.tolerances(basis))):
            return None
        return ExtremeEigenvalues(largest, smallest, parameters if shift else known)

    def _assembled(self, sides: list[Side], blocks: list[Block]) -> Matrix:
        dense = np.empty((self.size, self.size))
        if self.size:
            assemble = self._point.backend.assemble
            interruptibly(assemble, sides, sides, blocks, dense, seconds=dense.nbytes / BYTES)
        return dense

    # In words ---------------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Size of the matrix that is decomposed."""
        if self._closed_form:
            return 0
        if self.deep is not None:
            return self.deep.size
        weights = self.factors.weights
        return sum(
            len(weights[part.layer]) * int(weights[part.layer].shape[1] * part.weight + part.bias)
            for part in self._parts
        )

    @property
    def likely_size(self) -> int:
        """About the size of the matrix that is decomposed, without computing ranks."""
        if self._closed_form:
            return 0
        rows = [len(self.factors.weights[part.layer]) for part in self._parts]
        inputs = [self.factors.weights[part.layer].shape[1] * part.weight + part.bias for part in self._parts]
        whole = sum(m * n for m, n in zip(rows, inputs, strict=True))
        return int(whole - structural_zeros(self.factors, self._parts, self._mode))

    @property
    def zeros(self) -> int:
        """How many eigenvalues are zero for any numbers of these shapes."""
        zeros: int = self._last_biases if self._closed_form else structural_zeros(self.factors, self._parts, self._mode)
        zeros += sum(stage.zeros for stage in self.stages)
        return zeros + (0 if self.span is None else self.span.left_out(self._layers))

    @property
    def words(self) -> str:
        """What was done, in one line."""
        parameters = sum(part_size(self._net, part) for part in self._parts)
        closed = sum(stage.nonzero for stage in self.stages)
        left = self.size
        if self._mode == "gauss_newton":  # from a Jacobian with a row for each output of each sample
            left = min(left, len(self.factors.weights[-1]) * len(self.factors.X))
        zeros, shift = self.zeros, self._point.decay(self._mode)
        rounded = max(parameters - left - closed - zeros, 0)
        if not zeros and not closed and not rounded:
            reason = "in general position a Hessian of this shape has full rank"
            if not moderate_sizes(self.factors):
                reason = "the numbers are too large or too small to look for ranks"
            return f"{parameters} parameters, none left out: {reason}"
        pieces = [f"{parameters} parameters to {left}" if left else f"{parameters} parameters"]
        if closed:
            pieces.append(f"{closed} eigenvalues in closed form")
        if zeros:
            pieces.append(f"{zeros} exact zero{'s' if zeros > 1 else ''}{' before weight decay' if shift else ''}")
        if rounded:
            pieces.append(f"{rounded} more zero up to rounding")
        return "; ".join(pieces)
