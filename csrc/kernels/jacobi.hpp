// Singular values to high relative accuracy: column-pivoted QR, then one-sided Jacobi on R^T.
//
// Matrices here are column-major (`stride` between columns), so every loop runs along a column. A bidiagonalisation
// would lose the small singular values of a graded matrix; Jacobi keeps all that the scaled matrix determines (Drmac
// and Veselic 2008, SIAM J. Matrix Anal. Appl. 29, 1322).
#pragma once

#include "kernels/simd.hpp"

namespace hesskern::HESSKERN_ISA {

inline double dot(const double *a, const double *b, index n) {
    constexpr int L = lanes<double>;
    Vector<double, L> acc = {};
    index k = 0;
    for (; k + L <= n; k += L) acc += load<double, L>(a + k) * load<double, L>(b + k);
    double total = sum<double, L>(acc);
    for (; k < n; ++k) total += a[k] * b[k];
    return total;
}

inline void add_multiple(double *target, double factor, const double *source, index n) {
    for (index k = 0; k < n; ++k) target[k] += factor * source[k];
}

inline void swap_columns(double *a, double *b, index n) {
    for (index k = 0; k < n; ++k) {
        const double keep = a[k];
        a[k] = b[k];
        b[k] = keep;
    }
}

// The power of two next to |x|: scaling by it rounds nothing.
inline double power_of_two(double x) {
    std::uint64_t bits;
    std::memcpy(&bits, &x, sizeof x);
    bits &= 0x7ff0000000000000u;
    double power;
    std::memcpy(&power, &bits, sizeof power);
    return power > 0 ? power : 1.0;
}

// A = Q R P^T in place: R above the diagonal, reflectors in `reflector` (one column each) with `beta`, column j of R
// P^T at `pivot[j]`. Returns min(m, n), the number of rows of R.
inline index pivoted_qr(double *a, index stride, index m, index n, index *pivot, double *reflector, double *beta) {
    const index steps = smaller(m, n);
    for (index j = 0; j < n; ++j) pivot[j] = j;
    for (index k = 0; k < steps; ++k) {
        index best = k;
        double most = -1;
        for (index j = k; j < n; ++j) {
            const double norm = dot(a + j * stride + k, a + j * stride + k, m - k);
            if (norm > most) most = norm, best = j;
        }
        if (best != k) {
            swap_columns(a + best * stride, a + k * stride, m);
            const index keep = pivot[best];
            pivot[best] = pivot[k];
            pivot[k] = keep;
        }
        double *column = a + k * stride;
        double *v = reflector + k * stride;
        for (index i = 0; i < m; ++i) v[i] = i < k ? 0.0 : column[i];
        const double norm = square_root(most > 0 ? most : 0.0);
        beta[k] = 0;
        if (norm == 0) continue;
        const double head = v[k] > 0 ? -norm : norm;
        v[k] -= head;
        beta[k] = -1.0 / (head * v[k]);
        column[k] = head;
        for (index i = k + 1; i < m; ++i) column[i] = 0;
        for (index j = k + 1; j < n; ++j) {
            double *other = a + j * stride + k;
            add_multiple(other, -beta[k] * dot(v + k, other, m - k), v + k, m - k);
        }
    }
    return steps;
}

// One-sided Jacobi on the n columns (length m) of `a`; their norms, descending, go to `values`. De Rijk's ordering: the
// largest remaining column first. Returns whether the columns became orthogonal to rounding.
inline bool jacobi(double *a, index stride, index m, index n, double *values) {
    constexpr double unit = 1.1102230246251565e-16;
    constexpr int most_sweeps = 60;
    // Columns that were just made orthogonal are so up to the rounding of their entries (2 units of the cosine each
    // way) and of the dot product (about sqrt(m)): asking for more could rotate for ever.
    const double tolerance = unit * (4 + square_root(double(m)));
    bool rotated = true;
    for (int sweep = 0; rotated && sweep < most_sweeps; ++sweep) {
        rotated = false;
        for (index p = 0; p + 1 < n; ++p) {
            index best = p;
            double most = -1;
            for (index j = p; j < n; ++j) {
                const double norm = dot(a + j * stride, a + j * stride, m);
                if (norm > most) most = norm, best = j;
            }
            if (best != p) swap_columns(a + best * stride, a + p * stride, m);
            double *x = a + p * stride;
            for (index q = p + 1; q < n; ++q) {
                double *y = a + q * stride;
                const double xx = dot(x, x, m), yy = dot(y, y, m), xy = dot(x, y, m);
                if (xy == 0 || magnitude(xy) <= tolerance * square_root(xx) * square_root(yy)) continue;
                rotated = true;
                const double zeta = (yy - xx) / (2 * xy), size = magnitude(zeta);
                const double t = (zeta < 0 ? -1.0 : 1.0) /
                                 (size > 1e150 ? 2 * size : size + square_root(1 + zeta * zeta));
                const double c = 1 / square_root(1 + t * t), s = c * t;
                for (index k = 0; k < m; ++k) {
                    const double keep = x[k];
                    x[k] = c * keep - s * y[k];
                    y[k] = s * keep + c * y[k];
                }
            }
        }
    }
    for (index j = 0; j < n; ++j) values[j] = square_root(dot(a + j * stride, a + j * stride, m));
    for (index j = 1; j < n; ++j)
        for (index k = j; k > 0 && values[k - 1] < values[k]; --k) {
            const double keep = values[k];
            values[k] = values[k - 1];
            values[k - 1] = keep;
        }
    return !rotated;
}

}  // namespace hesskern::HESSKERN_ISA
