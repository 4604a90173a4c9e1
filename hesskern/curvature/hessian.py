r"""The Hessian of a squared loss with respect to any parameters of a linear network.

With respect to parameters of one layer it is a Kronecker product, which is formed only by ``toarray``. For layer l of
``P = W_L ... W_1`` with ``A_l = W_{l-1} ... W_1`` and ``B_l = W_L ... W_{l+1}``, and samples in the rows of X:

    ``H_ll = scale * (B_l.T B_l) ⊗ (A_l X.T X A_l.T) + weight_decay * I``

in PyTorch's row-major order of ``W_l (m_l, m_{l-1})``: output factor ⊗ input factor. (Papers that stack columns have
the factors in the other order: the same spectrum, but a different matrix.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import checks
from hesskern._base.array_types import Array
from hesskern._base.cached import cached_property
from hesskern._base.interrupt import BYTES, interruptibly
from hesskern._base.powers import Scaled, too_large
from hesskern.backends.protocol import Block, Side
from hesskern.curvature.cross_block import CrossBlock
from hesskern.curvature.deep_problem import structural_zeros
from hesskern.curvature.dense_blocks import grid, inner_indices, interleaved
from hesskern.curvature.diagonal import gauss_newton_diagonal, gauss_newton_trace
from hesskern.curvature.eigenvalue_errors import EigenvalueErrors
from hesskern.curvature.extreme_pairs import FewWanted, of_problem
from hesskern.curvature.float32_rounding import MovedSpectra, moved_by_rounding
from hesskern.curvature.layer_condition import layer_condition
from hesskern.curvature.layer_factors import KINDS, Factors, Mode
from hesskern.curvature.objective import Objective, setting
from hesskern.curvature.point import Point
from hesskern.curvature.reduced_problem import ExtremeEigenvalues, ReducedProblem
from hesskern.linalg.condition import Condition, from_spectrum, of_squares
from hesskern.linalg.eigenbasis import Eigenbasis, FactorBasis, IdentityBasis, KroneckerBasis
from hesskern.linalg.extreme_pairs import SMALL, FewPairs
from hesskern.linalg.symmetric_operator import CurvatureOperator, Which, dense_target
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, part_size, parts_in_words, positions

#: `Condition.note` at an interpolating minimum.
_NOISE = (
    "the residual is not larger than the rounding errors of weights and data, so the functional part is rounding "
    "noise: this is the condition number of the Gauss-Newton part"
)

#: `Condition.note` where nonzero eigenvalues of a float32 network count as zero.
_HIDDEN = (
    "the rank is uncertain: rounding the weights and the data to float32 may have made {} of the eigenvalues "
    "that count as zero"
)


class Hessian(CurvatureOperator):
    """Hessian with respect to the selected parameters, as an operator; made by ``loss.hessian(net, params)``.

    ``H = gauss_newton() + functional() + weight_decay * I``, of shape (P, P), in `named_parameters()` order. It stores
    nothing of size P x P or proportional to the number of samples: the data are reduced once, and products, eigenvalues
    and solutions come from small matrices.

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> net = hk.LinearNetwork([np.array([[1.0, 2.0]]), np.array([[3.0]])])
    >>> loss = hk.SquaredLoss(np.array([[1.0, 1.0]]), np.array([[8.0]]))
    >>> H = loss.hessian(net)
    >>> H.toarray()
    array([[ 9.,  9., 10.],
           [ 9.,  9., 10.],
           [10., 10.,  9.]])
    >>> H @ np.array([1.0, 0.0, 0.0])
    array([ 9.,  9., 10.])
    >>> H.rank(), H.trace()
    (2, 27.0)
    """

    #: Word before "Hessian" in its repr.
    _form = ""

    def __init__(self, point: Point, parts: Sequence[Part], mode: Mode = "full") -> None:
        self._point, self._mode = point, mode
        self._loss, self._backend, self._data = point.objective, point.backend, point.data
        self._net = net = point.net
        self.parts = tuple(parts)
        self._shift = point.decay(mode)
        #: How many parameters each layer has here.
        self._part_sizes = [part_size(net, part) for part in parts]
        size = sum(self._part_sizes)
        super().__init__(np.dtype(net.dtype), (size, size))

    # Parts and blocks -------------------------------------------------------------------------------------------------

    def gauss_newton(self) -> Hessian:
        """Return the Gauss-Newton part ``J.T J``, positive semidefinite, without weight decay."""
        return _of_parts(self._point, self.parts, "gauss_newton")

    def functional(self) -> Hessian:
        """Return the functional part: second derivatives of the network, weighted by the residual; zero at G = 0."""
        return Hessian(self._point, self.parts, "functional")

    def block(self, row: int, column: int) -> Hessian | CrossBlock:
        """Return the block of two layers' selected parameters, rows first, as an operator.

        A diagonal block is a Kronecker operator; a cross block is rectangular.
        """
        selected = {part.layer: part for part in self.parts}
        for name, layer in (("row", row), ("column", column)):
            if checks.integer(layer, name, 0) not in selected:
                raise ValueError(f"{name} is layer {layer}; this Hessian is over the layers {sorted(selected)}.")
        if row == column:
            return _of_parts(self._point, (selected[row],), self._mode)
        return CrossBlock(self._point, selected[row], selected[column], self._mode)

    # Products ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _positions(self) -> NDArray[np.intp] | None:
        return positions(self._net, self.parts)

    def _apply(self, V: Array) -> Array:
        return self._point.times(self._mode, V, self._positions, self._positions)

    # Dense ------------------------------------------------------------------------------------------------------------

    @property
    def _factors(self) -> Factors:
        return self._point.factors

    @cached_property
    def _blocks(self) -> dict[str, tuple[list[Side], list[Block]]]:
        return {}

    def toarray(self, out: Array | None = None, vec: str = "row") -> Array:
        """Return the dense matrix (P, P), symmetric to the bit. Each entry is written once, O(P²).

        Parameters
        ----------
        out : (P, P) array, optional
            C-contiguous array of the network's dtype to write into (a ``numpy.memmap`` if the matrix is larger than the
            memory).
        vec : {"row", "column"}
            How each weight becomes a vector: "row", row after row, as PyTorch flattens; "column", column after column,
            as papers write vec. The order of the layers is the same, and biases follow weights.

        Raises
        ------
        MemoryError
            If a new array would not fit in the free memory; the message says how much it takes.
        TypeError, ValueError
            If `out` has another shape, dtype or layout.
        """
        checks.one_of(vec, "vec", ("row", "column"))
        out = dense_target(out, self.shape, self.dtype, f"Hessian of {parts_in_words(self._net, self.parts)}")
        if vec not in self._blocks:
            self._blocks[vec] = grid(self._factors, self.parts, self.parts, self._mode, vec, self.dtype)[1:]
        sides, blocks = self._blocks[vec]
        interruptibly(self._backend.assemble, sides, sides, blocks, out, seconds=out.nbytes / BYTES)
        if self._shift:
            out.reshape(-1)[:: self.shape[0] + 1] += self.dtype.type(self._shift)
        return out

    def diagonal(self) -> Array:
        """Return the diagonal (P,), exact, from the factors."""
        if self._mode == "functional":
            return np.full(self.shape[0], self._shift, self.dtype)
        with np.errstate(over="ignore"):
            diagonal = gauss_newton_diagonal(self._factors, self.parts) + self._shift
            diagonal = diagonal.astype(self.dtype, copy=False)
        if not math.isfinite(np.vdot(diagonal, diagonal)) and not np.isfinite(diagonal).all():
            raise too_large(self.dtype)
        return diagonal

    def trace(self) -> float:
        """Return the trace, exact, from the factors."""
        total = self._shift * self.shape[0]
        if self._mode != "functional":
            total += gauss_newton_trace(self._factors, self.parts)
        if not math.isfinite(total):
            raise too_large(np.dtype(np.float64))
        return total

    # Eigenvalues ------------------------------------------------------------------------------------------------------

    @cached_property
    def _bases(self) -> dict[bool, Eigenbasis]:
        return {}

    def _eigenbasis(self, *, lift: bool) -> Eigenbasis:
        if lift not in self._bases:
            self._bases[lift] = self._problem(lift=lift).basis(lift=lift)
        return self._bases[lift]

    def _few_pairs(self, k: int, which: Which, *, sure: bool) -> FewPairs | None:
        if which == "SM" or True in self._bases or not self._factors.ordinary or self.shape[0] <= SMALL:
            return None
        question = FewWanted(self.parts, self._mode, self._backend, k, which, self._shift, sure)
        return of_problem(self._problem(lift=True), question, self._errors)

    @cached_property
    def _problems(self) -> dict[bool, ReducedProblem]:
        return {}

    def _problem(self, *, lift: bool) -> ReducedProblem:
        """Return the reduced problem; `lift`: whether eigenvectors can be transformed back."""
        for known, problem in self._problems.items():
            if known or not lift or not problem.stages:  # vectors are transformed back through hidden widths only
                return problem
        self._problems[lift] = ReducedProblem(self._point, self.parts, self._mode, self._errors, lift=lift)
        return self._problems[lift]

    @cached_property
    def reduction(self) -> str:
        """What the exact reductions leave of the eigenproblem, in one line.

        For instance "21000 parameters to 2950; 18050 exact zeros"; see `hesskern.reductions`.
        """
        return self._problem(lift=False).words

    @cached_property
    def predicted_rank(self) -> int:
        """A bound on the exact rank, from the shapes alone.

        For all layers of a network without biases it is that of `hesskern.predicted_rank`, which weights, data and
        residual in general position reach. Otherwise it may be larger than what they reach.
        """
        return self.shape[0] - self._problem(lift=False).zeros

    @property
    def _of_squares(self) -> bool:
        """Whether the eigenvalues are squared singular values."""
        return self._mode == "gauss_newton"

    @cached_property
    def _errors(self) -> EigenvalueErrors:
        return EigenvalueErrors(self._point, self.parts, self._mode, of_squares=self._of_squares)

    def _tolerances(self, basis: Eigenbasis) -> tuple[float, float]:
        return self._errors.tolerances(basis)

    def _rounding(self) -> tuple[NDArray[np.float64], list[float]]:
        """Return bounds on rounding errors in the blocks and in the gradient."""
        return self._errors.blocks_and_gradient()

    def _zero_below(self, basis: Eigenbasis, tolerance: float) -> float:
        tolerance = self._errors.with_noise(tolerance)
        if self.dtype == np.float64:
            return tolerance
        clear = basis.dense_size * float(np.finfo(self.dtype).eps) * float(np.abs(basis.groups.values).max(initial=0.0))
        return max(tolerance, self._spectra.largest_undetermined(tolerance, clear))

    @cached_property
    def _spectra(self) -> MovedSpectra:
        """Absolute eigenvalues of a float32 network, before and after a change by about one unit in the last place."""
        weights, biases, data = moved_by_rounding(self._net, self._data, self._loss.num_samples)
        moved = Hessian(Point(self._loss, LinearNetwork(weights, biases), data), self.parts, self._mode)
        return MovedSpectra(self._sizes(), moved._sizes())

    def _sizes(self) -> NDArray[np.float64]:
        groups = self._eigenbasis(lift=False).groups
        return np.sort(np.repeat(np.abs(groups.values), groups.multiplicities))[::-1]

    @cached_property
    def _noiseless(self) -> Hessian:
        return self.gauss_newton()

    @property
    def residual_is_noise(self) -> bool:
        """Whether rounding alone could have made the whole residual: then `condition` is that of the other part."""
        self._eigenbasis(lift=False)
        return self._mode == "full" and self._errors.residual_is_noise

    @property
    def decay(self) -> float:
        """The multiple of the identity that weight decay adds."""
        return self._shift

    def condition(self) -> Condition:
        """Return the condition number with rank, tolerance, gap and uncertainty; see `CurvatureOperator.condition`.

        If the residual is rounding noise (at an interpolating minimum), the result belongs to the Gauss-Newton part,
        and its `note` says so.
        """
        if not self.residual_is_noise:
            return self._condition(self._shift)
        return replace(self._noiseless._condition(self._shift), remark=_NOISE)

    def extremes(self) -> ExtremeEigenvalues | None:
        """Return what `condition` says of a float64 network, without its doubts; None where there may be any."""
        if self.dtype != np.float64 or len(self.parts) == 1:  # a Kronecker product has all eigenvalues at once
            return None
        return self._problem(lift=False).extremes(self._shift)

    def _condition(self, shift: float) -> Condition:
        basis = self._eigenbasis(lift=False)
        tolerance, error = self._tolerances(basis)
        zero = self._zero_below(basis, tolerance)
        condition = from_spectrum(basis.groups, shift, zero, (tolerance, error), basis.structural_zeros)
        if self._mode == "gauss_newton" and not shift:
            condition = of_squares(condition, error / (basis.groups.max or 1.0))
        if self.dtype == np.float32:
            uncertainty = condition.uncertainty + self._spectra.condition_change(shift, condition.rank)
            hidden = basis.groups.count(tolerance) - basis.groups.count(zero)
            condition = replace(condition, uncertainty=uncertainty, remark=_HIDDEN.format(hidden) if hidden else "")
        return condition

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_parts, (self._point, self.parts, self._mode)

    def __repr__(self) -> str:
        description = f"{self._form}{KINDS[self._mode]} of {parts_in_words(self._net, self.parts)}"
        return f"<{self.shape[0]}x{self.shape[1]} {description} {setting(self._loss, self._net)}>"


class KroneckerHessian(Hessian):
    """Hessian with respect to parameters of one layer, as a Kronecker product.

    Made by ``loss.hessian(net, params=[layer])`` or ``H.block(layer, layer)``. Shape (P, P), P = out·in (+ out with a
    bias), in the order of the layer's weight (row-major), then its bias. Eigenvalues, condition number, rank, solutions
    and determinants come from the two factors.

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> net = hk.LinearNetwork([np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])])
    >>> loss = hk.SquaredLoss(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[1.0], [0.0]]))
    >>> H = loss.hessian(net, params=[1])
    >>> H.toarray()
    array([[10.,  3.],
           [ 3.,  1.]])
    >>> H.rank(), round(H.cond(), 6)
    (2, 118.991596)
    """

    _form = "Kronecker "

    @property
    def residual_is_noise(self) -> bool:
        """False: there is no functional part."""
        return False

    @property
    def layer(self) -> int:
        """Which layer, counted from 0."""
        return self.parts[0].layer

    @property
    def output_factor(self) -> Array:
        """``scale * B_l.T B_l`` (out, out), without weight decay."""
        return _in(self.dtype, self._factors.output_gram(self.layer, self.layer))

    @property
    def input_factor(self) -> Array:
        """``A_l X.T X A_l.T`` (in, in); with a selected bias (in+1, in+1), the constant input last."""
        gram = self._factors.input_gram(self.layer, self.layer)
        return _in(self.dtype, Scaled(gram.matrix[self._inner, self._inner], gram.exponent))

    @property
    def _inner(self) -> slice:
        return inner_indices(self.parts[0], self._net.weights[self.layer].shape[1])

    def _eigenbasis(self, *, lift: bool) -> Eigenbasis:
        if lift not in self._bases:
            outputs, scale = len(self._net.weights[self.layer]), self._loss.scale
            self._errors.decomposed = self._factors
            top, inputs = self._factors.jacobian(self.layer, self._inner)
            outer = IdentityBasis(outputs, scale) if top is None else FactorBasis(top, scale, lift=lift)
            order = interleaved(inputs.shape[1], outputs, self.parts[0]) if self.parts[0].bias else None
            self._bases[lift] = KroneckerBasis(outer, FactorBasis(inputs, 1.0, lift=lift), order)
        return self._bases[lift]

    def _few_pairs(self, k: int, which: Which, *, sure: bool) -> FewPairs | None:
        del k, which, sure
        return None  # all are cheap

    @property
    def reduction(self) -> str:
        """What the eigenproblem consists of, in one line."""
        outputs = len(self._net.weights[self.layer])
        return f"{self.shape[0]} parameters to two factors of size {outputs} and {self.shape[0] // outputs}"

    @property
    def predicted_rank(self) -> int:
        """A bound on the exact rank, from the shapes alone."""
        return self.shape[0] - structural_zeros(self._factors, self.parts, self._mode)

    @property
    def _of_squares(self) -> bool:
        return True

    def _zero_below(self, basis: Eigenbasis, tolerance: float) -> float:
        unit = basis.dense_size * float(np.finfo(self.dtype).eps)
        return max(tolerance, unit**2 * basis.groups.max)

    def condition(self) -> Condition:
        """Return the condition number with its rank, tolerance, gap and uncertainty; see `Condition`.

        It comes from the singular values of the factors: O(out·in²), independent of the number of samples and of P².
        Samples of very different scales are read again (`hesskern.curvature.layer_condition`).
        """
        return layer_condition(self._point, self.parts[0], self._shift)


def _in(dtype: np.dtype[Any], scaled: Scaled) -> Array:
    """Return the matrix in this dtype; OverflowError if it does not fit."""
    with np.errstate(over="ignore"):
        matrix: Array = scaled.value.astype(dtype)
    if not np.isfinite(matrix).all():
        raise too_large(dtype)
    return matrix


def hessian_of(objective: Objective, net: LinearNetwork, parts: Sequence[Part], mode: Mode = "full") -> Hessian:
    """Return the Hessian of an objective, or a part of it, with respect to these parameters of a network."""
    return _of_parts(Point(objective, net), parts, mode)


def _of_parts(point: Point, parts: Sequence[Part], mode: Mode) -> Hessian:
    """Return the operator of these parameters: a Kronecker product where they belong to one layer."""
    if len(parts) == 1 and mode != "functional":
        return KroneckerHessian(point, parts, mode)
    return Hessian(point, parts, mode)
