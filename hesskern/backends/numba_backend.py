"""The "numba" backend: the package's own jitted functions, compiled on first use for this processor."""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesskern._base import decompositions
from hesskern._base.array_types import Array
from hesskern._base.flat_layout import join
from hesskern._base.lanczos import steps
from hesskern.backends.data import Data
from hesskern.backends.product_svd import product_svd
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

try:
    import numba  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"the backend 'numba' needs Numba, which cannot be imported ({error}); install it with "
        'pip install "hesskern[numba]", or choose another backend.'
    ) from error
from hesskern.backends.numba_kernels import (
    assembly,
    descent,
    graded_qr,
    hessian_product,
    layout,
    memory,
    passes,
    sharpness,
)
from hesskern.backends.numba_kernels.compile import processor
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES

_STOPS: dict[int, Stop] = {
    descent.RUNNING: "running",
    descent.CONVERGED: "converged",
    descent.DIVERGED: "diverged",
}
#: More cores write a large matrix faster, because each has store buffers; for a small one, starting threads costs more.
_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_THREADS_FROM_BYTES = 16 << 20
#: Rows that go into a triangular factor at once, unless there are more columns.
_ROWS_AT_ONCE = 8192


@functools.lru_cache(maxsize=256)
def _cached_layout(widths: tuple[int, ...], biases: tuple[bool, ...], itemsize: int) -> layout.Layout:
    return layout.make_layout(np.array(widths), np.array(biases), itemsize)


def _layout_of(net: Layers) -> layout.Layout:
    widths = (net.weights[0].shape[1], *(len(weight) for weight in net.weights))
    return _cached_layout(widths, tuple(bias is not None for bias in net.biases), net.weights[0].itemsize)


def _ones(data: Data) -> Array:
    """Return the column that biases multiply; an empty one means ones."""
    return np.empty(0, data.X.dtype) if data.ones is None else np.ascontiguousarray(data.ones)


def _is_diagonal(X: Array) -> bool:
    return int(np.count_nonzero(X)) == int(np.count_nonzero(X.diagonal()))


