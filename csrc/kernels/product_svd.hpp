// Singular values and numerical rank of a product  first W_1^T ... W_count^T  without ever forming it.
//
// After Drmac (1998, SIAM J. Matrix Anal. Appl. 19, 1055). One stage takes C and W and replaces them by one factor with
// the same singular values: with D the column norms of C and W D = Q R P^T (rows sorted by size, columns pivoted),
//     C W^T = (C D^-1) P R^T Q^T,   so C := (C D^-1) P R^T   and the next W := W_next Q.
// Column scales of C and row scales of W, however extreme, pass through exactly (scales are powers of two).
//
// The rank is decided on equilibrated factors, so that scaling cannot hide a direction and rounding noise cannot pose
// as one: every matrix travels with the matrix of the absolute values it was summed from, and that one gives the
// scales.
#pragma once

#include "kernels/jacobi.hpp"
#include "kernels/table.hpp"

namespace hesskern::HESSKERN_ISA {

struct ProductSvdMemory {
    double *c, *c_size, *next, *next_size;  // the factor so far (rows x inner) and its magnitudes; its successor
    double *w, *w_size, *work;              // the weight (outputs x inner), its magnitudes, a copy to destroy
    double *reflector, *beta, *values;
    double *scale;
    index *pivot, *order;
    index stride;  // of every column-major matrix here
};

inline index product_svd_largest(const FactorChain &chain) {
    index most = larger(chain.rows, chain.columns);
    for (index k = 0; k < chain.count; ++k) most = larger(most, chain.outputs[k]);
    return most;
}

template <class Take>
inline ProductSvdMemory product_svd_memory(const FactorChain &chain, Take &&take) {
    ProductSvdMemory m{};
    // Inner dimensions never grow along the chain: no matrix has more columns than the first.
    const index largest = (product_svd_largest(chain) + 7) / 8 * 8, widest = chain.columns;
    m.stride = largest;
    double **matrices[] = {&m.c, &m.c_size, &m.next, &m.next_size, &m.w, &m.w_size, &m.work, &m.reflector};
    for (double **matrix : matrices) *matrix = take(largest * widest);
    m.beta = take(widest);
    m.values = take(largest);
    m.scale = take(2 * largest);
    m.pivot = reinterpret_cast<index *>(take(largest));
    m.order = reinterpret_cast<index *>(take(largest));
    return m;
}

// Row and column scales (powers of two) that bring every row and column maximum of `size` to about one.
inline void equilibrate(const double *size, index stride, index m, index n, double *row_scale, double *column_scale) {
    for (index i = 0; i < m; ++i) row_scale[i] = 1;
    for (index j = 0; j < n; ++j) column_scale[j] = 1;
    for (int pass = 0; pass < 2; ++pass) {
        for (index i = 0; i < m; ++i) {
            double most = 0;
            for (index j = 0; j < n; ++j) most = larger(most, size[j * stride + i] * column_scale[j]);
            row_scale[i] = 1 / power_of_two(most);
        }
        for (index j = 0; j < n; ++j) {
            double most = 0;
            for (index i = 0; i < m; ++i) most = larger(most, size[j * stride + i] * row_scale[i]);
            column_scale[j] = 1 / power_of_two(most);
        }
    }
}

// Singular values of the n columns of `a` (destroyed), descending; min(m, n) of them.
inline index singular_values(const ProductSvdMemory &memory, double *a, index m, index n, double *values,
                             bool *converged) {
    const index stride = memory.stride;
    const index k = pivoted_qr(a, stride, m, n, memory.pivot, memory.reflector, memory.beta);
    // R^T, column by column, over the reflectors that nobody needs now.
    double *lower = memory.reflector;
    for (index r = 0; r < k; ++r)
        for (index j = 0; j < n; ++j) lower[r * stride + j] = j < r ? 0.0 : a[j * stride + r];
    *converged = jacobi(lower, stride, n, k, values) && *converged;
    return k;
}

// Rank of a matrix whose entries carry rounding errors in proportion to `size`.
inline index equilibrated_rank(const ProductSvdMemory &memory, const double *a, const double *size, index m, index n,
                               double tolerance, FactorSpectrum *spectrum) {
    double *row_scale = memory.scale, *column_scale = memory.scale + memory.stride;
    equilibrate(size, memory.stride, m, n, row_scale, column_scale);
    for (index j = 0; j < n; ++j)
        for (index i = 0; i < m; ++i)
            memory.work[j * memory.stride + i] = a[j * memory.stride + i] * row_scale[i] * column_scale[j];
    const index count = singular_values(memory, memory.work, m, n, memory.values, &spectrum->converged);
    const double top = larger(1.0, memory.values[0]);
    index rank = 0;
    while (rank < count && memory.values[rank] > tolerance * top) ++rank;
    if (rank > 0) {
        const double kept = memory.values[rank - 1] / top;
        spectrum->kept = smaller(spectrum->kept, kept);
        spectrum->amplification += 1 / kept;
    }
    if (rank < count) spectrum->dropped = larger(spectrum->dropped, memory.values[rank] / top);
    return rank;
}

// order := the rows of `size`, largest first (Cox and Higham 1998: then pivoted Householder QR is stable row by row).
inline void sort_rows(const ProductSvdMemory &memory, const double *a, index m, index n) {
    double *most = memory.scale;
    for (index i = 0; i < m; ++i) {
        most[i] = 0;
        for (index j = 0; j < n; ++j) most[i] = larger(most[i], magnitude(a[j * memory.stride + i]));
        memory.order[i] = i;
    }
    // Heap sort: no allocation, m log m.
    index *order = memory.order;
    const auto sift = [&](index root, index end) {
        for (index child; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && most[order[child + 1]] < most[order[child]]) ++child;
            if (most[order[root]] <= most[order[child]]) return;
            const index keep = order[root];
            order[root] = order[child];
            order[child] = keep;
        }
    };
    for (index root = m / 2; root-- > 0;) sift(root, m);
    for (index end = m - 1; end > 0; --end) {
        const index keep = order[0];
        order[0] = order[end];
        order[end] = keep;
        sift(0, end);
    }
}

