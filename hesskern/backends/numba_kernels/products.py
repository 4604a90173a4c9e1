"""Products of matrices in padded rows: in vectors where they are small, by BLAS where they are large.

A matrix is a piece of one flat memory, given by its offset and the distance between its rows. Dimensions that vectors
run along are padded to whole vectors.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from hesskern._base.array_types import Array
from hesskern.backends.numba_kernels.compile import jit
from hesskern.backends.numba_kernels.vectors import (
    TILE_VECTORS,
    VECTOR_BYTES,
    product_strip_1,
    product_strip_2,
    turn_block,
)

#: Multiply-adds from which BLAS is called. With AVX2 the two hardly differ from 64 to 112 cubed, and BLAS is faster
#: from 128 on (bench task jitted_gemm); with AVX-512 that of the C++ loops, which have the same tiles.
_BLAS_FROM = 256**3 if VECTOR_BYTES == 64 else 112**3

_pointer, _index = types.voidptr, types.intp
#: SciPy's BLAS as Numba itself calls it for `np.dot`, which has no strides and cannot accumulate.
_gemm = types.ExternalFunction(
    "numba_xxgemm",
    types.intc(types.char, types.char, types.char, _index, _index, _index, _pointer, _pointer, _index, _pointer,
               _index, _pointer, _pointer, _index),
)  # fmt: skip
_N, _T = ord("n"), ord("t")


@jit
def multiply_by_loops(
    memory: Array,
    m: int,
    n: int,
    k: int,
    alpha: float,
    a: int,
    a_row: int,
    a_column: int,
    b: int,
    ldb: int,
    accumulate: bool,
    c: int,
    ldc: int,
) -> None:
    """Multiply as `multiply`, in vectors."""
    lanes, factor, j = VECTOR_BYTES // memory.itemsize, memory.dtype.type(alpha), 0
    while j + TILE_VECTORS * lanes <= n:
        product_strip_2(memory, m, k, factor, a, a_row, a_column, b + j, ldb, accumulate, c + j, ldc)
        j += TILE_VECTORS * lanes
    if j < n:
        product_strip_1(memory, m, k, factor, a, a_row, a_column, b + j, ldb, accumulate, c + j, ldc)


@jit
def multiply(memory: Array, m: int, n: int, k: int, alpha: float, a: int, a_row: int, a_column: int, b: int, ldb: int,
             accumulate: bool, c: int, ldc: int) -> None:  # fmt: skip
    """C (m, n) = alpha A B (+ C); A(i, p) is at ``a + i a_row + p a_column``, and one of the strides is 1."""
    if m * n * k > _BLAS_FROM and min(m, k) > 1:
        turned = a_column != 1
        multiply_by_blas(
            memory, turned, False, m, n, k, alpha, a, a_column if turned else a_row, b, ldb, accumulate, c, ldc
        )
        return
    multiply_by_loops(memory, m, n, k, alpha, a, a_row, a_column, b, ldb, accumulate, c, ldc)


@jit
def multiply_turned(memory: Array, m: int, n: int, k: int, alpha: float, a: int, lda: int, b: int, ldb: int,
                    accumulate: bool, c: int, ldc: int, turned: int) -> None:  # fmt: skip
    """C (m, n) = alpha A B.T (+ C); `turned` has room for B.T."""
    if m * n * k > _BLAS_FROM and min(m, k) > 1:
        multiply_by_blas(memory, False, True, m, n, k, alpha, a, lda, b, ldb, accumulate, c, ldc)
        return
    lanes = VECTOR_BYTES // memory.itemsize
    for i in range(0, n, lanes):
        for j in range(0, k, lanes):
            turn_block(memory, b + i * ldb + j, ldb, turned + j * n + i, n)
    multiply(memory, m, n, k, alpha, a, lda, 1, turned, n, accumulate, c, ldc)


@jit
def multiply_by_blas(memory: Array, turn_a: bool, turn_b: bool, m: int, n: int, k: int, alpha: float, a: int, lda: int,
                     b: int, ldb: int, accumulate: bool, c: int, ldc: int) -> None:  # fmt: skip
    """C = alpha op(A) op(B) (+ C), computed as C.T = op(B).T op(A).T, because the library is column-major."""
    factors = np.empty(2, memory.dtype)
    factors[0], factors[1] = alpha, 1.0 if accumulate else 0.0
    kind = ord("d") if memory.itemsize == 8 else ord("s")
    _gemm(kind, _T if turn_b else _N, _T if turn_a else _N, n, m, k, factors.ctypes, memory[b:].ctypes, ldb,
          memory[a:].ctypes, lda, factors[1:].ctypes, memory[c:].ctypes, ldc)  # fmt: skip
