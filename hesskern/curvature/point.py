"""An objective at one network, and the small matrices that all curvature operators there share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern import backends
from hesskern._base import devices
from hesskern._base.array_types import Array
from hesskern._base.cached import cached_property
from hesskern._base.interrupt import RATE, interruptibly
from hesskern._base.powers import MODERATE
from hesskern.backends.data import Data
from hesskern.backends.protocol import HessianProduct, Layers, PlainLayers
from hesskern.curvature.layer_factors import Factors, Mode
from hesskern.curvature.objective import Objective
from hesskern.curvature.rounding import Magnitudes
from hesskern.curvature.scaled_product import hessian_product
from hesskern.network.linear_network import LinearNetwork

#: Products with fewer numbers than this take no time, so Ctrl-C need not interrupt them.
_FEW_NUMBERS = 1 << 16


class Point:
    """Where second derivatives are taken: the objective, the network, and the small matrices that determine them.

    The Hessian of some parameters, its parts and its blocks use the same matrices, which are computed once.

    Parameters
    ----------
    objective : Objective
    net : LinearNetwork
    data : Data, optional
        Reduced samples to use in place of the objective's, with the same number of columns.
    """

    def __init__(self, objective: Objective, net: LinearNetwork, data: Data | None = None) -> None:
        self.objective, self.net = objective, net
        kernels = objective.kernels
        assert backends.on_host(kernels)
        self.backend = kernels
        self.data = objective.reduction(bias=net.has_bias) if data is None else data
        self.dtype = np.dtype(net.dtype)
        self._products: dict[tuple[Mode, np.dtype[Any]], HessianProduct] = {}

    @cached_property
    def factors(self) -> Factors:
        """The small matrices in float64."""
        reach = self.net.reach + self.objective.reach(bias=self.net.has_bias)
        return Factors(self.net, self.data, self.objective.scale, ordinary=reach <= MODERATE)

    @cached_property
    def magnitudes(self) -> Magnitudes:
        """Bounds on rounding errors in products of them."""
        return Magnitudes(self.factors)

    def decay(self, mode: Mode) -> float:
        """Return the multiple of the identity that belongs to the Hessian, or to this part of it."""
        return self.objective.weight_decay if mode == "full" else 0.0

    def times(self, mode: Mode, V: Array, rows: NDArray[np.intp] | None, columns: NDArray[np.intp] | None) -> Array:
        """Return these rows of the product with vectors (p,) or (p, k) that are zero outside these columns.

        Parameters
        ----------
        mode : {"full", "gauss_newton", "functional"}
        V : (p,) or (p, k) array
            C-contiguous. The product is computed in its precision: float64 vectors are not rounded for a float32
            network.
        rows, columns : array of int, or None
            Positions in ``net.flatten()``; None: all.
        """
        full = V
        if columns is not None:
            full = np.zeros((self.net.num_parameters, *V.shape[1:]), V.dtype)
            full[columns] = V
        product = self._products.get((mode, V.dtype)) or self._product(mode, V.dtype)
        out = np.empty_like(full)
        if full.size < _FEW_NUMBERS:
            product.apply(full, out)
        else:
            interruptibly(product.apply, full, out, seconds=8.0 * full.size * len(self.data.X) / RATE)
        return out if rows is None else np.ascontiguousarray(out[rows])

    def _product(self, mode: Mode, dtype: np.dtype[Any]) -> HessianProduct:
        net: Layers = self.net
        if dtype != self.dtype:
            net = PlainLayers(
                tuple(weight.astype(dtype) for weight in net.weights),
                tuple(None if bias is None else bias.astype(dtype) for bias in net.biases),
            )
        product = hessian_product(
            self.backend,
            net,
            self.data.astype(dtype),
            scale=self.objective.scale,
            decay=self.decay(mode),
            gauss_newton=mode != "functional",
            functional=mode != "gauss_newton",
        )
        self._products[mode, dtype] = product
        return product

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.objective, self.net, self.backend.name, self.data)


def _again(objective: Objective, net: LinearNetwork, backend: str, data: Data) -> Point:
    """Return a pickled point, with its reduced samples; everything else is computed again."""
    objective.remember(Data(*map(devices.unwrapped, data)), bias=net.has_bias, backend=backend)
    return Point(objective, net)
