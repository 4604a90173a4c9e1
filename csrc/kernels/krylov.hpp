// One step of the Lanczos method with full orthogonalisation: a vector is made orthogonal to all others, and of norm 1.
//
// The image of a vector of a Krylov space lies almost entirely in the span of the last few vectors. These are taken out
// first, so that one pass over all vectors is mostly enough. Another follows while a pass takes away more than half of
// what was left (Kahan and Parlett: "twice is enough").
#pragma once

#include "kernels/simd.hpp"

namespace hesskern::HESSKERN_ISA {

// Less than this share of a vector's square is rounding error: nothing of it is outside the span.
inline constexpr double krylov_nothing = 1e-26;
inline constexpr int krylov_passes = 5;
inline constexpr index krylov_panel = 1024;  // entries of a vector that stay in the nearest cache

// product[j] = rows[j] . v for `Rows` rows of any length.
template <class T, int Rows>
inline void row_products(const T *rows, index size, const T *v, T *product) {
    constexpr int L = lanes<T>;
    Vector<T, L> total[Rows];
#pragma GCC unroll 4
    for (int j = 0; j < Rows; ++j) total[j] = Vector<T, L>{};
    index k = 0;
    for (; k + L <= size; k += L) {
        const Vector<T, L> part = load<T, L>(v + k);
#pragma GCC unroll 4
        for (int j = 0; j < Rows; ++j) total[j] += load<T, L>(rows + j * size + k) * part;
    }
#pragma GCC unroll 4
    for (int j = 0; j < Rows; ++j) {
        product[j] = sum<T, L>(total[j]);
        for (index q = k; q < size; ++q) product[j] += rows[j * size + q] * v[q];
    }
}

// v -= factor[j] rows[j] for `Rows` rows, at the entries from `first` to `last`.
template <class T, int Rows>
inline void subtract_rows(const T *rows, index size, const T *factor, T *v, index first, index last) {
    constexpr int L = lanes<T>;
    index k = first;
    for (; k + L <= last; k += L) {
        Vector<T, L> value = load<T, L>(v + k);
#pragma GCC unroll 4
        for (int j = 0; j < Rows; ++j) value -= load<T, L>(rows + j * size + k) * factor[j];
        store<T, L>(v + k, value);
    }
    for (; k < last; ++k)
        for (int j = 0; j < Rows; ++j) v[k] -= rows[j * size + k] * factor[j];
}

template <class T>
inline double norm_squared(const T *v, index size) {
    T total;
    row_products<T, 1>(v, size, v, &total);
    return double(total);
}

// v -= V^T V v for the rows of V (count, size); `factors` has room for `count` numbers.
template <class T>
inline void take_out(const T *rows, index count, index size, T *v, T *factors) {
    index j = 0;
    for (; j + 4 <= count; j += 4) row_products<T, 4>(rows + j * size, size, v, factors + j);
    for (; j < count; ++j) row_products<T, 1>(rows + j * size, size, v, factors + j);
    for (index first = 0; first < size; first += krylov_panel) {
        const index last = smaller(first + krylov_panel, size);
        for (j = 0; j + 4 <= count; j += 4) subtract_rows<T, 4>(rows + j * size, size, factors + j, v, first, last);
        for (; j < count; ++j) subtract_rows<T, 1>(rows + j * size, size, factors + j, v, first, last);
    }
}

// Makes v orthogonal to the rows (count, size), which are orthonormal, and of norm 1; the last `near` of them are taken
// out first. False if nothing is left of it.
template <class T>
inline bool orthonormalise(const T *rows, index count, index near, index size, T *v, T *factors) {
    const double before = norm_squared(v, size);
    near = smaller(near, count);
    take_out(rows + (count - near) * size, near, size, v, factors);
    double left = norm_squared(v, size);
    for (int pass = 0; pass < krylov_passes; ++pass) {
        if (!(left > krylov_nothing * before)) return false;
        take_out(rows, count, size, v, factors);
        const double now = norm_squared(v, size);
        const bool enough = now > 0.25 * left;
        left = now;
        if (enough) break;
    }
    if (!(left > krylov_nothing * before)) return false;
    const T factor = T(1 / square_root(left));
    for (index k = 0; k < size; ++k) v[k] *= factor;
    return true;
}

}  // namespace hesskern::HESSKERN_ISA
