// Small dense products C = beta C + alpha op(A) op(B), row-major; large ones go to BLAS.
//
// Two loops are enough: `product` runs its vectors along the rows of B and C (A may be read with any strides, so it is
// A or A^T), `product_nt` runs them along the summed index of A and B^T. Callers choose the layout in which the long
// dimension is contiguous; BLAS takes over above `blas_threshold` multiply-adds, measured by
// bench/tasks/gemm.py.
#pragma once

#include "kernels/blas.hpp"
#include "kernels/simd.hpp"

namespace hesskern::HESSKERN_ISA {

// With 512-bit vectors these loops are as fast as a BLAS without AVX-512, and little slower than one with it.
inline constexpr index blas_threshold = HESSKERN_VECTOR_BYTES == 64 ? 256 * 256 * 256 : 64 * 64 * 64;
// Vectors along a tile's rows: four need 21 registers, and only AVX-512 has 32 of them.
inline constexpr int tile_columns = HESSKERN_VECTOR_BYTES == 64 ? 4 : 3;
inline constexpr index blas_largest = 2147483647;

// The accumulators live in registers only if every loop over them is unrolled, the one that zeroes them too: an
// initialiser in braces would go through memory.
template <class T, int Lanes, int Rows, int Columns>
inline void product_tile(index k, T alpha, const T *a, index a_row, index a_column, const T *b, index ldb, T beta, T *c,
                         index ldc) {
    using V = Vector<T, Lanes>;
    V acc[Rows][Columns];
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < Columns; ++j) acc[i][j] = V{};
    for (index p = 0; p < k; ++p) {
        V row[Columns];
#pragma GCC unroll 8
        for (int j = 0; j < Columns; ++j) row[j] = load<T, Lanes>(b + p * ldb + j * Lanes);
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) {
            const T scalar = a[i * a_row + p * a_column];
#pragma GCC unroll 8
            for (int j = 0; j < Columns; ++j) acc[i][j] += row[j] * scalar;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < Columns; ++j) {
            T *target = c + i * ldc + j * Lanes;
            V value = acc[i][j] * alpha;
            if (!is_zero(beta)) value += load<T, Lanes>(target) * beta;
            store<T, Lanes>(target, value);
        }
}

// Rows of a tile: all registers but those for a row of B and one element of A.
template <int Columns>
inline constexpr int tile_rows = HESSKERN_VECTOR_BYTES == 64 ? (Columns == 4 ? 6 : 8) : (Columns == 1 ? 8 : 4);

// The `m` < Most + 1 rows that are left.
template <class T, int Lanes, int Columns, int Most>
inline void product_rest(index m, index k, T alpha, const T *a, index a_row, index a_column, const T *b, index ldb,
                         T beta, T *c, index ldc) {
    if constexpr (Most > 0) {
        if (m == Most)
            product_tile<T, Lanes, Most, Columns>(k, alpha, a, a_row, a_column, b, ldb, beta, c, ldc);
        else
            product_rest<T, Lanes, Columns, Most - 1>(m, k, alpha, a, a_row, a_column, b, ldb, beta, c, ldc);
    }
}

template <class T, int Lanes, int Columns>
inline void product_strip(index m, index k, T alpha, const T *a, index a_row, index a_column, const T *b, index ldb,
                          T beta, T *c, index ldc) {
    constexpr int rows = tile_rows<Columns>;
    index i = 0;
    for (; i + rows <= m; i += rows)
        product_tile<T, Lanes, rows, Columns>(k, alpha, a + i * a_row, a_row, a_column, b, ldb, beta, c + i * ldc, ldc);
    product_rest<T, Lanes, Columns, rows - 1>(m - i, k, alpha, a + i * a_row, a_row, a_column, b, ldb, beta,
                                              c + i * ldc, ldc);
}

// Columns that fill no whole vector, with vectors of half the width each time.
template <class T, int Lanes>
inline void product_tail(index m, index n, index k, T alpha, const T *a, index a_row, index a_column, const T *b,
                         index ldb, T beta, T *c, index ldc) {
    if (n >= Lanes) {
        product_strip<T, Lanes, 1>(m, k, alpha, a, a_row, a_column, b, ldb, beta, c, ldc);
        b += Lanes;
        c += Lanes;
        n -= Lanes;
    }
    if constexpr (Lanes > 1) {
        if (n > 0) product_tail<T, Lanes / 2>(m, n, k, alpha, a, a_row, a_column, b, ldb, beta, c, ldc);
    }
}

// C (m,n) = beta C + alpha A B with A(i,p) = a[i * a_row + p * a_column], B (k,n).
template <class T>
inline void small_product(index m, index n, index k, T alpha, const T *a, index a_row, index a_column, const T *b,
                          index ldb, T beta, T *c, index ldc) {
    constexpr int L = lanes<T>;
    index j = 0;
    for (; j + tile_columns * L <= n; j += tile_columns * L)
        product_strip<T, L, tile_columns>(m, k, alpha, a, a_row, a_column, b + j, ldb, beta, c + j, ldc);
    const index vectors = (n - j) / L;
    if (tile_columns > 3 && vectors == 3)
        product_strip<T, L, 3>(m, k, alpha, a, a_row, a_column, b + j, ldb, beta, c + j, ldc);
    if (vectors == 2) product_strip<T, L, 2>(m, k, alpha, a, a_row, a_column, b + j, ldb, beta, c + j, ldc);
    if (vectors == 1) product_strip<T, L, 1>(m, k, alpha, a, a_row, a_column, b + j, ldb, beta, c + j, ldc);
    j += vectors * L;
    if constexpr (L > 1) {
        if (j < n) product_tail<T, L / 2>(m, n - j, k, alpha, a, a_row, a_column, b + j, ldb, beta, c + j, ldc);
    }
}

