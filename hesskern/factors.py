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

All of it is computed in float64, whatever the network's dtype, and on the device where the network is.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hesskern import devices
from hesskern._cached import cached_property
from hesskern.backends.protocol import Layers
from hesskern.problem import Data

Matrix = NDArray[np.float64]
Mode = Literal["full", "gauss_newton", "functional"]


class Factors:
    """Factors of a network and its (reduced) data, each computed on first use."""

    def __init__(self, net: Layers, data: Data, scale: float) -> None:
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
        self._grams: dict[tuple[int, int], Matrix] = {}

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.weights)

    @cached_property
    def _activations(self) -> list[Matrix]:
        activations = [self.X]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            activation = activations[-1] @ weight.T
            if bias is not None:
                activation += self._xp.outer(self.column, bias)
            activations.append(activation)
        return activations

    @cached_property
    def inputs(self) -> list[Matrix]:
        """Inputs of each layer (N, m_{l-1} [+1]), the constant one last where the network has biases."""
        if not self.has_bias:
            return self._activations[:-1]
        joined: list[Matrix] = [self._xp.column_stack([each, self.column]) for each in self._activations[:-1]]
        return joined

    @cached_property
    def residual(self) -> Matrix:
        """Residual (N, o) of the reduced data."""
        return self._activations[-1] - self.Y

    @cached_property
    def above(self) -> list[Matrix | None]:
        """Maps from each layer's output to the prediction (o, m_l); None: the identity, above the last layer."""
        maps: list[Matrix | None] = [None]
        for weight in self.weights[:0:-1]:
            top = maps[0]
            maps.insert(0, weight if top is None else top @ weight)
        return maps

    def between(self, lower: int, upper: int) -> Matrix | None:
        """Return the map from the output of layer `lower` to the input of `upper` (None: the identity)."""
        product: Matrix | None = None
        for weight in self.weights[lower + 1 : upper]:
            product = weight if product is None else weight @ product
        return product

    def output_gram(self, upper: int, lower: int) -> Matrix:
        """Return ``scale * B_m.T B_l`` (m_m, m_l)."""
        left, right = self.above[upper], self.above[lower]
        if left is None and right is None:
            identity: Matrix = devices.eye(len(self.weights[-1]), self.X)
            return identity * self.scale
        if left is None or right is None:
            product = right if left is None else left.T
            assert product is not None
        else:
            product = left.T @ right
        return product if self.scale == 1 else product * self.scale

    def output_diagonal(self, layer: int) -> Matrix:
        """Return the diagonal of `output_gram(layer, layer)` without the matrix."""
        top = self.above[layer]
        if top is None:
            return np.full(len(self.weights[layer]), self.scale)
        squares: Matrix = np.einsum("op,op->p", top, top)
        return self.scale * squares

    def input_gram(self, upper: int, lower: int) -> Matrix:
        """Return ``inputs_m.T inputs_l``, symmetric to the bit for m = l."""
        return self.inputs[upper].T @ self.inputs[lower]

    def residual_gram(self, upper: int, lower: int) -> Matrix:
        """Return ``scale * (E B_m).T inputs_l`` (m_m, m_{l-1} [+1]): the gradient's factors, zero at interpolation."""
        top = self.above[upper]
        back = self.residual if top is None else self.residual @ top
        product = back.T @ self.inputs[lower]
        return product if self.scale == 1 else product * self.scale

    def residual_noise(self, upper: int, lower: int, epsilon: float) -> float:
        """Return a bound on the rounding error in `residual_gram`, which is what it holds at interpolation."""
        norms = [_norm(weight) for weight in self.weights]
        size = _norm(self.X) + (_norm(self.column) if self.has_bias else 0.0)
        prediction = size * float(np.prod(norms)) + sum(
            _norm(self.column) * _norm(bias) * float(np.prod(norms[layer + 1 :]))
            for layer, bias in enumerate(self.biases)
            if bias is not None
        )
        top = self.above[upper]
        reach = (1.0 if top is None else _norm(top)) * _norm(self.inputs[lower])
        return 2.0 * epsilon * self.scale * (prediction + _norm(self.Y)) * reach


def _norm(matrix: Matrix) -> float:
    return float(np.linalg.norm(matrix))
