"""The compiled backend: hands arrays to the extension, which drops the GIL and calls one kernel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hesskern import _core
from hesskern._array import Array
from hesskern.backends.protocol import Block, HessianProduct, Layers, ProductSvd, Side, Stop
from hesskern.problem import Data

#: Writing a large matrix gains from a second core, whose store buffers it uses; a small one only waits for it.
_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_THREADS_FROM_BYTES = 16 << 20


def _load_blas() -> str:
    """Give the kernels SciPy's BLAS for large products; without it they use their own loops, and say so."""
    from scipy.linalg import cython_blas  # noqa: PLC0415 - 0.1 s that `import hesskern` need not spend

    try:
        _core.load_blas(cython_blas.__pyx_capi__)
    except ImportError as error:
        warnings.warn(f"{error}; hesskern uses its own loops, which are slower above 64 x 64.", stacklevel=2)
        return "none"
    return "scipy"


class CppDescent:
    """Gradient descent whose state lives in the extension."""

    def __init__(self, net: Layers, data: Data, rate: float, scale: float, decay: float, rtol: float) -> None:
        self._size = sum(w.size for w in net.weights) + sum(b.size for b in net.biases if b is not None)
        self._dtype = data.X.dtype
        self._core = _core.Descent(
            net.weights, net.biases, data.X, data.ones, data.Y, rate, scale, decay, scale * data.constant, rtol
        )

    @property
    def steps(self) -> int:
        return self._core.steps

    def run(self, losses: NDArray[np.float64]) -> Stop:
        stop: Stop = self._core.run(losses)  # type: ignore[assignment]
        return stop

    def parameters(self) -> Array:
        flat = np.empty(self._size, self._dtype)
        self._core.parameters(flat)
        return flat

    def set_parameters(self, flat: Array, steps: int) -> None:
        self._core.set_parameters(flat, steps)


class CppBackend:
    """Kernels in C++, compiled for several instruction sets."""

    name = "cpp"
    tolerance = {"float64": 1e-12, "float32": 2e-4}

    def __init__(self) -> None:
        self.blas = _load_blas()

    def forward(self, net: Layers, X: Array) -> Array:
        out = np.empty((len(X), len(net.weights[-1])), X.dtype)
        _core.forward(net.weights, net.biases, X, out)
        return out

    def squared_residual(self, net: Layers, data: Data) -> float:
        return _core.squared_residual(net.weights, net.biases, data.X, data.ones, data.Y)

    def gradient(self, net: Layers, data: Data, scale: float) -> tuple[float, Array]:
        size = sum(w.size for w in net.weights) + sum(b.size for b in net.biases if b is not None)
        flat = np.empty(size, data.X.dtype)
        value = _core.squared_residual(net.weights, net.biases, data.X, data.ones, data.Y, scale, flat)
        return value, flat

    def descent(self, net: Layers, data: Data, *, rate: float, scale: float, decay: float, rtol: float) -> CppDescent:
        return CppDescent(net, data, rate, scale, decay, rtol)

    def assemble(self, rows: Sequence[Side], columns: Sequence[Side], blocks: Sequence[Block], out: Array) -> None:
        threads = _THREADS if out.nbytes >= _THREADS_FROM_BYTES else 1
        _core.assemble(rows, columns, blocks, out, threads)

    def hessian_product(
        self, net: Layers, data: Data, *, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> HessianProduct:
        product: HessianProduct = _core.HessianProduct(
            net.weights, net.biases, data.X, data.ones, data.Y, scale, decay, gauss_newton, functional
        )
        return product

    def triangular_factor(self, parts: Sequence[Array]) -> NDArray[np.float64]:
        triangle: NDArray[np.float64] = _core.triangular_factor(parts)
        return triangle

    def product_svd(
        self,
        first: NDArray[np.float64],
        weights: Sequence[NDArray[np.float64]],
        tolerance: float,
        *,
        rotated: bool = False,
    ) -> ProductSvd:
        return ProductSvd(*_core.product_svd(first, weights, tolerance, rotated))


BACKEND = CppBackend()
