r"""The Hessian of one layer: a Kronecker product that is never formed unless asked for.

For layer l of ``P = W_L ... W_1`` with ``A_l = W_{l-1} ... W_1`` and ``B_l = W_L ... W_{l+1}``, and samples in the
rows of X:

    ``H_ll = scale * (B_l.T B_l) ⊗ (A_l X.T X A_l.T) + weight_decay * I``

in PyTorch's row-major order of ``W_l (m_l, m_{l-1})``: output factor ⊗ input factor. (Papers that stack columns have
the factors the other way round: the same spectrum, another matrix.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._array import Array
from hesskern.assembly import inner_indices, interleaved
from hesskern.backends.protocol import ProductSvd
from hesskern.basis import Eigenbasis, FactorBasis, IdentityBasis, KroneckerBasis
from hesskern.condition import Condition, undefined
from hesskern.hessian import Hessian
from hesskern.powers import Scaled, too_large


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
            top, inputs = self._factors.jacobian(self.layer, self._inner)
            outer = IdentityBasis(outputs, scale) if top is None else FactorBasis(top, scale, lift=lift)
            order = interleaved(inputs.shape[1], outputs, self.parts[0]) if self.parts[0].bias else None
            self._bases[lift] = KroneckerBasis(outer, FactorBasis(inputs, 1.0, lift=lift), order)
        return self._bases[lift]

    def _tolerances(self, basis: Eigenbasis) -> tuple[float, float]:
        unit = basis.dense_size * float(np.finfo(np.float64).eps)
        return unit**2 * basis.groups.max, unit * basis.groups.max

    def _zero_below(self, basis: Eigenbasis) -> float:
        unit = basis.dense_size * float(np.finfo(self.dtype).eps)
        return unit**2 * basis.groups.max

    def condition(self) -> Condition:
        """Return the condition number with its rank, tolerance, gap and uncertainty; see `Condition`.

        Taken from singular values of the factors, never from the dense matrix or from ``X.T X``: squaring loses half of
        the digits, and the product ``X W_1.T ...`` itself is not formed (product SVD after Drmač 1998). O(out·in²),
        independent of the number of samples and of P².
        """
        scale, shift, size = self._loss.scale, self._shift, self.shape[0]
        outputs = len(self._net.weights[self.layer])
        epsilon = float(np.finfo(self.dtype).eps)
        below, above = self._input_chain(), self._net.weights[self.layer + 1 :]
        tolerance = max(self._loss.num_samples, *self._net.widths) * epsilon
        rotated = len(self._data.X) < self._loss.num_samples
        into = self._backend.product_svd(below[0], below[1:], tolerance, rotated=rotated)
        out_of = (
            self._backend.product_svd(
                _float64(above[0]).T, [_float64(weight) for weight in above[1:]], tolerance, rotated=False
            )
            if above
            else ProductSvd(np.ones(outputs), outputs, 1.0, 0.0, 0.0)
        )
        rank = into.rank * out_of.rank
        if rank == 0 and not shift:
            return undefined(size, tolerance)
        largest, smallest, value = shift, shift, 1.0
        if rank:
            top, bottom = float(into.values[0]), float(into.values[into.rank - 1])
            outer_top, outer_bottom = float(out_of.values[0]), float(out_of.values[out_of.rank - 1])
            # Python's power raises where a product is infinite.
            largest += scale * (top * outer_top) * (top * outer_top)
            if rank == size or not shift:
                smallest += scale * (bottom * outer_bottom) * (bottom * outer_bottom)
            # The squares may overflow or vanish where their ratio does not.
            plain = smallest > 0 and largest < np.inf
            value = largest / smallest if plain else ((top / bottom) * (outer_top / outer_bottom)) ** 2
        dropped = max(into.dropped, out_of.dropped)
        return Condition(
            value=value,
            largest=largest,
            smallest=smallest,
            rank=size if shift else rank,
            size=size,
            tolerance=tolerance,
            gap=min(into.kept, out_of.kept) / dropped if dropped else np.inf,
            uncertainty=4.0 * epsilon * (into.amplification + out_of.amplification),
        )

    def _input_chain(self) -> list[NDArray[np.float64]]:
        """Return X and weights whose product ``X W_1.T ... W_{l-1}.T`` is the input of this layer, biases included."""
        net, part, data = self._net, self.parts[0], self._data
        if not net.has_bias:
            return [_float64(factor) for factor in (data.X, *net.weights[: self.layer])]
        chain: list[Array] = [np.column_stack([data.X, data.column])]
        for weight, bias in zip(net.weights[: self.layer], net.biases[: self.layer], strict=True):
            constant = np.zeros((1, weight.shape[1] + 1))
            constant[0, -1] = 1.0
            column = np.zeros(len(weight)) if bias is None else bias
            chain.append(np.vstack([np.column_stack([weight, column]), constant]))
        inner = inner_indices(part, net.weights[self.layer].shape[1])
        chain[-1] = chain[-1][inner] if self.layer > 0 else chain[-1][:, inner]
        return [_float64(factor) for factor in chain]


def _in(dtype: np.dtype[Any], scaled: Scaled) -> Array:
    """Return the matrix in this dtype; OverflowError if it does not fit."""
    with np.errstate(over="ignore"):
        found: Array = scaled.value.astype(dtype)
    if not np.isfinite(found).all():
        raise too_large(dtype)
    return found


def _float64(array: Array) -> NDArray[np.float64]:
    return np.ascontiguousarray(array, dtype=np.float64)
