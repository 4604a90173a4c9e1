r"""Products with Hessians of networks whose weights or data are so large or small that squares leave the dtype.

Let ``W_l = 2**c_l W'_l``, ``X = 2**x X'``, ``b_l = 2**(x + c_1 + ... + c_l) b'_l`` and ``Y = 2**t Y'`` with
``t = x + Σ c_l``. The residual is then ``2**t`` times the residual of the primed problem, and with p the exponent of
each parameter ``H = 2**(2t) D H' D``, ``D = diag(2**-p)``. Powers of two round nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hesskern._base import devices
from hesskern._base.flat_layout import join
from hesskern._base.powers import magnitude, span, times_power
from hesskern.backends.data import Data
from hesskern.backends.protocol import Backend, HessianProduct, Layers, PlainLayers


def hessian_product(
    backend: Backend, net: Layers, data: Data, *, scale: float, decay: float, gauss_newton: bool, functional: bool
) -> HessianProduct:
    """Return `backend`'s products with a Hessian; of the scaled problem where the problem itself would overflow."""
    parts = {"gauss_newton": gauss_newton, "functional": functional}
    limit = 40 if devices.numpy_dtype(data.X) == np.float32 else 330
    if sum(abs(magnitude(matrix)) for matrix in (*net.weights, data.X)) <= limit:
        return backend.hessian_product(net, data, scale=scale, decay=decay, **parts)
    return _ScaledProduct(backend, net, data, scale, decay, parts)


class _ScaledProduct:
    """``2**(2t) D H' D + decay``, from products with H'."""

    def __init__(
        self, backend: Backend, net: Layers, data: Data, scale: float, decay: float, parts: dict[str, bool]
    ) -> None:
        biased = any(bias is not None for bias in net.biases)
        x = round(max(span(data.X).largest, 0.0) if biased else span(data.X).largest)
        weights, biases, weight_powers, bias_powers = [], [], [], []
        reached = x  # exponent of the activations so far
        for weight, bias in zip(net.weights, net.biases, strict=True):
            after = reached + round(span(weight).largest)
            if bias is not None:
                after = max(after, round(span(bias).largest))
            power, reached = after - reached, after
            weights.append(times_power(weight, -power))
            weight_powers.append(np.full(weight.shape, power))
            biases.append(None if bias is None else times_power(bias, -reached))
            bias_powers.append(None if bias is None else np.full(bias.shape, reached))
        # Half of 2**(2t) before H', half after it: both sides of a symmetric matrix.
        self._powers = reached - join(weight_powers, bias_powers)
        small = PlainLayers(tuple(weights), tuple(biases))
        scaled = data._replace(X=times_power(data.X, -x), Y=times_power(data.Y, -reached))
        self._product = backend.hessian_product(small, scaled, scale=scale, decay=0.0, **parts)
        self._decay = decay

    def apply(self, v: Any, out: Any) -> None:
        """Write H v into `out`."""
        self._product.apply(self._scaled(v), out)
        out[...] = self._scaled(out) + self._decay * v

    def _scaled(self, v: Any) -> Any:
        powers = self._powers.reshape(-1, *[1] * (v.ndim - 1))
        half = powers // 2
        first, second = (np.ldexp(1.0, part).astype(devices.numpy_dtype(v)) for part in (half, powers - half))
        if devices.on_device(v):
            first, second = (v.new_tensor(part) for part in (first, second))
        with np.errstate(over="ignore", under="ignore"):
            return v * first * second
