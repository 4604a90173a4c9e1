r"""The small matrices that determine the curvature of a linear network.

With samples in the rows of X (reduced to at most i of them), a column of ones for the biases, ``A_l`` the map from the
data to the input of layer l and ``B_l`` the map from its output to the prediction:

- `inputs[l]`  ``X A_l.T`` (N, m_{l-1}), with the constant input as last column where the network has biases
- `above[l]`   ``B_l = W_L ... W_{l+1}`` (o, m_l)
- `residual`   ``E = prediction - Y`` (N, o)
- `between(l, m)`  ``M_lm = W_{m-1} ... W_{l+1}`` (m_{m-1}, m_l)

Then the Hessian between parameters (r, s) of layer m and (p, q) of layer l < m is
``(B_m.T B_l)[r,p] (inputs_m.T inputs_l)[s,q] + M_lm[s,p] ((E B_m).T inputs_l)[r,q]``, times the scale of the loss. The
first product is the Gauss-Newton part; the second, functional part is zero for m = l.

All of it is computed in float64, for any dtype of the network, and on the network's device. Each matrix is kept with an
exponent (`hesskern._base.powers`), zero unless weights or data are so large or small that squares or products of them
leave the range of float64: data of 1e-160 and weights of 1e+160 have a Hessian of order one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from hesskern._base import devices
from hesskern._base.array_types import Matrix
from hesskern._base.cached import cached_property
from hesskern._base.powers import MODERATE, Scaled, aligned, in_dtype, moderate, reach, shared
from hesskern.backends.data import Data
from hesskern.backends.protocol import Layers

Mode = Literal["full", "gauss_newton", "functional"]
#: What an operator of each mode is called.
KINDS: dict[Mode, str] = {"full": "Hessian", "gauss_newton": "Gauss-Newton part", "functional": "functional part"}


class Factors:
    """Factors of a network and its (reduced) data, each computed on first use.

    Parameters
    ----------
    net : Layers
    data : Data
    scale : float
        Of the loss.
    across : mapping of int to Scaled, optional
        ``W_{l+1} [W_l, b_l]`` of hidden layers l whose units were rotated, to be used for all that goes across such a
        layer. The product of the rotated weights is the same, but with rounding errors as large as the weights are.
    ordinary : bool, optional
        Value of the attribute, if the caller knows it.
    """

    def __init__(
        self,
        net: Layers,
        data: Data,
        scale: float,
        across: Mapping[int, Scaled] | None = None,
        *,
        ordinary: bool | None = None,
    ) -> None:
        self.weights: list[Matrix] = [devices.converted(weight, np.float64) for weight in net.weights]
        self.biases: list[Matrix | None] = [
            None if bias is None else devices.converted(bias, np.float64) for bias in net.biases
        ]
        self.has_bias = any(bias is not None for bias in self.biases)
        self.X: Matrix = devices.converted(data.X, np.float64)
        self.Y: Matrix = devices.converted(data.Y, np.float64)
        self.column: Matrix = devices.converted(data.column, np.float64)
        self._xp = devices.namespace(self.X)
        self.scale = scale
        if ordinary is None:
            biases = [bias for bias in self.biases if bias is not None]
            ordinary = reach([*self.weights, *biases, self.X, self.Y]) <= MODERATE
        #: Whether squares of products of all of them are far from overflow and underflow.
        self.ordinary = ordinary
        self._across: Mapping[int, Scaled] = across or {}

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.weights)

    def _settled(self, matrix: Matrix, exponent: int = 0) -> Scaled:
        """Return ``2**exponent * matrix`` with moderate entries; unchanged where nothing can overflow or vanish."""
        return Scaled(matrix) if self.ordinary else moderate(matrix, exponent)

    @cached_property
    def _layers(self) -> list[Scaled]:
        return [self._settled(weight) for weight in self.weights]

    @cached_property
    def _activations(self) -> list[Scaled]:
        activations = [self._settled(self.X)]
        for layer, (weight, bias) in enumerate(zip(self._layers, self.biases, strict=True)):
            across, below = self._across.get(layer - 1), activations[-1]
            if across is not None:
                weight, below = self._without_bias(across, layer - 1), activations[-2]
            product = Scaled(below.matrix @ weight.matrix.T, below.exponent + weight.exponent)
            if across is not None and across.matrix.shape[1] > weight.matrix.shape[1]:
                product = self._shifted(product, Scaled(across.matrix[:, -1], across.exponent))
            if bias is not None:
                product = self._shifted(product, self._settled(bias))
            activations.append(self._settled(*product))
        return activations

    def _without_bias(self, across: Scaled, layer: int) -> Scaled:
        """Return the product across a hidden layer for weights alone."""
        return Scaled(across.matrix[:, : self.weights[layer].shape[1]], across.exponent)

    def _shifted(self, product: Scaled, shift: Scaled) -> Scaled:
        """Return activations with a bias added."""
        column = self._settled(self.column)
        outer = Scaled(self._xp.outer(column.matrix, shift.matrix), column.exponent + shift.exponent)
        left, right, exponent = aligned(product, outer)
        return Scaled(left + right, exponent)

    @cached_property
    def inputs(self) -> list[Scaled]:
        """Inputs of each layer (N, m_{l-1} [+1]), the constant one last where the network has biases."""
        if not self.has_bias:
            return self._activations[:-1]
        column, joined = self._settled(self.column), []
        for activation in self._activations[:-1]:
            below, ones, exponent = aligned(activation, column)
            joined.append(self._settled(self._xp.column_stack([below, ones]), exponent))
        return joined

    @cached_property
    def residual(self) -> Scaled:
        """Residual (N, o) of the reduced data."""
        prediction, targets, exponent = aligned(self._activations[-1], self._settled(self.Y))
        return self._settled(prediction - targets, exponent)

    @cached_property
    def above(self) -> list[Scaled | None]:
        """Maps from each layer's output to the prediction (o, m_l); None: the identity, above the last layer."""
        maps: list[Scaled | None] = [None]
        for layer in range(self.depth - 1, 0, -1):
            across = self._across.get(layer)
            if across is None:
                maps.insert(0, self._times(maps[0], self._layers[layer]))
            else:
                maps.insert(0, self._times(maps[1], self._without_bias(across, layer)))
        return maps

    def _times(self, left: Scaled | None, right: Scaled) -> Scaled:
        """Return the product of two matrices (None: the identity)."""
        if left is None:
            return right
        return self._settled(left.matrix @ right.matrix, left.exponent + right.exponent)

    def between(self, lower: int, upper: int) -> Scaled | None:
        """Return the map from the output of layer `lower` to the input of `upper` (None: the identity)."""
        product: Scaled | None = None
        layer = lower + 1
        while layer < upper:
            weight = self._layers[layer]
            if layer in self._across and layer + 1 < upper:
                weight = self._without_bias(self._across[layer], layer)
                layer += 1
            layer += 1
            product = weight if product is None else self._times(weight, product)
        return product

    def jacobian(self, layer: int, inner: slice) -> tuple[Matrix | None, Matrix]:
        """Return `above` and the columns `inner` of `inputs` of a layer, whose Kronecker product is the Jacobian.

        Powers of two may have been moved from one to the other, so that both can be squared.
        """
        top, below = self.above[layer], self.inputs[layer]
        below = Scaled(below.matrix[:, inner], below.exponent)
        if top is None:
            return None, below.value
        if self.ordinary:
            return top.matrix, below.matrix
        return shared(top, below, -float(MODERATE), float(MODERATE))

    def numbers(self, left: Scaled, right: Scaled, dtype: np.dtype[Any]) -> tuple[Matrix, Matrix]:
        """Return two matrices in `dtype` with the product of these; OverflowError if the dtype cannot hold it."""
        if self.ordinary and dtype == np.float64:
            return devices.converted(left.matrix, dtype), devices.converted(right.matrix, dtype)
        return in_dtype(left, right, dtype)

    def output_gram(self, upper: int, lower: int) -> Scaled:
        """Return ``scale * B_m.T B_l`` (m_m, m_l)."""
        left, right = self.above[upper], self.above[lower]
        if left is None and right is None:
            identity: Matrix = devices.eye(len(self.weights[-1]), self.X)
            return Scaled(identity * self.scale)
        if left is None or right is None:
            product = right if left is None else Scaled(left.matrix.T, left.exponent)
            assert product is not None
        else:
            product = Scaled(left.matrix.T @ right.matrix, left.exponent + right.exponent)
        return product if self.scale == 1 else Scaled(product.matrix * self.scale, product.exponent)

    def input_gram(self, upper: int, lower: int) -> Scaled:
        """Return ``inputs_m.T inputs_l``, symmetric to the bit for m = l."""
        left, right = self.inputs[upper], self.inputs[lower]
        return Scaled(left.matrix.T @ right.matrix, left.exponent + right.exponent)

    def residual_gram(self, upper: int, lower: int) -> Scaled:
        """Return ``scale * (E B_m).T inputs_l`` (m_m, m_{l-1} [+1]): the gradient's factors, zero at interpolation."""
        top, below = self.above[upper], self.inputs[lower]
        back = self.residual if top is None else self._times(self.residual, top)
        product = Scaled(back.matrix.T @ below.matrix, back.exponent + below.exponent)
        return product if self.scale == 1 else Scaled(product.matrix * self.scale, product.exponent)