def _gathered(blocks: Sequence[Block], dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.int64]]:
    """Return the factors of all blocks in one array, and the start of each; see `numba_kernels.assembly`."""
    pieces, where, at = [], [], 0
    for block in blocks:
        starts = []
        for factor in block:
            starts.append(at)
            if factor is not None:
                pieces.append(factor.reshape(-1))
                at += factor.size
        where.append((*starts, block.U.shape[1], block.V.shape[1], block.W is not None))
    pieces.append(np.zeros(VECTOR_BYTES // dtype.itemsize, dtype))  # the last vector may reach beyond
    return np.concatenate(pieces), np.array(where, dtype=np.int64)


class JittedDescent:
    """Descent whose state is the memory that the jitted loop works on."""

    def __init__(
        self,
        net: Layers,
        data: Data,
        samples: Data | None,
        largest_batch: int,
        rule: descent.Rule,
        watch: Watch,
    ) -> None:
        net_layout = self._layout = _layout_of(net)
        self._size = int(layout.number_of_parameters(net_layout))
        count = len(watch.leak_layers)
        product = bool(passes.product_is_cheaper(net_layout, largest_batch or len(data.X), True))
        self._shape = shape = descent.DescentShape(
            samples=len(data.X),
            product=product,
            hessian=watch.sharpness or count > 0,
            momentum=rule.momentum != 0,
            batch=largest_batch,
            vectors=min(sharpness.LARGEST_SPACE, self._size) if watch.sharpness else 0,
            diagonal=product and _is_diagonal(data.X),
        )
        self._memory = memory.make_memory(
            net_layout, data.X, shape.samples, shape.product, shape.hessian, True, shape.momentum, shape.batch,
            shape.vectors,
        )  # fmt: skip
        self._at = descent.places_of(self._memory, net_layout, shape)
        for start in (self._at.theta, self._at.other):
            layout.pack(net_layout, join(net.weights, net.biases), 0, 1, self._memory, start, 1.0)
        layout.pack_samples(net_layout, data.X, _ones(data), data.Y, self._memory, self._at.x, self._at.y)
        layout.pack_mask(net_layout, self._memory, self._at.mask)
        nothing = np.empty((0, 0), data.X.dtype)
        self._samples = (nothing, nothing) if samples is None else (samples.X, samples.Y)
        self._rule = rule
        self._leak = descent.Leak(np.array(watch.leak_layers, dtype=np.int64), np.zeros(count), np.zeros(count))
        self._sharpness = True if watch.sharpness else None
        self._counters = np.array([0, -1])
        self._target = np.array([-1.0])

    @property
    def steps(self) -> int:
        return int(self._counters[descent.STEPS])

    @property
    def growth(self) -> list[float]:
        looked = int(self._counters[descent.LOOKED])
        since = self.steps - looked if looked >= 0 else 0
        growth = self._leak.growth + since * self._leak.growing if since > 0 else self._leak.growth
        return [float(value) for value in growth]

    @property
    def _theta(self) -> int:
        return self._at.other if self.steps % 2 else self._at.theta

    @property
    def _before(self) -> int:
        return self._at.theta if self.steps % 2 else self._at.other

    def _unpacked(self, start: int) -> Array:
        flat = np.empty(self._size, self._memory.dtype)
        layout.unpack(self._layout, self._memory, start, flat, 0, 1)
        return flat

    def _pack(self, flat: Array, start: int, constant: float) -> None:
        layout.pack(self._layout, np.ascontiguousarray(flat), 0, 1, self._memory, start, constant)

    def parameters(self) -> Array:
        return self._unpacked(self._theta)

    def step_back(self) -> None:
        self._counters[descent.STEPS] = max(0, self.steps - 1)

    def save(self) -> State:
        nothing = np.empty((0, self._size), self._memory.dtype)
        return State(
            steps=self.steps,
            target=float(self._target[0]),
            parameters=self.parameters(),
            previous=self._unpacked(self._before),
            velocity=self._unpacked(self._at.velocity) if self._shape.momentum else nothing[0:0, 0],
            growth=self._leak.growth.copy(),
            growth_rate=self._leak.growing.copy(),
            growth_step=int(self._counters[descent.LOOKED]),
            search=self._unpacked(self._at.best)[None] if self._sharpness else nothing,
        )

    def restore(self, state: State) -> None:
        self._counters[descent.STEPS], self._counters[descent.LOOKED] = state.steps, state.growth_step
        self._target[0] = state.target
        self._leak.growth[:], self._leak.growing[:] = state.growth, state.growth_rate
        self._pack(state.parameters, self._theta, 1.0)
        self._pack(state.previous, self._before, 1.0)
        if self._shape.momentum:
            self._pack(state.velocity, self._at.velocity, 0.0)
        if self._sharpness and len(state.search):
            self._pack(state.search[0], self._at.best, 0.0)

    def run(self, job: Job) -> tuple[Stop, int]:
        """Take the steps of a job."""
        numbers, indices = np.empty(0), np.empty(0, dtype=np.int64)
        steps = descent.Steps(
            job.rates,
            job.scales,
            indices if job.order is None else job.order,
            indices if job.ends is None else job.ends,
            job.losses,
            *(numbers if array is None else array for array in (job.batch_losses, job.gradient_norms, job.sharpness)),
        )
        how, finite = descent.descend(
            self._memory, self._layout, *self._samples, self._shape, self._rule, self._leak, self._counters,
            self._target, steps, self._sharpness,
        )  # fmt: skip
        return _STOPS[how], finite


class JittedProduct:
    """Products with the Hessian; intermediate results that do not depend on the vector are kept in memory."""

    def __init__(
        self, net: Layers, data: Data, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> None:
        net_layout = _layout_of(net)
        self._point = net_layout, join(net.weights, net.biases), data.X, _ones(data), data.Y, scale, 0, 0
        memory, product = hessian_product.prepared(*self._point)
        self._arguments = (net_layout, len(data.X), product, scale, decay, gauss_newton, functional)
        # Kept from one product to the next. Threads that multiply at the same time prepare their own: no lock, which a
        # fork would leave locked for ever in the child.
        self._spare = deque([memory], maxlen=1)

    def apply(self, v: Array, out: Array) -> None:
        columns = 1 if v.ndim == 1 else v.shape[1]
        flat, target = (v, out) if v.ndim == 1 else (v.reshape(-1), out.reshape(-1))
        try:
            memory = self._spare.pop()
        except IndexError:
            memory, _ = hessian_product.prepared(*self._point)
        hessian_product.hessian_times(memory, *self._arguments, flat, columns, target)
        self._spare.append(memory)


class JittedBackend:
    """Functions in Python, compiled by Numba."""

    name = "numba"
    instructions = processor()
    step_seconds = 2e-7
    tolerance = {"float64": 1e-12, "float32": 2e-4}

    def forward(self, net: Layers, X: Array) -> Array:
        return passes.predictions(_layout_of(net), join(net.weights, net.biases), X)

    def squared_residual(self, net: Layers, data: Data) -> float:
        return passes.value_and_gradient(
            _layout_of(net), join(net.weights, net.biases), data.X, _ones(data), data.Y, 1.0, False
        )[0]

    def gradient(self, net: Layers, data: Data, scale: float) -> tuple[float, Array]:
        return passes.value_and_gradient(
            _layout_of(net), join(net.weights, net.biases), data.X, _ones(data), data.Y, float(scale), True
        )

    def backward(
        self, net: Layers, X: Array, delta: Array, *, parameters: bool, samples: bool
    ) -> tuple[Array | None, Array | None]:
        # NumPy is enough here: loops that users write differentiate the loss, whose gradient is jitted.
        inputs = [X]
        for weight, bias in list(zip(net.weights, net.biases, strict=True))[:-1]:
            inputs.append(inputs[-1] @ weight.T if bias is None else inputs[-1] @ weight.T + bias)
        pieces: list[Array] = []
        for weight, bias, below in zip(net.weights[::-1], net.biases[::-1], inputs[::-1], strict=True):
            pieces += ([] if bias is None else [delta.sum(axis=0)]) + [(delta.T @ below).ravel()]
            delta = delta @ weight
        return np.concatenate(pieces[::-1]) if parameters else None, delta if samples else None

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
    ) -> JittedDescent:
        del ensemble  # each network is trained alone
        rule = descent.Rule(
            scale=float(scale),
            constant=float(scale * data.constant),
            rtol=float(rtol),
            momentum=float(update.momentum),
            nesterov=bool(update.nesterov),
            decay=float(update.decay),
            every=int(watch.every),
            loss=bool(watch.loss),
        )
        return JittedDescent(net, data, samples, largest_batch, rule, watch)

    def advance(self, descents: Sequence[JittedDescent], jobs: Sequence[Job], threads: int) -> list[tuple[Stop, int]]:
        if threads == 1 or len(descents) == 1:
            return [descent.run(job) for descent, job in zip(descents, jobs, strict=True)]
        with ThreadPoolExecutor(min(threads, len(descents))) as pool:  # the jitted loop runs without the GIL
            return list(pool.map(JittedDescent.run, descents, jobs))

    def assemble(self, rows: Sequence[Side], columns: Sequence[Side], blocks: Sequence[Block], out: Array) -> None:
        factors, where = _gathered(blocks, out.dtype)
        sides = np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)
        arguments = (*sides, where.reshape(len(rows), len(columns), -1), factors)
        flat, threads = out.reshape(-1), _THREADS if out.nbytes >= _THREADS_FROM_BYTES else 1
        if threads == 1:
            assembly.assemble(*arguments, 0, len(out), flat)
            return
        ends = np.linspace(0, len(out), threads + 1).astype(int).tolist()
        with ThreadPoolExecutor(threads) as pool:
            pieces = [pool.submit(assembly.assemble, *arguments, *piece, flat) for piece in itertools.pairwise(ends)]
        for piece in pieces:
            piece.result()

    def hessian_product(
        self, net: Layers, data: Data, *, scale: float, decay: float, gauss_newton: bool, functional: bool
    ) -> JittedProduct:
        return JittedProduct(net, data, float(scale), float(decay), gauss_newton, functional)

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
        return steps(product.apply, inside, vectors, images, start, stop, block)

    def softmax_dense(self, problem: Softmax, out: Array) -> None:
        features, p, scale, bias = problem
        if bias:
            features = np.column_stack([features, np.ones_like(scale)])
        (samples, inner), classes = features.shape, p.shape[1]
        order = np.arange(classes * inner).reshape(classes, inner)
        order = np.concatenate([order[:, : inner - bias].ravel(), order[:, inner - bias :].ravel()])
        rows = []
        for c in range(classes):
            deviation = -p
            deviation[:, c] = 0
            deviation[:, c] = -deviation.sum(axis=1)  # 1 - p_c, which cancels where p_c is nearly one
            factor = (scale * p[:, c])[:, None] * deviation
            rows.append(features.T @ (factor[:, :, None] * features[:, None]).reshape(samples, -1))
        dense = np.concatenate(rows)[np.ix_(order, order)]
        out[...] = np.triu(dense) + np.triu(dense, 1).T

    def softmax_product(self, problem: Softmax, v: Array, out: Array) -> None:
        features, p, scale, bias = problem
        weights, classes = features.shape[1] * p.shape[1], p.shape[1]
        columns = v.reshape(len(v), -1)
        change = np.tensordot(features, columns[:weights].reshape(classes, features.shape[1], -1), (1, 1))
        if bias:
            change += columns[weights:]
        # Shifting all classes alike changes nothing; without it a - p.T a cancels where one probability is nearly one.
        change -= change[np.arange(len(p)), p.argmax(axis=1)][:, None]
        change -= np.einsum("nc,nck->nk", p, change)[:, None]
        change *= (scale[:, None] * p)[:, :, None]
        products = np.tensordot(change, features, (0, 0)).transpose(0, 2, 1).reshape(weights, -1)
        pieces = [products, change.sum(axis=0)] if bias else [products]
        out[...] = np.concatenate(pieces).reshape(v.shape)

    def triangular_factor(self, parts: Sequence[Array]) -> NDArray[np.float64]:
        columns = sum(part.shape[1] for part in parts)
        triangle: NDArray[np.float64] = np.zeros((0, columns))
        step = max(_ROWS_AT_ONCE, 4 * columns)
        for start in range(0, len(parts[0]), step):
            some = np.concatenate([part[start : start + step] for part in parts], axis=1, dtype=np.float64)
            triangle = decompositions.triangular(np.concatenate([triangle, some]))
        return np.concatenate([triangle, np.zeros((columns - len(triangle), columns))])

    def wide_layer(self, below: Sequence[Array], above: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        product = above.T.astype(np.float64) @ np.concatenate(below, axis=1, dtype=np.float64)
        return self.triangular_factor([*below, above]), product

    def mixes_units(self, stack: NDArray[np.float64], outputs: int) -> bool:
        below, above = np.abs(stack[:-outputs]), np.abs(stack[-outputs:])
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not balanced
            terms = above @ below.T
            around = np.minimum(terms.max(axis=1, keepdims=True), terms.max(axis=0))
            bounds = np.outer(np.sqrt((above * above).sum(axis=1)), np.sqrt((below * below).sum(axis=1)))
            return not bool((bounds <= UNBALANCED * np.where(terms > 0, terms, around)).all())

    def product_svd(
        self,
        first: NDArray[np.float64],
        weights: Sequence[NDArray[np.float64]],
        tolerance: float,
        *,
        rotated: bool = False,
    ) -> ProductSvd:
        return product_svd(first, weights, tolerance, rotated=rotated, factor=graded_qr.factor)


BACKEND = JittedBackend()
