"""The dense Hessian, or any block of it, every entry written once.

Parameters of one layer carry two indices, outer and inner (output and input of the weight). In the rows (r, s) of one
layer and the columns (p, q) of another ``H[(r,s),(p,q)] = U[r,p] V[s,q] + B[s,p] W[r,q]``: the Gauss-Newton part is a
Kronecker product, the functional part couples outer with inner indices. A layer's biases are the parameters of its last
inner index, the constant input, and come after the weights.

Each run of entries is written in whole vectors, past its end into the next run, which overwrites it afterwards. A
matrix larger than the caches is built row by row in a buffer that is then streamed to memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.vectors import VECTOR_BYTES, fence, load, store_past_caches, write_runs

#: Bytes of a matrix from which it is written past the caches.
_STREAM_FROM = 4 << 20

#: Columns of the sides (outer indices, inner indices without the constant, whether there are biases) and of the
#: blocks (where U, V, B and W begin in the factors, how far their rows are apart: U and B, V and W; whether B and W).
OUTER, INNER, BIASED = range(3)
U, V, B, W, OUTER_STRIDE, INNER_STRIDE, FUNCTIONAL = range(7)


@jit
def size_of(sides: NDArray[np.int64], l: int) -> int:
    """Return how many parameters a side has."""
    return sides[l, OUTER] * (sides[l, INNER] + sides[l, BIASED])


@jit
def _row(sides: NDArray[np.int64], blocks: NDArray[np.int64], m: int, factors: Array, r: int, s: int, target: Array,
         at: int) -> None:  # fmt: skip
    """Write the row of the parameter (r, s) of layer m over all columns."""
    for l in range(len(sides)):
        outer, inner, functional = sides[l, OUTER], sides[l, INNER], blocks[m, l, FUNCTIONAL] != 0
        outer_stride, inner_stride = blocks[m, l, OUTER_STRIDE], blocks[m, l, INNER_STRIDE]
        u, v = blocks[m, l, U] + r * outer_stride, blocks[m, l, V] + s * inner_stride
        b, w = blocks[m, l, B] + s * outer_stride, blocks[m, l, W] + r * inner_stride
        if inner > 0:
            write_runs(target, at, factors, v, u, w, b, outer, inner, functional)
        if sides[l, BIASED]:
            write_runs(target, at + outer * inner, factors, u, v + inner, b, w + inner, 1, outer, functional)
        at += size_of(sides, l)


@jit
def _stream(buffer: Array, out: Array, at: int, count: int) -> None:
    """out[at : at + count] = buffer, past the caches where whole aligned vectors are written."""
    lanes = VECTOR_BYTES // out.itemsize
    first = min(count, (-(out.ctypes.data // out.itemsize + at)) % lanes)
    for k in range(first):
        out[at + k] = buffer[k]
    k = first
    while k + lanes <= count:
        store_past_caches(out, at + k, load(buffer, k))
        k += lanes
    while k < count:
        out[at + k] = buffer[k]
        k += 1


@jit
def assemble(rows: NDArray[np.int64], columns: NDArray[np.int64], blocks: NDArray[np.int64], factors: Array,
             first: int, last: int, out: Array) -> None:  # fmt: skip
    """Write the rows from `first` to before `last` of a block of the Hessian into `out`, flat."""
    width = 0
    for column in range(len(columns)):
        width += size_of(columns, column)
    lanes, streams = VECTOR_BYTES // out.itemsize, len(out) * out.itemsize >= _STREAM_FROM
    buffer = np.empty(width + lanes, out.dtype)
    k = 0
    for m in range(len(rows)):
        inner, size = rows[m, INNER], size_of(rows, m)
        weights = rows[m, OUTER] * inner
        for j in range(max(0, first - k), min(last - k, size)):
            r, s = (j // inner, j % inner) if j < weights else (j - weights, inner)
            at = (k + j) * width
            if streams:
                _row(columns, blocks, m, factors, r, s, buffer, 0)
                _stream(buffer, out, at, width)
            elif k + j + 1 < last and width >= lanes:  # the next row overwrites what goes past this one's end
                _row(columns, blocks, m, factors, r, s, out, at)
            else:
                _row(columns, blocks, m, factors, r, s, buffer, 0)
                for c in range(width):
                    out[at + c] = buffer[c]
        k += size
    if streams:
        fence()
