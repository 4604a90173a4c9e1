r"""Kronecker factors of the Gauss-Newton matrix of a linear network: K-FAC, which for these networks is exact.

With ``A_l = W_{l-1} ... W_1``, ``B_l = W_L ... W_{l+1}`` and inputs ``z_n = A_l x_n`` (a last entry 1 for the bias),
the Gauss-Newton block of layers l and m is

    ``(scale N B_l.T B_m) ⊗ (1/N Σ_n z_n^l z_n^m.T)``,

since the Hessian of a squared loss with respect to the prediction is ``scale * I`` for every sample. K-FAC approximates
the expectation of a Kronecker product by the product of expectations. Here one of the two factors does not depend on
the sample, so this is exact.

The convention is the same as in curvlinops: the input factor is an average over the samples, and the output factor
holds the remaining scale: N for a summed loss, nothing for an averaged one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from hesskern._base import checks, decompositions
from hesskern._base.array_types import Array, Matrix
from hesskern.curvature.dense_blocks import inner_indices, interleaved
from hesskern.curvature.hessian import hessian_of
from hesskern.curvature.layer_factors import Factors
from hesskern.curvature.objective import Objective
from hesskern.linalg.condition import Condition, of_squares
from hesskern.linalg.eigenbasis import Eigenbasis
from hesskern.linalg.spectrum import Spectrum
from hesskern.linalg.symmetric_operator import CurvatureOperator, dense_target
from hesskern.network.linear_network import LinearNetwork
from hesskern.network.parameters import Part, part_size, select

DAMPINGS = ("exact", "factored", "heuristic")
#: What curvlinops adds to a factor at least, by its heuristic.
_LEAST_DAMPING = 1e-8


class KroneckerFactors(NamedTuple):
    """A block as ``output ⊗ input``, row-major; between two layers both may be rectangular."""

    output: Array
    input: Array


class KFAC(CurvatureOperator):
    """K-FAC of a linear network: the diagonal blocks of the Gauss-Newton matrix, as an operator.

    For linear networks with squared loss K-FAC equals these blocks. curvlinops computes the same with
    ``KFACLinearOperator(..., fisher_type="type-2", kfac_approx="expand")``. Its types "mc" and "empirical" use random
    or observed residuals; this class has no exact value for them. Weight decay is not included.

    Shape (P, P), in `named_parameters()` order. Products, the matrix, spectra, condition numbers, ranks, solutions and
    determinants come from the factors, block by block. Their cost does not grow with the number of samples.

    Parameters
    ----------
    net : LinearNetwork
    loss : SquaredLoss
        On the CPU.
    params : sequence of int or str, optional
        As in ``loss.hessian``; default: all.
    separate_bias : bool
        Whether a layer's weight and bias are two blocks (``separate_weight_and_bias`` of curvlinops, where it is the
        default) or one.

    Raises
    ------
    TypeError, ValueError
        If the network does not fit the data, or `params` names a parameter that it does not have.

    Notes
    -----
    Martens and Grosse (2015), "Optimizing neural networks with Kronecker-factored approximate curvature". Bernacchia,
    Lengyel and Hennequin (2018), "Exact natural gradient in deep linear networks", show that it is exact for linear
    networks with squared loss.

    Examples
    --------
    >>> import numpy as np, hesskern as hk
    >>> net = hk.LinearNetwork([np.array([[1.0, 2.0]]), np.array([[3.0]])])
    >>> loss = hk.SquaredLoss(np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([[8.0], [0.0]]), kind="mean")
    >>> kfac = hk.KFAC(net, loss)
    >>> kfac.output_factors[0], kfac.input_factors[0]
    (array([[18.]]), array([[1., 0.],
           [0., 1.]]))
    >>> kfac.toarray()
    array([[18.,  0.,  0.],
           [ 0., 18.,  0.],
           [ 0.,  0., 10.]])
    >>> kfac.solve(loss.gradient(net))  # the natural gradient
    array([-0.33333333,  0.66666667,  0.6       ])
    """

    _shift = 0.0

    def __init__(
        self,
        net: LinearNetwork,
        loss: Objective,
        params: Sequence[int | str] | None = None,
        *,
        separate_bias: bool = False,
    ) -> None:
        if not isinstance(loss, Objective):
            raise TypeError(f"loss is a {type(loss).__name__}; expected a hesskern.SquaredLoss.")
        loss.check_network(net, on_cpu="KFAC")
        self._net, self._loss, self._params = net, loss, params
        self.separate_bias = checks.boolean(separate_bias, "separate_bias")
        chosen = select(net, params)
        if self.separate_bias:
            chosen = tuple(
                piece
                for part in chosen
                for piece in (part._replace(bias=False), part._replace(weight=False))
                if piece.weight or piece.bias
            )
        #: What each block is taken with respect to.
        self.parts: tuple[Part, ...] = chosen
        #: The blocks as operators of their own.
        self.blocks = tuple(hessian_of(loss, net, (part,), "gauss_newton") for part in chosen)
        self._factors = Factors(net, loss.reduction(bias=net.has_bias), loss.scale)
        sizes = [part_size(net, part) for part in chosen]
        self._ends = np.cumsum(sizes)[:-1]
        super().__init__(np.dtype(net.dtype), (sum(sizes), sum(sizes)))

    # Factors ----------------------------------------------------------------------------------------------------------

    @property
    def output_factors(self) -> tuple[Array, ...]:
        """``scale N B_l.T B_l`` (out, out) for each block; curvlinops calls it gradient covariance."""
        return tuple(self.factors(k, k).output for k in range(len(self.parts)))

    @property
    def input_factors(self) -> tuple[Array, ...]:
        """Average of ``z z.T`` over the samples, for each block; of a bias alone ``[[1.]]``."""
        return tuple(self.factors(k, k).input for k in range(len(self.parts)))

    def factors(self, row: int, column: int) -> KroneckerFactors:
        """Return the exact Kronecker factors of a block of the Gauss-Newton matrix, rows first.

        K-FAC leaves out the blocks off the diagonal; its block-tridiagonal variant estimates them.

        Parameters
        ----------
        row, column : int
            Number of the block in `parts`.

        Returns
        -------
        KroneckerFactors
            ``output`` (out of the row's layer, out of the column's), ``input`` likewise; their Kronecker product is
            the block, the constant input last in `input`.
        """
        for name, number in (("row", row), ("column", column)):
            if checks.integer(number, name, 0) >= len(self.parts):
                raise ValueError(f"{name} is {number}; blocks are counted from 0 to {len(self.parts) - 1}.")
        upper, lower, samples = self.parts[row], self.parts[column], self._loss.num_samples
        gram = self._factors.input_gram(upper.layer, lower.layer).value[self._inner(upper), self._inner(lower)]
        output = self._factors.output_gram(upper.layer, lower.layer).value * samples
        return KroneckerFactors(output.astype(self.dtype), (gram / samples).astype(self.dtype))

    def _inner(self, part: Part) -> slice:
        return inner_indices(part, self._net.weights[part.layer].shape[1])

    # The operator -----------------------------------------------------------------------------------------------------

    def _apply(self, V: Array) -> Array:
        pieces = np.split(V, self._ends)
        return np.concatenate([block @ piece for block, piece in zip(self.blocks, pieces, strict=True)])

    def toarray(self, out: Array | None = None) -> Array:
        """Return the dense block-diagonal matrix (P, P), into `out` if it is given; see `Hessian.toarray`."""
        out = dense_target(out, self.shape, self.dtype, "K-FAC matrix")
        out[...] = block_diag(*(block.toarray() for block in self.blocks))
        return out

    def diagonal(self) -> Array:
        """Return the diagonal (P,), exact, from the factors."""
        return np.concatenate([block.diagonal() for block in self.blocks])

    def trace(self) -> float:
        """Return the trace, exact, from the factors."""
        return sum(block.trace() for block in self.blocks)

    def _eigenbasis(self, *, lift: bool) -> Eigenbasis:
        return _BlockBasis([block._eigenbasis(lift=lift) for block in self.blocks], self._ends)

    def _tolerances(self, basis: Eigenbasis) -> tuple[float, float]:
        bounds = [block._tolerances(block._eigenbasis(lift=False)) for block in self.blocks]
        return max(least for least, _ in bounds), max(error for _, error in bounds)

    def _zero_below(self, basis: Eigenbasis, tolerance: float) -> float:
        unit = basis.dense_size * float(np.finfo(self.dtype).eps)
        return max(self._tolerances(basis)[0], unit**2 * basis.groups.max)

    def condition(self) -> Condition:
        """Return the condition number of all blocks together; see `CurvatureOperator.condition`.

        The condition number of a single block is more precise: ``blocks[k].condition()``.
        """
        basis = self._eigenbasis(lift=False)
        unit = basis.dense_size * float(np.finfo(self.dtype).eps)
        error = self._tolerances(basis)[1] / (basis.groups.max or 1.0)
        return of_squares(super().condition(), max(unit, error))

    # Natural gradient -------------------------------------------------------------------------------------------------

    def solve(self, b: Array, damping: float = 0.0, *, rcond: float | None = None, how: str = "exact") -> Array:
        """Return x with ``(K + damping I) x = b``: for a gradient b the natural-gradient step.

        Parameters
        ----------
        b : (P,) or (P, k) array
        damping : float, >= 0
        rcond : float, optional
            As in `Hessian.solve`; with ``how="exact"`` only.
        how : {"exact", "factored", "heuristic"}
            How damping enters. "exact": added to the block, in its factors' eigenbasis (``use_exact_damping`` of
            curvlinops). "factored": added to both factors of each block, curvlinops' default. This is a different
            matrix; the difference from "exact" grows with damping. "heuristic": likewise, in the proportion of Martens
            and Grosse (2015), section 6.3, each at least 1e-8 (``use_heuristic_damping``).

        Raises
        ------
        numpy.linalg.LinAlgError
            If the matrix is numerically singular and `rcond` is not given.

        Notes
        -----
        For the natural gradient of all layers together use ``loss.hessian(net).gauss_newton().solve(b, damping)``.
        """
        if checks.one_of(how, "how", DAMPINGS) == "exact":
            return super().solve(b, damping, rcond=rcond)
        if rcond is not None:
            raise ValueError(f"rcond is {rcond!r} with how={how!r}; expected None: it belongs to how='exact'.")
        rhs = self._right_hand_side(b)
        added = checks.non_negative(damping, "damping")
        pieces = np.split(rhs.reshape(len(rhs), -1).astype(np.float64), self._ends)
        solutions = [self._divided(k, piece, added, how) for k, piece in enumerate(pieces)]
        return np.ascontiguousarray(np.concatenate(solutions).reshape(rhs.shape), dtype=rhs.dtype)

    def _divided(self, number: int, columns: Matrix, damping: float, how: str) -> Matrix:
        """Return the solution of one block for the columns, with damped factors."""
        part, samples = self.parts[number], self._loss.num_samples
        output = self._factors.output_gram(part.layer, part.layer).value * samples
        everything = self._factors.input_gram(part.layer, part.layer).value / samples
        inputs = everything[self._inner(part), self._inner(part)]
        damped = inputs if part.weight else None
        if damped is None and Part(part.layer, weight=True, bias=False) in self.parts:
            damped = everything[:-1, :-1]  # a bias of its own is divided by the output factor, damped as for the weight
        input_damping, output_damping = (damping, damping) if how == "factored" else _heuristic(damped, output, damping)
        order = interleaved(len(inputs), len(output), part)
        kronecker = np.empty_like(columns)
        kronecker[order] = columns
        cube = kronecker.reshape(len(output), len(inputs), -1)
        cube = self._solved(output, output_damping, cube.reshape(len(output), -1), part.layer).reshape(cube.shape)
        if part.weight:  # the input factor of a bias alone is 1 and takes no damping
            turned = cube.transpose(1, 0, 2)
            solved = self._solved(inputs, input_damping, turned.reshape(len(inputs), -1), part.layer)
            cube = solved.reshape(turned.shape).transpose(1, 0, 2)
        solution: Matrix = cube.reshape(columns.shape)[order]
        return solution

    def _solved(self, factor: Matrix, damping: float, columns: Matrix, layer: int) -> Matrix:
        values, vectors = decompositions.eigh(factor)
        values = values + damping
        if values[0] <= len(values) * float(np.finfo(self.dtype).eps) * values[-1]:
            raise np.linalg.LinAlgError(
                f"a factor of layer {layer} is singular with damping {damping:g}; pass damping > 0, or how='exact' "
                "with rcond=0.0 for the least-norm solution."
            )
        solution: Matrix = vectors @ ((vectors.T @ columns) / values[:, None])
        return solution

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._net, self._loss, self._params, self.separate_bias)

    def __repr__(self) -> str:
        return f"<{self.shape[0]}x{self.shape[1]} K-FAC of {len(self.blocks)} blocks with dtype={self.dtype}>"


def _unpickled(net: LinearNetwork, loss: Objective, params: Sequence[int | str] | None, separate_bias: bool) -> KFAC:
    return KFAC(net, loss, params, separate_bias=separate_bias)


def _heuristic(inputs: Matrix | None, output: Matrix, damping: float) -> tuple[float, float]:
    """Return the damping of the input and of the output factor, in proportion to the means of their eigenvalues."""
    mean_in = 0.0 if inputs is None else float(np.trace(inputs)) / len(inputs)
    mean_out = float(np.trace(output)) / len(output)
    if mean_in <= 0 or mean_out <= 0:
        return damping, damping
    ratio, root = math.sqrt(mean_in / mean_out), math.sqrt(damping)
    return max(root * ratio, _LEAST_DAMPING), max(root / ratio, _LEAST_DAMPING)


class _BlockBasis:
    """Of a block-diagonal matrix, from the bases of its blocks."""

    def __init__(self, bases: Sequence[Eigenbasis], ends: NDArray[np.intp]) -> None:
        self._bases, self._ends = bases, ends
        self.dense_size = max(basis.dense_size for basis in bases)
        self.structural_zeros = sum(basis.structural_zeros for basis in bases)

    @property
    def groups(self) -> Spectrum:
        spectra = [basis.groups for basis in self._bases]
        return Spectrum._of(
            np.concatenate([spectrum.values for spectrum in spectra]),
            np.concatenate([spectrum.multiplicities for spectrum in spectra]),
        )

    @property
    def values(self) -> NDArray[np.float64]:
        return np.concatenate([basis.values for basis in self._bases])

    def coordinates(self, columns: Matrix) -> Matrix:
        pieces = np.split(columns, self._ends)
        return np.concatenate([basis.coordinates(piece) for basis, piece in zip(self._bases, pieces, strict=True)])

    def vectors(self, columns: Matrix) -> Matrix:
        pieces = np.split(columns, self._ends)
        return np.concatenate([basis.vectors(piece) for basis, piece in zip(self._bases, pieces, strict=True)])
