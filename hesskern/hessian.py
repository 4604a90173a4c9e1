"""The Hessian of a squared loss with respect to any parameters of a linear network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hesskern import checks, devices, memory
from hesskern._array import Array
from hesskern._cached import cached_property
from hesskern.assembly import grid, inner_indices
from hesskern.backends.protocol import Block, HessianProduct, Layers, Side
from hesskern.basis import DenseBasis, Eigenbasis, ValuesOnly, WidthBasis
from hesskern.condition import Condition, of_squares
from hesskern.factors import Factors, Mode
from hesskern.gauss_newton import gauss_newton_basis
from hesskern.network import LinearNetwork
from hesskern.operator import CurvatureOperator, dense_target
from hesskern.problem import Data
from hesskern.selection import Part, part_size, positions
from hesskern.width import PlainLayers, WidthReduction, reducible
from hesskern.wording import parts_in_words, setting

if TYPE_CHECKING:
    from hesskern.cross import CrossBlock
    from hesskern.loss import SquaredLoss

#: What an operator of each mode is called.
KINDS: dict[Mode, str] = {"full": "Hessian", "gauss_newton": "Gauss-Newton part", "functional": "functional part"}


class Hessian(CurvatureOperator):
    """Hessian with respect to the selected parameters, as an operator; made by ``loss.hessian(net, params)``.

    ``H = gauss_newton() + functional() + weight_decay * I``, of shape (P, P), in `named_parameters()` order. Nothing of
    size P x P and nothing that grows with the number of samples is kept: the data are reduced once, and products,
    eigenvalues and solutions come from small matrices.

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

    #: What its repr says before "Hessian".
    _form = ""

    def __init__(self, loss: SquaredLoss, net: LinearNetwork, parts: Sequence[Part], mode: Mode = "full") -> None:
        self._loss, self._net, self._mode = loss, net, mode
        self.parts = tuple(parts)
        self._backend = loss.kernels
        self._data = loss.data(bias=net.has_bias, reduced=True)
        self._shift = loss.weight_decay if mode == "full" else 0.0
        size = sum(part_size(net, part) for part in parts)
        super().__init__(np.dtype(net.dtype), (size, size))

    # Parts and blocks -------------------------------------------------------------------------------------------------

    def gauss_newton(self) -> Hessian:
        """Return the Gauss-Newton part ``J.T J``, positive semidefinite, without weight decay."""
        return made(self._loss, self._net, self.parts, "gauss_newton")

    def functional(self) -> Hessian:
        """Return the functional part: second derivatives of the network, weighted by the residual; zero at G = 0."""
        return Hessian(self._loss, self._net, self.parts, "functional")

    def block(self, row: int, column: int) -> Hessian | CrossBlock:
        """Return the block of two layers' selected parameters, rows first, as an operator.

        A diagonal block is a Kronecker operator; a cross block is rectangular.
        """
        from hesskern.cross import CrossBlock  # noqa: PLC0415 - it uses this class

        found = {part.layer: part for part in self.parts}
        for name, layer in (("row", row), ("column", column)):
            if checks.integer(layer, name, 0) not in found:
                raise ValueError(f"{name} is layer {layer}; this Hessian is over the layers {sorted(found)}.")
        if row == column:
            return made(self._loss, self._net, (found[row],), self._mode)
        return CrossBlock(self._loss, self._net, found[row], found[column], self._mode)

    # Products ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _positions(self) -> NDArray[np.intp] | None:
        return positions(self._net, self.parts)

    @cached_property
    def _products(self) -> dict[np.dtype[Any], HessianProduct]:
        return {}

    def _product(self, dtype: np.dtype[Any]) -> HessianProduct:
        """Return the products in this precision; float64 vectors are not rounded for a float32 network."""
        if dtype not in self._products:
            net: Layers = self._net
            data = self._data
            if dtype != self.dtype:
                net = PlainLayers(
                    tuple(weight.astype(dtype) for weight in net.weights),
                    tuple(None if bias is None else bias.astype(dtype) for bias in net.biases),
                )
                data = Data(data.X.astype(dtype), data.column.astype(dtype), data.Y.astype(dtype), data.constant)
            self._products[dtype] = self._backend.hessian_product(
                net,
                data,
                scale=self._loss.scale,
                decay=self._shift,
                gauss_newton=self._mode != "functional",
                functional=self._mode != "gauss_newton",
            )
        return self._products[dtype]

    def _apply(self, V: Array) -> Array:
        product = self._products.get(V.dtype) or self._product(V.dtype)
        if self._positions is None:
            out = np.empty_like(V)
            product.apply(V, out)
            return out
        full = np.zeros((self._net.num_parameters, *V.shape[1:]), V.dtype)
        full[self._positions] = V
        out = np.empty_like(full)
        product.apply(full, out)
        return np.ascontiguousarray(out[self._positions])

    # Dense ------------------------------------------------------------------------------------------------------------

    @cached_property
    def _factors(self) -> Factors:
        return Factors(self._net, self._data, self._loss.scale)

    @cached_property
    def _blocks(self) -> dict[str, tuple[list[Side], list[Block]]]:
        return {}

    def toarray(self, out: Array | None = None, vec: str = "row") -> Array:
        """Return the dense matrix (P, P), symmetric to the bit. Each entry is written once, O(P²).

        Parameters
        ----------
        out : (P, P) array, optional
            C-contiguous array of the network's dtype to write into (a ``numpy.memmap`` for one larger than memory).
        vec : {"row", "column"}
            How each weight becomes a vector: "row", row after row, as PyTorch flattens; "column", column after column,
            as papers write vec. The order of the layers, and biases after weights, stay.

        Raises
        ------
        MemoryError
            If a new array would not fit in the memory that is free; the message says how much it takes.
        TypeError, ValueError
            If `out` has another shape, dtype or layout.
        """
        checks.one_of(vec, "vec", ("row", "column"))
        out = dense_target(out, self.shape, self.dtype, f"Hessian of {parts_in_words(self._net, self.parts)}")
        if vec not in self._blocks:
            self._blocks[vec] = grid(self._factors, self.parts, self.parts, self._mode, vec, self.dtype)[1:]
        sides, blocks = self._blocks[vec]
        self._backend.assemble(sides, sides, blocks, out)
        if self._shift:
            out.reshape(-1)[:: self.shape[0] + 1] += self.dtype.type(self._shift)
        return out

    def diagonal(self) -> Array:
        """Return the diagonal (P,), exact, from the factors."""
        pieces: list[Array] = []
        for part in self.parts:
            outputs, inputs = self._net.weights[part.layer].shape
            products = np.zeros((outputs, inputs + self._net.has_bias))
            if self._mode != "functional":
                inputs_of = self._factors.inputs[part.layer]
                products = np.outer(
                    self._factors.output_diagonal(part.layer), np.einsum("nq,nq->q", inputs_of, inputs_of)
                )
            if part.weight:
                pieces.append(products[:, :inputs].ravel())
            if part.bias:
                pieces.append(products[:, inputs])
        return (np.concatenate(pieces) + self._shift).astype(self.dtype)

    def trace(self) -> float:
        """Return the trace, exact, from the factors."""
        total = self._shift * self.shape[0]
        if self._mode == "functional":
            return total
        for part in self.parts:
            inputs = self._factors.inputs[part.layer][:, inner_indices(part, self._net.weights[part.layer].shape[1])]
            top = self._factors.above[part.layer]
            outer = float(len(self._net.weights[part.layer])) if top is None else float(np.vdot(top, top))
            total += self._loss.scale * outer * float(np.vdot(inputs, inputs))
        return total

    # Eigenvalues ------------------------------------------------------------------------------------------------------

    @cached_property
    def _bases(self) -> dict[bool, Eigenbasis]:
        return {}

    def _eigenbasis(self, *, lift: bool) -> Eigenbasis:
        if lift not in self._bases:
            factors = self._factors
            net = PlainLayers(tuple(factors.weights), tuple(factors.biases))
            self._bases[lift] = self._reduced_basis(net, lift=lift)
        return self._bases[lift]

    def _reduced_basis(self, net: PlainLayers, *, lift: bool) -> Eigenbasis:
        layer = reducible(net)
        if layer is None:
            return self._dense_basis(net, lift=lift)
        reduction = WidthReduction(net, layer, {part.layer: part for part in self.parts})
        small = reduction.reduced(self._backend, lift=lift)
        factors = Factors(small, self._data, self._loss.scale)
        coupling = reduction.coupling(factors, zero=self._mode == "gauss_newton")
        return WidthBasis(reduction, small, coupling, self._reduced_basis(small, lift=lift), self.parts)

    def _dense_basis(self, net: PlainLayers, *, lift: bool) -> Eigenbasis:
        factors = Factors(net, self._data, self._loss.scale)
        if self._mode == "gauss_newton":
            return gauss_newton_basis(factors, self.parts, lift=lift)
        _, sides, blocks = grid(factors, self.parts, self.parts, self._mode, "row", np.dtype(np.float64))
        size = sum(side.outer * (side.inner + side.bias) for side in sides)
        memory.require(
            (4 if lift else 2) * 8 * size * size,
            f"the eigenproblem of size {size} that is left after all reductions",
            "use scipy.sparse.linalg.eigsh(H, k) for a few eigenvalues.",
        )
        dense = np.empty((size, size))
        self._backend.assemble(sides, sides, blocks, dense)
        if lift:
            return DenseBasis(*np.linalg.eigh(dense))
        return ValuesOnly(np.linalg.eigvalsh(dense).astype(np.float64, copy=False))

    def _tolerances(self, basis: Eigenbasis) -> tuple[float, float]:
        epsilon = float(np.finfo(self.dtype).eps)
        largest = float(np.abs(basis.groups.values).max(initial=0.0))
        unit = basis.dense_size * epsilon
        if self._mode == "gauss_newton":  # decided on singular values, of which these are the squares
            return unit**2 * largest, unit * largest
        return max(unit * largest, self._residual_noise(epsilon)), unit * largest

    def condition(self) -> Condition:
        """Return the condition number with rank, tolerance, gap and uncertainty; see `CurvatureOperator.condition`."""
        found = super().condition()
        if self._mode != "gauss_newton":
            return found
        return of_squares(found, self._eigenbasis(lift=False).dense_size * float(np.finfo(self.dtype).eps))

    def _residual_noise(self, epsilon: float) -> float:
        """Return the rounding error of the functional part, all there is of it at interpolation."""
        noise = 0.0
        layers = [part.layer for part in self.parts]
        for at, lower in enumerate(layers):
            for upper in layers[at + 1 :]:
                middle = self._factors.between(lower, upper)
                reach = 1.0 if middle is None else float(np.linalg.norm(middle))
                noise = max(noise, reach * self._factors.residual_noise(upper, lower, epsilon))
        return noise

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._loss, self._net, self.parts, self._mode, self._backend.name, self._data)

    def __repr__(self) -> str:
        what = f"{self._form}{KINDS[self._mode]} of {parts_in_words(self._net, self.parts)}"
        return f"<{self.shape[0]}x{self.shape[1]} {what} {setting(self._loss, self._net)}>"


def made(loss: SquaredLoss, net: LinearNetwork, parts: Sequence[Part], mode: Mode) -> Hessian:
    """Return the operator of these parameters: a Kronecker product where they belong to one layer."""
    from hesskern.kronecker import KroneckerHessian  # noqa: PLC0415 - it derives from this class

    if len(parts) == 1 and mode != "functional":
        return KroneckerHessian(loss, net, parts, mode)
    return Hessian(loss, net, parts, mode)


def _again(
    loss: SquaredLoss, net: LinearNetwork, parts: Sequence[Part], mode: Mode, backend: str, data: Data
) -> Hessian:
    """Return the operator of a pickle: with the samples as they were reduced, and all caches empty."""
    loss.remember(Data(*map(devices.unwrapped, data)), bias=net.has_bias, backend=backend)
    return made(loss, net, parts, mode)