// One stage: C (rows x inner) and W (outputs x inner) become the next C (rows x rank of W). Returns that rank.
inline index product_stage(const ProductSvdMemory &memory, index rows, index inner, index outputs, double tolerance,
                           FactorSpectrum *spectrum) {
    const index stride = memory.stride;
    for (index j = 0; j < inner; ++j) {
        // The magnitudes, not the entries: a column that cancelled to noise must stay small.
        const double norm = square_root(dot(memory.c_size + j * stride, memory.c_size + j * stride, rows));
        const double scale = power_of_two(norm);
        for (index i = 0; i < rows; ++i) memory.c[j * stride + i] /= scale, memory.c_size[j * stride + i] /= scale;
        const double factor = norm == 0 ? 0.0 : scale;
        for (index i = 0; i < outputs; ++i) memory.w[j * stride + i] *= factor, memory.w_size[j * stride + i] *= factor;
    }
    const index rank = equilibrated_rank(memory, memory.w, memory.w_size, outputs, inner, tolerance, spectrum);
    if (rank == 0) return 0;
    sort_rows(memory, memory.w, outputs, inner);
    for (index j = 0; j < inner; ++j)
        for (index i = 0; i < outputs; ++i) memory.work[j * stride + i] = memory.w[j * stride + memory.order[i]];
    pivoted_qr(memory.work, stride, outputs, inner, memory.pivot, memory.reflector, memory.beta);
    for (index r = 0; r < rank; ++r) {
        double *target = memory.next + r * stride, *size = memory.next_size + r * stride;
        for (index i = 0; i < rows; ++i) target[i] = size[i] = 0;
        for (index j = r; j < inner; ++j) {
            const double factor = memory.work[j * stride + r];
            add_multiple(target, factor, memory.c + memory.pivot[j] * stride, rows);
            add_multiple(size, magnitude(factor), memory.c_size + memory.pivot[j] * stride, rows);
        }
    }
    return rank;
}

