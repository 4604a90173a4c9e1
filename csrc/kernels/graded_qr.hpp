// QR decomposition of a graded matrix, rows and columns pivoted, with the errors of every entry.
//
// With the largest row of the pivot column on top, Householder's reflections are stable row by row (Cox and Higham
// 1998) and R has the accuracy that the two-sided scaled matrix determines (Higham 2000, SIAM Rev. 42); a plain one
// mixes small rows with the rounding errors of large ones. Rows stay in their own units, the scalar products are
// weighted.
#pragma once

#include "kernels/graded.hpp"

namespace hesskern::HESSKERN_ISA {

// What counts as zero along the product, and how certain that is.
struct Decisions {
    double tolerance;     // an entry that is no larger than this times its error is zero
    double kept = 1;      // the smallest pivot over its error
    double dropped = 0;   // the largest of what was taken for zero over its error
    double lost = 0;      // errors outside what is kept, over the smallest that is kept
    double relative = 0;  // relative error of the values, per rounding unit
    double unknown = 0;   // the largest error of a pivot over it, without that of entries that were taken for zero

    void remove_noise(double *entry, const double *error, index n) {
        int noise = 0;
        for (index i = 0; i < n; ++i) noise |= magnitude(entry[i]) <= tolerance * error[i];
        if (!noise) return;
        for (index i = 0; i < n; ++i) {
            if (magnitude(entry[i]) > tolerance * error[i] || entry[i] == 0) continue;
            dropped = larger(dropped, magnitude(entry[i]) / error[i]);
            entry[i] = 0;
        }
    }
};

struct GradedQr {
    index m, n, count, rank;  // count = min(m, n)
    Graded r;                 // the errors also below the diagonal
    index *order, *pivot;     // of rows and columns
    double *v, *beta;         // reflections I - beta v (weight^2 v)^T, one column each, rows in their own units
    double *left, *upper;     // the errors of R as (I + left) (R + upper), see part_errors
    double *inverse;          // |R^-1|, rank x rank
    double *weight, *weighted;
};

inline void weigh(const GradedQr &qr, index stride, index k, index from) {
    for (index i = from; i < qr.m; ++i) {
        qr.weight[i] = two_to(qr.r.row[i] - qr.r.row[k]);
        qr.weighted[i] = qr.weight[i] * (qr.weight[i] * qr.v[k * stride + i]);  // the square may be out of range
    }
}

// The error of column k, without that of entries that count as zero.
inline double own_error(const GradedQr &qr, index stride, index k) {
    const double *const entry = qr.r.entry + k * stride, *const error = qr.r.error + k * stride;
    double total = 0;
    for (index i = k; i < qr.m; ++i) {
        const double wrong = entry[i] != 0 ? qr.weight[i] * error[i] : 0.0;
        total += wrong * wrong;
    }
    return square_root(total);
}

// error := that of x - scale source (...): independent errors add up as squares do, and so do not grow.
inline void take_errors(double *error, const double *entry, double arriving, const double *source, index n) {
    for (index i = 0; i < n; ++i)
        error[i] = larger(larger(error[i], arriving * magnitude(source[i])), magnitude(entry[i]));
}

// The column of the largest norm, rows measured in the unit 2^base.
inline Size largest_column(const GradedQr &qr, index stride, index k, index base, index *column) {
    for (index i = k; i < qr.m; ++i) qr.weight[i] = two_to(2 * (qr.r.row[i] - base));
    Size most(0);
    for (index j = k; j < qr.n; ++j) {
        const Size size(squares(qr.weight + k, qr.r.entry + j * stride + k, qr.m - k), 2 * qr.r.column[j]);
        if (most < size) most = size, *column = j;
    }
    return most;
}

// The column of the largest norm, and its largest row; false if all that is left counts as zero.
inline bool choose_pivot(const GradedQr &qr, index stride, index k, index *column, index *row) {
    const Graded &r = qr.r;
    index base = no_exponent;
    for (index i = k; i < qr.m; ++i) base = larger(base, r.row[i]);
    if (largest_column(qr, stride, k, base, column).mantissa == 0) {  // rows of zeros may have hidden the others
        base = no_exponent;
        for (index j = k; j < qr.n; ++j)
            for (index i = k; i < qr.m; ++i)
                if (r.entry[j * stride + i] != 0 && r.row[i] > base) base = r.row[i];
        if (base == no_exponent) return false;
        largest_column(qr, stride, k, base, column);
    }
    const double *const entry = r.entry + *column * stride;
    double most = 0;
    for (index i = k; i < qr.m; ++i) {
        const double square = qr.weight[i] * entry[i] * entry[i];
        if (most < square) most = square, *row = i;
    }
    return true;
}

inline void swap_rows(const GradedQr &qr, index stride, index a, index b) {
    for (index j = 0; j < qr.n; ++j) {
        swap(qr.r.entry[j * stride + a], qr.r.entry[j * stride + b]);
        swap(qr.r.error[j * stride + a], qr.r.error[j * stride + b]);
    }
    for (index j = 0; j < qr.rank; ++j) swap(qr.v[j * stride + a], qr.v[j * stride + b]);
    swap(qr.r.row[a], qr.r.row[b]);
    swap(qr.order[a], qr.order[b]);
}

// Decomposes qr.r in place.
inline void factor(GradedQr &qr, index stride, index m, index n, Decisions &decisions) {
    const Graded &r = qr.r;
    qr.m = m, qr.n = n, qr.count = smaller(m, n), qr.rank = 0;
    for (index i = 0; i < m; ++i) qr.order[i] = i;
    for (index j = 0; j < n; ++j) {
        qr.pivot[j] = j;
        decisions.remove_noise(r.entry + j * stride, r.error + j * stride, m);
    }
    for (index k = 0; k < qr.count; ++k) {
        index column = k, row = k;
        if (!choose_pivot(qr, stride, k, &column, &row)) return;
        if (column != k) {
            swap_columns(r.entry + column * stride, r.entry + k * stride, m);
            swap_columns(r.error + column * stride, r.error + k * stride, m);
            swap(r.column[column], r.column[k]);
            swap(qr.pivot[column], qr.pivot[k]);
        }
        if (row != k) swap_rows(qr, stride, row, k);
        double *const v = qr.v + k * stride, *const pivot = r.entry + k * stride;
        const index rest = m - k;
        // Over a power of two, so that the pivot is about one: squares in its row's unit may be out of range.
        const index shift = -exponent_of(pivot[k]);
        for (index i = 0; i < m; ++i) v[i] = i < k ? 0.0 : scaled(pivot[i], shift);
        weigh(qr, stride, k, k);
        const double norm = square_root(dot(qr.weighted + k, v + k, rest));
        const double error = scaled(spread(qr.weight + k, r.error + k * stride + k, rest), shift);
        if (norm < decisions.kept * error) decisions.kept = norm / error;
        decisions.unknown = larger(decisions.unknown, scaled(own_error(qr, stride, k), shift) / norm);
        const double head = v[k] > 0 ? -norm : norm;
        v[k] -= head;
        qr.weighted[k] = v[k];
        qr.beta[k] = -1.0 / (head * v[k]);
        pivot[k] = scaled(head, -shift);
        for (index i = k + 1; i < m; ++i) pivot[i] = 0;
        for (index j = 0; j < n; ++j) {
            double *const entry = r.entry + j * stride + k, *const errors = r.error + j * stride + k;
            if (j > k) add_multiple(entry, -qr.beta[k] * dot(qr.weighted + k, entry, rest), v + k, rest);
            const double arriving = qr.beta[k] * spread(qr.weighted + k, errors, rest);
            take_errors(errors, entry, arriving, v + k, rest);
            if (j > k) {
                // An error in the pivot's column takes as much of the pivot's row with it, also where the entry itself
                // was noise.
                const double share = magnitude(entry[0] / pivot[k]), *const own = r.error + k * stride + k;
                for (index i = 1; i < rest; ++i) errors[i] = larger(errors[i], own[i] * share);
            }
            if (j > k) decisions.remove_noise(entry + 1, errors + 1, rest - 1);
        }
        ++qr.rank;
    }
}

// |R^-1| of the first `rank` columns, without their units.
inline void invert(const GradedQr &qr, index stride) {
    for (index l = 0; l < qr.rank; ++l) {
        double *const x = qr.inverse + l * stride;
        for (index k = 0; k < qr.rank; ++k) x[k] = k == l ? 1.0 : 0.0;
        for (index k = l + 1; k-- > 0;) {
            const double *const column = qr.r.entry + k * stride;
            x[k] /= column[k];
            add_multiple(x, -x[k], column, k);
        }
        for (index k = 0; k <= l; ++k) x[k] = magnitude(x[k]);
    }
}

// The errors E of R as two: to first order R + E is (I + left) (R + upper), left below the diagonal (m x rank, in units
// of 2^(row k - row l)) and upper above it (count x n, in units of R): E_low R^-1 is `left` and what it has above the
// diagonal, which times R goes into `upper`. As rows and columns are pivoted, neither divides errors of a large scale
// by a small one.
inline void part_errors(const GradedQr &qr, index stride) {
    const index rank = qr.rank;
    invert(qr, stride);
    for (index j = 0; j < qr.n; ++j)
        for (index k = 0; k < qr.count; ++k) qr.upper[j * stride + k] = k <= j ? qr.r.error[j * stride + k] : 0.0;
    for (index l = 0; l < rank; ++l) {
        double *const y = qr.left + l * stride;
        for (index k = 0; k < qr.m; ++k) y[k] = 0;
        for (index j = 0; j <= l; ++j)
            add_multiple(y + j + 1, qr.inverse[l * stride + j], qr.r.error + j * stride + j + 1, qr.m - j - 1);
        for (index j = l; j < qr.n; ++j) {
            const double size = magnitude(qr.r.entry[j * stride + l]);
            add_multiple(qr.upper + j * stride, size, y, l + 1);
            if (j >= rank) add_multiple(qr.upper + j * stride + l + 1, size, y + l + 1, qr.count - l - 1);
        }
        for (index k = 0; k <= l; ++k) y[k] = 0;
    }
}

// Norm of `left` with its units.
inline double left_change(const GradedQr &qr, index stride) {
    double total = 0;
    for (index l = 0; l < qr.rank; ++l)
        for (index k = l + 1; k < qr.rank; ++k) {
            const double change = qr.left[l * stride + k] * two_to(qr.r.row[k] - qr.r.row[l]);
            total += change * change;
        }
    return square_root(total);
}

// Norm of the rows of `left` after the rank: what R has there of its kept rows.
inline double left_outside(const GradedQr &qr, index stride) {
    double total = 0;
    bool any = false;
    for (index l = 0; l < qr.rank; ++l)
        for (index k = qr.rank; k < qr.m; ++k) {
            const double change = qr.left[l * stride + k] * two_to(qr.r.row[k] - qr.r.row[l]);
            any |= qr.left[l * stride + k] != 0;
            total += change * change;
        }
    return any ? larger(square_root(total), two_to(-900)) : 0.0;  // what is very small is not certainly zero
}

// Norm of R^-1 upper: R + upper is R (I + R^-1 upper).
inline double right_change(const GradedQr &qr, index stride, double *work) {
    double total = 0;
    for (index l = 0; l < qr.n; ++l) {
        for (index k = 0; k < qr.rank; ++k) work[k] = 0;
        for (index j = 0; j < qr.rank; ++j)
            add_multiple(work, qr.upper[l * stride + j], qr.inverse + j * stride, j + 1);
        for (index k = 0; k < qr.rank; ++k) {
            const double change = work[k] * two_to(qr.r.column[l] - qr.r.column[k]);
            total += change * change;
        }
    }
    return square_root(total);
}

// The errors in the rows after the rank, over the smallest pivot that is kept.
inline double errors_outside(const GradedQr &qr, index stride) {
    const Graded &r = qr.r;
    Size beside(0), outside(0), row(1), whole(1);  // relative to the same columns, and altogether
    for (index k = 0; k < qr.rank; ++k) {
        const double pivot = magnitude(r.entry[k * stride + k]);
        const Size this_row(pivot, r.row[k]), this_whole(pivot, r.row[k] + r.column[k]);
        if (k == 0 || this_row < row) row = this_row;
        if (k == 0 || this_whole < whole) whole = this_whole;
    }
    for (index j = 0; j < qr.n; ++j)
        for (index i = qr.rank; i < qr.m; ++i) {
            const Size size(r.error[j * stride + i], r.row[i] + (j < qr.rank ? 0 : r.column[j]));
            Size &most = j < qr.rank ? beside : outside;
            if (most < size) most = size;
        }
    return larger(beside.over(row), outside.over(whole));
}

}  // namespace hesskern::HESSKERN_ISA
