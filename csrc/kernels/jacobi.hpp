// One-sided Jacobi: singular values to high relative accuracy.
//
// A bidiagonalisation would lose the small singular values of a graded matrix; Jacobi keeps all that the matrix with
// columns of length one determines (Demmel and Veselic 1992; Drmac and Veselic 2008, SIAM J. Matrix Anal. Appl. 29,
// 1322). Columns are 2^exponent times entries of size one, so that squares of any scale stay in range.
#pragma once

#include "kernels/graded.hpp"

namespace hesskern::HESSKERN_ISA {

// Makes the n columns (length m) of `a` orthogonal; their norms, descending, go to `values` and `exponents`. De Rijk's
// ordering: the largest remaining column first. Returns whether the columns became orthogonal to rounding.
inline bool jacobi(double *a, index *exponents, index stride, index m, index n, double *values) {
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
            Size most(0);
            for (index j = p; j < n; ++j) {
                const Size size(dot(a + j * stride, a + j * stride, m), 2 * exponents[j]);
                if (most < size) most = size, best = j;
            }
            if (best != p) {
                swap_columns(a + best * stride, a + p * stride, m);
                swap(exponents[best], exponents[p]);
            }
            double *x = a + p * stride;
            for (index q = p + 1; q < n; ++q) {
                double *y = a + q * stride;
                const double xx = dot(x, x, m), yy = dot(y, y, m), xy = dot(x, y, m);
                if (xy == 0 || magnitude(xy) <= tolerance * square_root(xx) * square_root(yy)) continue;
                rotated = true;
                // The unit of y over that of x. Below 2^-400 a rotation only subtracts the component along x
                // from y, and x stays.
                const double ratio = two_to(larger(exponents[q] - exponents[p], index(-400)));
                const double zeta = (ratio * yy - xx / ratio) / (2 * xy), size = magnitude(zeta);
                const double t = (zeta < 0 ? -1.0 : 1.0) /
                                 (size > 1e150 ? 2 * size : size + square_root(1 + zeta * zeta));
                const double c = 1 / square_root(1 + t * t), s = c * t;
                const double into_x = s * ratio, into_y = s / ratio;
                for (index k = 0; k < m; ++k) {
                    const double keep = x[k];
                    x[k] = c * keep - into_x * y[k];
                    y[k] = into_y * keep + c * y[k];
                }
            }
        }
    }
    for (index j = 0; j < n; ++j) {
        const Size size(square_root(dot(a + j * stride, a + j * stride, m)), exponents[j]);
        values[j] = size.mantissa;
        exponents[j] = size.exponent;
    }
    const auto less = [&](index i, index j) {
        return exponents[i] != exponents[j] ? exponents[i] < exponents[j] : values[i] < values[j];
    };
    for (index j = 1; j < n; ++j)
        for (index k = j; k > 0 && less(k - 1, k); --k) {
            swap(values[k], values[k - 1]);
            swap(exponents[k], exponents[k - 1]);
        }
    return !rotated;
}

}  // namespace hesskern::HESSKERN_ISA