// W := W_next Q for the Q of the stage just done; magnitudes by the norms of W_next's rows, as Q is orthogonal.
inline void rotate_weight(const ProductSvdMemory &memory, const double *weight, index outputs, index inner,
                          index rank) {
    const index stride = memory.stride;
    for (index o = 0; o < outputs; ++o) {
        double *column = memory.values;  // one row of W_next, in the order of the sorted rows
        for (index i = 0; i < inner; ++i) column[i] = weight[o * inner + memory.order[i]];
        const double norm = square_root(dot(column, column, inner));
        for (index r = 0; r < rank; ++r) {
            const double *v = memory.reflector + r * stride + r;
            add_multiple(column + r, -memory.beta[r] * dot(v, column + r, inner - r), v, inner - r);
        }
        for (index r = 0; r < rank; ++r) memory.w[r * stride + o] = column[r], memory.w_size[r * stride + o] = norm;
    }
}

inline void product_svd(const FactorChain &chain, double *values, FactorSpectrum *spectrum, double *scratch) {
    Scratch<double> pool{scratch};
    ProductSvdMemory memory = product_svd_memory(chain, [&](index count) { return pool.take(count); });
    const index stride = memory.stride;
    *spectrum = FactorSpectrum{0, 1.0, 0.0, 1.0, true};
    index count = smaller(chain.rows, chain.columns);
    for (index k = 0; k < chain.count; ++k) count = smaller(count, chain.outputs[k]);
    for (index k = 0; k < count; ++k) values[k] = 0;

    index inner = chain.columns;
    bool deficient = false;
    double most = 0;  // a common scale, a power of two, so that no square overflows or vanishes
    for (index j = 0; j < inner; ++j)
        for (index i = 0; i < chain.rows; ++i)
            most = larger(most, magnitude(chain.first[i * chain.row_step + j * chain.column_step]));
    const double unit = power_of_two(most);
    for (index j = 0; j < inner; ++j)
        for (index i = 0; i < chain.rows; ++i) {
            const double entry = chain.first[i * chain.row_step + j * chain.column_step] / unit;
            memory.c[j * stride + i] = entry;
            memory.c_size[j * stride + i] = magnitude(entry);
        }
    if (chain.rotated)  // small rows may be nothing but the rounding errors of the rotation
        for (index j = 0; j < inner; ++j) {
            double *size = memory.c_size + j * stride;
            const double norm = square_root(dot(size, size, chain.rows));
            for (index i = 0; i < chain.rows; ++i) size[i] = norm;
        }
    for (index k = 0; k < chain.count; ++k) {
        const index outputs = chain.outputs[k], width = k == 0 ? chain.columns : chain.outputs[k - 1];
        if (k == 0) {
            for (index j = 0; j < width; ++j)
                for (index i = 0; i < outputs; ++i) {
                    memory.w[j * stride + i] = chain.weight[k][i * width + j];
                    memory.w_size[j * stride + i] = magnitude(memory.w[j * stride + i]);
                }
        } else {
            rotate_weight(memory, chain.weight[k], outputs, width, inner);
        }
        const index before = smaller(inner, outputs);
        inner = product_stage(memory, chain.rows, inner, outputs, chain.tolerance, spectrum);
        if (inner == 0) return;
        deficient = deficient || inner < before;
        double *keep = memory.c;
        memory.c = memory.next;
        memory.next = keep;
        keep = memory.c_size;
        memory.c_size = memory.next_size;
        memory.next_size = keep;
    }
    spectrum->rank = equilibrated_rank(memory, memory.c, memory.c_size, chain.rows, inner, chain.tolerance, spectrum);
    deficient = deficient || spectrum->rank < smaller(chain.rows, inner);
    if (spectrum->rank > 0) {
        const index found = singular_values(memory, memory.c, chain.rows, inner, memory.values, &spectrum->converged);
        for (index k = 0; k < smaller(found, count); ++k) values[k] = memory.values[k] * unit;
        // A direction was left out: what rounding made of it may stand above a small value that counts.
        if (deficient) spectrum->amplification += memory.values[0] / memory.values[spectrum->rank - 1];
    }
}

inline index product_svd_scratch(const FactorChain &chain) {
    Scratch<double> pool{nullptr};
    product_svd_memory(chain, [&](index count) { return pool.take(count); });
    return pool.used;
}

}  // namespace hesskern::HESSKERN_ISA
