r"""The Hessian of one layer: a Kronecker product that is never formed unless asked for.

For layer l of ``P = W_L ... W_1`` with ``A_l = W_{l-1} ... W_1`` and ``B_l = W_L ... W_{l+1}``, samples in the rows of X:

    ``H_ll = scale * (B_l.T B_l) ⊗ (A_l X.T X A_l.T) + weight_decay * I``

in PyTorch's row-major order of ``W_l (m_l, m_{l-1})``: output factor ⊗ input factor. (Papers that stack columns have the
factors the other way round: the same spectrum, another matrix.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from hesskern import backends, checks, memory
from hesskern._array import Array
from hesskern.backends.protocol import ProductSvd
from hesskern.condition import Condition, undefined
from hesskern.network import LinearNetwork

if TYPE_CHECKING:
    from hesskern.loss import SquaredLoss


def selected_layer(net: LinearNetwork, params: Sequence[int | str] | None) -> int:
    """Return the one layer that `params` names, by number or by the names of all its parameters."""
    if params is None:
        params = list(range(net.depth))
    if isinstance(params, str) or not isinstance(params, Sequence):
        raise TypeError(f"params is {params!r}; expected a list of layer numbers or parameter names, for instance [1].")
    layers: set[int] = set()
    names: set[str] = set()
    for given in params:
        if isinstance(given, str):
            if given not in net.parameter_names:
                raise ValueError(f"params holds {given!r}; the network has {', '.join(net.parameter_names)}.")
            names.add(given)
            layers.add(int(given.split(".")[0]))
        else:
            number = checks.integer(given, "params", 0)
            if number >= net.depth:
                raise ValueError(f"params holds layer {number}; layers are counted from 0 to {net.depth - 1}.")
            layers.add(number)
            names |= {name for name in net.parameter_names if name.startswith(f"{number}.")}
    if len(layers) != 1:
        raise ValueError(
            f"params names {len(layers)} layers ({sorted(layers)}); expected exactly one, for instance params=[1]."
        )
    (layer,) = layers
    missing = {name for name in net.parameter_names if name.startswith(f"{layer}.")} - names
    if missing:
        raise ValueError(f"params leaves out {', '.join(sorted(missing))}; expected all parameters of a layer.")
    return layer


class KroneckerHessian(LinearOperator):
    """Hessian of a squared loss with respect to the parameters of one layer.

    Made by ``loss.hessian(net, params=[layer])``. A SciPy ``LinearOperator`` of shape (P, P), P = out·in (+ out with a
    bias), in the order of the layer's weight (row-major), then its bias.

    Attributes
    ----------
    layer : int
        Which layer, counted from 0.

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

    def __init__(self, loss: SquaredLoss, net: LinearNetwork, layer: int) -> None:
        self._backend = backends.get(loss.backend)
        self._net = net
        self.layer = layer
        self._scale = loss.scale
        self._decay = loss.weight_decay
        self._data = loss.data(bias=net.has_bias, reduced=True)
        self._samples = len(loss.X)
        self._has_bias = net.biases[layer] is not None
        outputs, inputs = net.weights[layer].shape
        size = outputs * (inputs + self._has_bias)
        super().__init__(np.dtype(net.dtype), (size, size))

    @cached_property
    def output_factor(self) -> Array:
        """``scale * B_l.T B_l`` (out, out), without weight decay."""
        outputs = self._net.weights[self.layer].shape[0]
        above = self._net.weights[self.layer + 1 :]
        if not above:
            return np.eye(outputs, dtype=self.dtype) * self.dtype.type(self._scale)
        product = above[0]
        for weight in above[1:]:
            product = weight @ product
        return (product.T @ product) * self.dtype.type(self._scale)

    @cached_property
    def input_factor(self) -> Array:
        """``A_l X.T X A_l.T`` (in, in); with a bias in this layer (in+1, in+1), the constant input last."""
        activation = self._data.X
        for weight, bias in zip(self._net.weights[: self.layer], self._net.biases[: self.layer], strict=True):
            activation = activation @ weight.T
            if bias is not None:
                activation = activation + np.outer(self._data.column, bias)
        if self._has_bias:
            activation = np.column_stack([activation, self._data.column])
        return activation.T @ activation

    def toarray(self, out: Array | None = None) -> Array:
        """Return the dense Hessian (P, P), symmetric to the bit. O(P²), each entry written once.

        Parameters
        ----------
        out : (P, P) array, optional
            C-contiguous array of the network's dtype to write into, returned.

        Raises
        ------
        MemoryError
            If a new array would not fit in the memory that is free.
        TypeError, ValueError
            If `out` has another shape, dtype or layout.
        """
        if out is None:
            memory.require(
                self.shape[0] ** 2 * self.dtype.itemsize,
                f"the dense {self.shape[0]} x {self.shape[0]} Hessian of layer {self.layer}",
                "use the operator itself (H @ v, H.cond(), H.rank()), which needs its two small factors only.",
            )
            out = np.empty(self.shape, self.dtype)
        else:
            checks.out_array(out, self.shape, self.dtype)
        self._backend.kronecker(self.output_factor, self.input_factor, bias=self._has_bias, out=out)
        if self._decay:
            out.reshape(-1)[:: self.shape[0] + 1] += self.dtype.type(self._decay)
        return out

    def condition(self) -> Condition:
        """Return the condition number with its rank, tolerance, gap and uncertainty; see `Condition`.

        Taken from singular values of the factors, never from the dense matrix or from ``X.T X``: squaring loses half of
        the digits, and the product ``X W_1.T ...`` itself is not formed (product SVD after Drmač 1998).
        """
        outputs, inputs = self._net.weights[self.layer].shape
        epsilon = float(np.finfo(self.dtype).eps)
        below, above = self._input_chain(), self._output_chain()
        sizes = [self._samples, *(max(factor.shape) for factor in below), *(max(factor.shape) for factor in above)]
        tolerance = max(sizes) * epsilon
        into = self._backend.product_svd(below[0], below[1:], tolerance)
        out_of = self._backend.product_svd(above[0].T, above[1:], tolerance) if above else _identity(outputs)
        rank = into.rank * out_of.rank
        if rank == 0 and not self._decay:
            return undefined(self.shape[0], tolerance)
        largest = self._scale * (into.values[0] * out_of.values[0]) ** 2 + self._decay if rank else self._decay
        smallest = self._decay
        if rank and (not self._decay or rank == self.shape[0]):
            smallest += self._scale * (into.values[into.rank - 1] * out_of.values[out_of.rank - 1]) ** 2
        dropped = max(into.dropped, out_of.dropped)
        return Condition(
            value=float(largest / smallest),
            largest=float(largest),
            smallest=float(smallest),
            rank=self.shape[0] if self._decay else rank,
            size=self.shape[0],
            tolerance=tolerance,
            gap=min(into.kept, out_of.kept) / dropped if dropped else np.inf,
            uncertainty=4.0 * epsilon * (into.amplification + out_of.amplification),
        )

    def cond(self) -> float:
        """Return the condition number; NaN for the zero matrix. O(in³ + out·in²), independent of P² and of N."""
        return self.condition().value

    def rank(self) -> int:
        """Return the numerical rank, decided on the factors."""
        return self.condition().rank

    def _input_chain(self) -> list[NDArray[np.float64]]:
        """Return X and weights whose product ``X W_1.T ... W_{l-1}.T`` is the input of this layer, biases included."""
        first = self._data.X
        if not self._net.has_bias:
            return [_float64(factor) for factor in (first, *self._net.weights[: self.layer])]
        chain: list[Any] = [np.column_stack([first, self._data.column])]
        for weight, bias in zip(self._net.weights[: self.layer], self._net.biases[: self.layer], strict=True):
            constant = np.zeros((1, weight.shape[1] + 1))
            constant[0, -1] = 1.0
            column = np.zeros(len(weight)) if bias is None else bias
            chain.append(np.vstack([np.column_stack([weight, column]), constant]))
        if not self._has_bias:  # the constant feeds this layer through earlier biases only
            chain[-1] = chain[-1][:-1] if self.layer > 0 else chain[-1][:, :-1]
        return [_float64(factor) for factor in chain]

    def _output_chain(self) -> list[NDArray[np.float64]]:
        """Return the weights above this layer, the lowest first."""
        return [_float64(weight) for weight in self._net.weights[self.layer + 1 :]]

    def _matmat(self, V: Array) -> Array:
        outputs, inputs = self._net.weights[self.layer].shape
        columns = np.asarray(V, dtype=np.result_type(V, self.dtype)).T
        weights = columns[:, : outputs * inputs].reshape(-1, outputs, inputs)
        if self._has_bias:
            weights = np.concatenate([weights, columns[:, outputs * inputs :, None]], axis=2)
        product = self.output_factor @ weights @ self.input_factor
        flat = product[:, :, :inputs].reshape(len(columns), -1)
        if self._has_bias:
            flat = np.concatenate([flat, product[:, :, inputs]], axis=1)
        if self._decay:
            flat = flat + self._decay * columns
        return flat.T

    def _matvec(self, v: Array) -> Array:
        return self._matmat(np.reshape(v, (-1, 1)))[:, 0]

    def _adjoint(self) -> KroneckerHessian:
        return self

    def __repr__(self) -> str:
        return f"<{self.shape[0]}x{self.shape[1]} Hessian of layer {self.layer} with dtype={self.dtype}>"


def _identity(size: int) -> ProductSvd:
    return ProductSvd(np.ones(size), size, 1.0, 0.0, 0.0)


def _float64(array: Array) -> NDArray[np.float64]:
    return np.ascontiguousarray(array, dtype=np.float64)
