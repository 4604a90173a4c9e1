"""One flat memory for everything that a computation works on, and the offset of each piece in it.

Numba counts references to arrays, atomically, wherever one is selected or passed on; for small networks that costs as
much as the arithmetic. Offsets cost nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.layout import BIAS, PAD, STACK, START, WIDTH, Layout

#: Numbers in the widest activation of the samples that go through at once, and the fewest samples.
_CHUNK, _FEWEST = 32768, 64


class Places(NamedTuple):
    """Where the pieces begin. Those in the layout of a network are marked (network)."""

    theta: int  # (network)
    gradient: int  # (network)
    x: int  # padded samples
    y: int
    z: int  # Z_1 ... Z_L
    d: int  # D_1 ... D_L
    residual: int  # product form: E of some samples
    turned: int  # a transposed layer
    below: int  # the gradient that goes with Z and D of a Hessian (network)
    gram: int  # product form: scale Z_0.T Z_0
    moved: int  # Z'_1 ... Z'_L
    change: int  # D'_1 ... D'_L
    direction: int  # (network)
    image: int  # (network)
    other: int  # theta after every second step (network)
    velocity: int  # (network)
    mask: int  # 1 for entries that are parameters, else 0 (network)
    batch_x: int
    batch_y: int
    best: int  # eigenvector (network)
    space: int  # Lanczos vectors (network, each)
    end: int


@jit
def rows_of_product(layout: Layout) -> int:
    """Return how many rows the identity has that replaces the samples in the product form."""
    return layout[0, WIDTH] + layout[0, BIAS]


@jit
def chunk_of(layout: Layout, samples: int) -> int:
    """Return how many samples go through at once: their activations stay in the cache."""
    widest = 1
    for l in range(len(layout)):
        widest = max(widest, layout[l, PAD])
    return min(samples, max(_FEWEST, _CHUNK // widest))


@jit
def places(memory: Array, layout: Layout, samples: int, product: bool, hessian: bool, descent: bool, momentum: bool,
           batch: int, vectors: int) -> Places:  # fmt: skip
    """Return where everything begins in `memory`, for passes over so many samples.

    `hessian`: with room for products with the Hessian; `descent`: for a descent, with `momentum`, minibatches of at
    most `batch` samples, and `vectors` Lanczos vectors. The first piece begins where a cache line does.
    """
    most = max(samples, batch)
    rows = rows_of_product(layout) if product else (most if hessian else chunk_of(layout, most))
    network, stack = layout[0, START], rows * layout[0, STACK]
    largest = 0
    for l in range(1, len(layout)):
        largest = max(largest, layout[l - 1, PAD] * layout[l, PAD])
    residuals = (most if hessian else chunk_of(layout, most)) if product else 0
    theta = -(memory.ctypes.data // memory.itemsize) % (64 // memory.itemsize)
    gradient = theta + network
    x = gradient + network
    y = x + samples * layout[0, PAD]
    z = y + samples * layout[-1, PAD]
    d = z + stack
    residual = d + stack
    turned = residual + residuals * layout[-1, PAD]
    below = turned + largest
    gram = below + (network if hessian else 0)
    moved = gram + (rows * layout[0, PAD] if hessian and product else 0)
    change = moved + (stack if hessian else 0)
    direction = change + (stack if hessian else 0)
    image = direction + (network if hessian else 0)
    other = image + (network if hessian else 0)
    velocity = other + (network if descent else 0)
    mask = velocity + (network if momentum else 0)
    batch_x = mask + (network if descent else 0)
    batch_y = batch_x + batch * layout[0, PAD]
    best = batch_y + batch * layout[-1, PAD]
    space = best + (network if vectors else 0)
    end = space + vectors * network
    return Places(theta, gradient, x, y, z, d, residual, turned, below, gram, moved, change, direction, image, other,
                  velocity, mask, batch_x, batch_y, best, space, end)  # fmt: skip


@jit
def make_memory(layout: Layout, like: Array, samples: int, product: bool, hessian: bool, descent: bool, momentum: bool,
                batch: int, vectors: int) -> Array:  # fmt: skip
    """Return the memory that `places` describes, in the precision of `like`, all zeros."""
    nothing = np.empty(0, like.dtype)
    end = places(nothing, layout, samples, product, hessian, descent, momentum, batch, vectors).end
    # Room to begin at a cache line, and for a vector that is read beyond the end.
    return np.zeros(end + 2 * 64 // like.itemsize, like.dtype)
