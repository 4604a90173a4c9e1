// Eigenvalues and eigenvectors of a small symmetric matrix: Householder's tridiagonal form, then implicit QL steps.
//
// For matrices of a few rows a call of LAPACK costs more than the computation.
#pragma once

#include "kernels/simd.hpp"

namespace hesskern::HESSKERN_ISA {

// The largest m that is allowed below.
inline constexpr index symmetric_eigen_largest = 48;

// Makes a (m, m) tridiagonal, with `diagonal` and `beside` (m - 1), and v the orthogonal matrix whose rows are the new
// basis.
inline void tridiagonalise(index m, double *a, double *v, double *diagonal, double *beside, index stride,
                           double *work) {
    for (index k = 0; k + 2 < m; ++k) {
        double *u = a + k * stride;  // row k beyond the diagonal: the vector that the reflection folds onto one entry
        double tail = 0;
        for (index j = k + 2; j < m; ++j) tail += u[j] * u[j];
        if (tail == 0) {
            beside[k] = u[k + 1];
            continue;
        }
        const double norm = square_root(u[k + 1] * u[k + 1] + tail);
        beside[k] = u[k + 1] > 0 ? -norm : norm;
        u[k + 1] -= beside[k];
        const double factor = 2 / (u[k + 1] * u[k + 1] + tail);
        double along = 0;
        for (index i = k + 1; i < m; ++i) {
            double total = 0;
            for (index j = k + 1; j < m; ++j) total += a[i * stride + j] * u[j];
            work[i] = factor * total;
            along += work[i] * u[i];
        }
        for (index i = k + 1; i < m; ++i) work[i] -= 0.5 * factor * along * u[i];
        for (index i = k + 1; i < m; ++i)
            for (index j = k + 1; j < m; ++j) a[i * stride + j] -= u[i] * work[j] + work[i] * u[j];
        for (index j = 0; j < m; ++j) work[j] = 0;
        for (index i = k + 1; i < m; ++i)
            for (index j = 0; j < m; ++j) work[j] += u[i] * v[i * stride + j];
        for (index i = k + 1; i < m; ++i)
            for (index j = 0; j < m; ++j) v[i * stride + j] -= factor * u[i] * work[j];
    }
    if (m > 1) beside[m - 2] = a[(m - 2) * stride + m - 1];
    for (index k = 0; k < m; ++k) diagonal[k] = a[k * stride + k];
}

// One implicit QL step with Wilkinson's shift on the rows first ... last of a tridiagonal matrix.
inline void ql_step(index m, index first, index last, double *diagonal, double *beside, double *v, index stride) {
    double g = (diagonal[first + 1] - diagonal[first]) / (2 * beside[first]);
    const double root = square_root(g * g + 1);
    g = diagonal[last] - diagonal[first] + beside[first] / (g + (g < 0 ? -root : root));
    double s = 1, c = 1, shift = 0;
    for (index i = last - 1; i >= first; --i) {
        const double f = s * beside[i], b = c * beside[i], r = square_root(f * f + g * g);
        if (i + 1 < last) beside[i + 1] = r;
        if (r == 0) {
            diagonal[i + 1] -= shift;
            return;
        }
        const double inverse = 1 / r;
        s = f * inverse;
        c = g * inverse;
        g = diagonal[i + 1] - shift;
        const double t = (diagonal[i] - g) * s + 2 * c * b;
        shift = s * t;
        diagonal[i + 1] = g + shift;
        g = c * t - b;
        double *lower = v + i * stride, *upper = lower + stride;
        for (index k = 0; k < m; ++k) {
            const double above = upper[k];
            upper[k] = s * lower[k] + c * above;
            lower[k] = c * lower[k] - s * above;
        }
    }
    diagonal[first] -= shift;
    beside[first] = g;
}

// Eigenvalues of a (m, m), m <= symmetric_eigen_largest, falling, and its eigenvectors, the rows of v. Off-diagonal
// entries below `tolerance`, relative to the largest, are neglected; each moves an eigenvalue by at most its own size.
// a and `beside` (m) are destroyed.
inline void symmetric_eigen(index m, double *a, double *v, double *values, double *beside, index stride,
                            double tolerance) {
    double size = 0;
    for (index p = 0; p < m; ++p)
        for (index q = 0; q < m; ++q) {
            size = larger(size, magnitude(a[p * stride + q]));
            v[p * stride + q] = p == q;
        }
    const double down = size > 0 ? 1 / size : 0;  // so that no square overflows
    for (index p = 0; p < m; ++p)
        for (index q = 0; q < m; ++q) a[p * stride + q] *= down;
    double work[symmetric_eigen_largest];
    tridiagonalise(m, a, v, values, beside, stride, work);
    for (index first = 0; first < m; ++first)
        for (int round = 0; round < 60; ++round) {
            index last = first;
            while (last + 1 < m && !(magnitude(beside[last]) <= tolerance)) ++last;
            if (last == first) break;
            ql_step(m, first, last, values, beside, v, stride);
        }
    for (index p = 0; p < m; ++p) values[p] *= size;
    for (index p = 0; p + 1 < m; ++p) {
        index best = p;
        for (index q = p + 1; q < m; ++q)
            if (values[q] > values[best]) best = q;
        if (best == p) continue;
        const double value = values[p];
        values[p] = values[best];
        values[best] = value;
        for (index k = 0; k < m; ++k) {
            const double other = v[p * stride + k];
            v[p * stride + k] = v[best * stride + k];
            v[best * stride + k] = other;
        }
    }
}

}  // namespace hesskern::HESSKERN_ISA