template <class T, int Rows, int Columns>
inline void dot_tile(index k, T alpha, const T *a, index lda, const T *b, index ldb, T beta, T *c, index ldc) {
    constexpr int L = lanes<T>;
    using V = Vector<T, L>;
    V acc[Rows][Columns];
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < Columns; ++j) acc[i][j] = V{};
    index p = 0;
    for (; p + L <= k; p += L) {
        V right[Columns];
#pragma GCC unroll 4
        for (int j = 0; j < Columns; ++j) right[j] = load<T, L>(b + j * ldb + p);
#pragma GCC unroll 4
        for (int i = 0; i < Rows; ++i) {
            const V left = load<T, L>(a + i * lda + p);
#pragma GCC unroll 4
            for (int j = 0; j < Columns; ++j) acc[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < Columns; ++j) {
            T total = sum<T, L>(acc[i][j]);
            for (index q = p; q < k; ++q) total += a[i * lda + q] * b[j * ldb + q];
            T &target = c[i * ldc + j];
            target = is_zero(beta) ? alpha * total : beta * target + alpha * total;
        }
}

template <class T, int Rows>
inline void dot_strip(index n, index k, T alpha, const T *a, index lda, const T *b, index ldb, T beta, T *c,
                      index ldc) {
    index j = 0;
    for (; j + 4 <= n; j += 4) dot_tile<T, Rows, 4>(k, alpha, a, lda, b + j * ldb, ldb, beta, c + j, ldc);
    for (; j < n; ++j) dot_tile<T, Rows, 1>(k, alpha, a, lda, b + j * ldb, ldb, beta, c + j, ldc);
}

// C (m,n) = beta C + alpha A B^T with A (m,k), B (n,k). Dot products where they are long and few: adding up the lanes
// of one costs as much as transposing sixteen entries of B. Else a transposed copy of a panel of B pays for itself.
template <class T>
inline void small_product_nt(index m, index n, index k, T alpha, const T *a, index lda, const T *b, index ldb, T beta,
                             T *c, index ldc) {
    constexpr index L = lanes<T>, panel_rows = 64, panel_columns = tile_columns * L;
    if (m < 4 ? k >= L : k > 16 * m) {
        index i = 0;
        for (; i + 4 <= m; i += 4) dot_strip<T, 4>(n, k, alpha, a + i * lda, lda, b, ldb, beta, c + i * ldc, ldc);
        for (; i < m; ++i) dot_strip<T, 1>(n, k, alpha, a + i * lda, lda, b, ldb, beta, c + i * ldc, ldc);
        return;
    }
    T turned[panel_rows * panel_columns];
    for (index j = 0; j < n; j += panel_columns) {
        const index width = smaller(panel_columns, n - j), stride = (width + L - 1) / L * L;
        for (index p = 0; p < k; p += panel_rows) {
            const index height = smaller(panel_rows, k - p);
            transpose(b + j * ldb + p, ldb, width, height, turned, stride);
            // Whole vectors where the rows of C have room for them: what lies beyond `n` there is padding, and zero.
            small_product(m, ldc >= j + stride ? stride : width, height, alpha, a + p, lda, index(1), turned, stride,
                          p == 0 ? beta : T(1), c + j, ldc);
        }
    }
}

// Whether BLAS is loaded, faster for this size, and able to index the operands.
template <class T>
inline bool use_blas(const Blas<T> &blas, index m, index n, index k, index lda, index ldb, index ldc) {
    return blas.gemm && m * n * k > blas_threshold && m > 1 && n > 1 && k > 1 && m <= blas_largest &&
           n <= blas_largest && k <= blas_largest && lda <= blas_largest && ldb <= blas_largest && ldc <= blas_largest;
}

// Row-major C = A B is column-major C^T = B^T A^T: the operands change places, nothing is transposed or copied.
template <class T>
inline void call_blas(const Blas<T> &blas, bool transpose_a, bool transpose_b, index m, index n, index k, T alpha,
                      const T *a, index lda, const T *b, index ldb, T beta, T *c, index ldc) {
    char left = transpose_b ? 'T' : 'N', right = transpose_a ? 'T' : 'N';
    int rows = int(n), columns = int(m), inner = int(k), stride_b = int(ldb), stride_a = int(lda), stride_c = int(ldc);
    blas.gemm(&left, &right, &rows, &columns, &inner, &alpha, const_cast<T *>(b), &stride_b, const_cast<T *>(a),
              &stride_a, &beta, c, &stride_c);
}

template <class T>
inline void multiply_nn(const Blas<T> &blas, index m, index n, index k, T alpha, const T *a, index lda, const T *b,
                        index ldb, T beta, T *c, index ldc) {
    if (use_blas(blas, m, n, k, lda, ldb, ldc))
        call_blas(blas, false, false, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        small_product(m, n, k, alpha, a, lda, index(1), b, ldb, beta, c, ldc);
}

// C (m,n) = beta C + alpha A^T B with A (k,m), B (k,n).
template <class T>
inline void multiply_tn(const Blas<T> &blas, index m, index n, index k, T alpha, const T *a, index lda, const T *b,
                        index ldb, T beta, T *c, index ldc) {
    if (use_blas(blas, m, n, k, lda, ldb, ldc))
        call_blas(blas, true, false, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        small_product(m, n, k, alpha, a, index(1), lda, b, ldb, beta, c, ldc);
}

template <class T>
inline void multiply_nt(const Blas<T> &blas, index m, index n, index k, T alpha, const T *a, index lda, const T *b,
                        index ldb, T beta, T *c, index ldc) {
    if (use_blas(blas, m, n, k, lda, ldb, ldc))
        call_blas(blas, false, true, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        small_product_nt(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace hesskern::HESSKERN_ISA
