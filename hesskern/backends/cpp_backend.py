"""The compiled backend: hands arrays to the extension, which drops the GIL and calls one kernel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hesskern._core as _core  # noqa: PLR0402 - not by way of the package
from hesskern._base.array_types import Array
from hesskern._base.flat_layout import count
from hesskern.backends.data import Data
from hesskern.backends.protocol import (
    UNBALANCED,
    Block,
    HessianProduct,
    Job,
    Layers,
    ProductSvd,
    Side,
    Softmax,
    State,
    Stop,
    Update,
    Watch,
)

#: More cores write a large matrix faster, because each has store buffers; for a small one, starting threads costs more.
_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_THREADS_FROM_BYTES = 16 << 20
#: Columns whose squares the kernels can sum, by their largest entry.
_RANGE = (2.0**-400, 2.0**400)


def _load_blas() -> str:
    """Give the kernels SciPy's BLAS for large products; warn if that fails and they use their own loops."""
    from scipy.linalg import cython_blas  # noqa: PLC0415 - 0.1 s that `import hesskern` need not spend

    try:
        _core.load_blas(cython_blas.__pyx_capi__)
    except ImportError as error:
        warnings.warn(f"{error}; hesskern uses its own loops, which are slower above 64 x 64.", stacklevel=2)
        return "none"
    return "scipy"


class CppDescent:
    """Descent whose state lives in the extension."""

    def __init__(self, core: _core.Descent, size: int, dtype: np.dtype[Any]) -> None:
        self.core, self._size, self._dtype = core, size, dtype

    @property
    def steps(self) -> int:
        return self.core.steps

    @property
    def growth(self) -> list[float]:
        return self.core.growth

    def parameters(self) -> Array:
        flat = np.empty(self._size, self._dtype)
        self.core.parameters(flat)
        return flat

    def step_back(self) -> None:
        self.core.step_back()

    def save(self) -> State:
        return State(**self.core.save())

    def restore(self, state: State) -> None:
        self.core.restore(state._asdict())


class CppBackend:
    """Kernels in C++, compiled for several instruction sets."""

    name = "cpp"
    instructions = _core.isa
    step_seconds = 1e-7
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
        flat = np.empty(count(net.weights, net.biases), data.X.dtype)
        value = _core.squared_residual(net.weights, net.biases, data.X, data.ones, data.Y, scale, flat)
        return value, flat

    def backward(
        self, net: Layers, X: Array, delta: Array, *, parameters: bool, samples: bool
    ) -> tuple[Array | None, Array | None]:
        flat = np.empty(count(net.weights, net.biases), X.dtype) if parameters else None
        below = np.empty_like(X) if samples else None
        _core.backward(net.weights, net.biases, X, delta, flat, below)
        return flat, below

    def descent(
        self,
        net: Layers,
        data: Data,
        samples: Data | None,
        largest_batch: int,
        *,
        scale: float,
        rtol: float,
        update: Update,
        watch: Watch,
        ensemble: bool,
    ) -> CppDescent:
        core = _core.Descent(
            weights=net.weights,
            biases=net.biases,
            X=data.X,
            ones=data.ones,
            Y=data.Y,
            samples_X=None if samples is None else samples.X,
            samples_Y=None if samples is None else samples.Y,
            largest_batch=largest_batch,
            scale=scale,
            constant=scale * data.constant,
            rtol=rtol,
            momentum=update.momentum,
            nesterov=update.nesterov,
            decay=update.decay,
            every=watch.every,
            loss_recorded=watch.loss,
            sharpness=watch.sharpness,
            leak_layers=watch.leak_layers,
            packed=ensemble,
        )
        return CppDescent(core, count(net.weights, net.biases), data.X.dtype)

    def advance(self, descents: Sequence[CppDescent], jobs: Sequence[Job], threads: int) -> list[tuple[Stop, int]]:
        stops = _core.advance([descent.core for descent in descents], jobs, threads)
        return stops  # type: ignore[return-value]

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

    def krylov_steps(
        self,
        product: HessianProduct,
        inside: NDArray[np.float64] | None,
        vectors: NDArray[np.float64],
        images: NDArray[np.float64],
        start: int,
        stop: int,
        block: int,
    ) -> int:
        assert isinstance(product, _core.HessianProduct)
        return product.extend(vectors, images, start, stop, block, inside)

    def softmax_dense(self, problem: Softmax, out: Array) -> None:
        _core.softmax_dense(*problem, out)

    def softmax_product(self, problem: Softmax, v: Array, out: Array) -> None:
        _core.softmax_product(*problem, v, out)

    def triangular_factor(self, parts: Sequence[Array]) -> NDArray[np.float64]:
        triangle: NDArray[np.float64] = _core.triangular_factor(parts)
        sizes = np.abs(triangle).max(axis=0, initial=0.0)
        if ((sizes > _RANGE[0]) & (sizes < _RANGE[1])).all():
            return triangle
        # The kernel squares columns. A column whose squares overflow or vanish is scaled by a power of two: rounding
        # errors of a column are relative to its size, so that nothing else changes.
        exponents = [np.frexp(np.abs(part).max(axis=0))[1] for part in parts]
        scaled = [np.ldexp(part.astype(np.float64), -by) for part, by in zip(parts, exponents, strict=True)]
        triangle = np.ldexp(_core.triangular_factor(scaled), np.concatenate(exponents))
        return triangle

    def wide_layer(self, below: Sequence[Array], above: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return _core.wide_layer([*below, above], sum(part.shape[1] for part in below))

    def mixes_units(self, stack: NDArray[np.float64], outputs: int) -> bool:
        return _core.mixes_units(stack, outputs, UNBALANCED)

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
