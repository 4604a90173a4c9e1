// Singular values and numerical rank of a product  first W_1^T ... W_count^T  without ever forming it.
//
// After Drmac (1998, SIAM J. Matrix Anal. Appl. 19, 1055). One stage takes C and W and replaces them by one factor with
// the same singular values: with W = Q R P^T (rows and columns pivoted),
//     C W^T = (C P) R^T Q^T,   so C := (C P) R^T   and the next W := W_next Q.
// Before it, the scales of C's columns go to those of W, and those of W_next's columns to the rows of W, so that every
// scale of every side passes through exactly (kernels/graded.hpp).
//
// Every entry has its errors beside it. An entry no larger than its error counts as zero, so that scaling cannot hide a
// direction and rounding noise cannot make one. The errors at the end give the uncertainty.
#pragma once

#include "kernels/graded_qr.hpp"
#include "kernels/jacobi.hpp"
#include "kernels/pass.hpp"
#include "kernels/table.hpp"

namespace hesskern::HESSKERN_ISA {

struct ProductSvdMemory {
    Graded c, next, weight;  // the factor so far (rows x inner), its successor, the weight as given (outputs x inner)
    GradedQr qr;             // r holds the weight of a stage, and at last the factor
    double *work, *work_error;
    index *unit, *new_unit;
    index stride;  // of every column-major matrix here
};

inline index padded(index length) { return (length + 7) / 8 * 8; }

template <class Take>
inline ProductSvdMemory product_svd_memory(const FactorChain &chain, Take &&take) {
    ProductSvdMemory m{};
    index widest = chain.columns, tallest = chain.rows;
    for (index k = 0; k + 1 < chain.count; ++k) widest = larger(widest, chain.outputs[k]);
    for (index k = 0; k < chain.count; ++k) tallest = larger(tallest, chain.outputs[k]);
    m.stride = padded(tallest);  // not the width: a wide matrix of few rows may have very many columns
    const index largest = padded(larger(tallest, chain.columns));
    // Weights have their own width; the result of a QR decomposition has no more columns than the first matrix.
    const index inner = chain.columns, whole = m.stride * widest;
    const auto take_index = [&](index count) { return reinterpret_cast<index *>(take(count)); };
    const auto take_graded = [&](index numbers) {
        Graded graded;
        graded.entry = take(numbers);
        graded.error = take(numbers);
        graded.row = take_index(largest);
        graded.column = take_index(largest);
        return graded;
    };
    m.c = take_graded(m.stride * inner);
    m.next = take_graded(m.stride * inner);
    m.weight = take_graded(whole);
    m.qr.r = take_graded(whole);
    m.qr.v = take(larger(whole, padded(inner) * smaller(chain.rows, inner)));  // at last the rows of R as columns
    m.qr.left = take(whole);
    m.qr.upper = take(whole);
    m.qr.inverse = take(whole);
    m.qr.order = take_index(largest);
    m.qr.pivot = take_index(largest);
    double **vectors[] = {&m.qr.beta, &m.qr.weight, &m.qr.weighted, &m.work_error};
    for (double **vector : vectors) *vector = take(largest);
    m.work = take(2 * largest);
    m.unit = take_index(largest);
    m.new_unit = take_index(largest);
    return m;
}

// target := the matrix (element (i, j) at i * row_step + j * column_step), balanced, an error in every entry.
inline void read_graded(const Graded &target, index stride, const double *source, index rows, index columns,
                        index row_step, index column_step, double tolerance, double *work) {
    for (index i = 0; i < rows; ++i) target.row[i] = 0;
    for (index j = 0; j < columns; ++j) {
        target.column[j] = 0;
        for (index i = 0; i < rows; ++i) {
            const double x = source[i * row_step + j * column_step];
            target.entry[j * stride + i] = x;
            target.error[j * stride + i] = magnitude(x);
        }
    }
    balance(target, stride, rows, columns, tolerance, work);
}

inline void read_first(const ProductSvdMemory &memory, const FactorChain &chain) {
    const Graded &c = memory.c;
    if (!chain.rotated) {
        read_graded(c, memory.stride, chain.first, chain.rows, chain.columns, chain.row_step, chain.column_step,
                    chain.tolerance, memory.work);
        return;
    }
    // Small rows may be nothing but the rounding errors of the rotation: these go with the columns.
    for (index i = 0; i < chain.rows; ++i) c.row[i] = 0;
    for (index j = 0; j < chain.columns; ++j) {
        double *const entry = c.entry + j * memory.stride, *const error = c.error + j * memory.stride;
        double most = 0;
        for (index i = 0; i < chain.rows; ++i) {
            entry[i] = chain.first[i * chain.row_step + j * chain.column_step];
            most = larger(most, magnitude(entry[i]));
        }
        c.column[j] = most > 0 ? exponent_of(most) : 0;
        for (index i = 0; i < chain.rows; ++i) entry[i] = scaled(entry[i], -c.column[j]);
        const double norm = square_root(dot(entry, entry, chain.rows));
        for (index i = 0; i < chain.rows; ++i) error[i] = norm;
    }
}

inline void read_weight(const ProductSvdMemory &memory, const FactorChain &chain, index k, const Graded &target) {
    const index width = k == 0 ? chain.columns : chain.outputs[k - 1];
    read_graded(target, memory.stride, chain.weight[k], chain.outputs[k], width, width, 1, chain.tolerance,
                memory.work);
}

// r := weight Q for the Q of the stage just done, columns in units of 2^-rows of the rows of R that they multiply; its
// errors take in those of Q.
inline void rotate_weight(const ProductSvdMemory &memory, index outputs) {
    const GradedQr &qr = memory.qr;
    const index stride = memory.stride, units = qr.m;
    double *const z = memory.work, *const error = memory.work_error;
    std::memcpy(memory.unit, qr.r.row, std::size_t(units) * sizeof(index));
    for (index o = 0; o < outputs; ++o) {
        index unit = no_exponent;
        for (index i = 0; i < units; ++i) {
            z[i] = memory.weight.entry[qr.order[i] * stride + o];
            if (z[i] != 0) unit = larger(unit, exponent_of(z[i]) + memory.unit[i]);
        }
        if (unit == no_exponent) unit = 0;
        for (index i = 0; i < units; ++i) {
            z[i] *= two_to(memory.unit[i] - unit);
            error[i] = magnitude(z[i]);
        }
        for (index k = 0; k < qr.rank; ++k) {
            const double *const v = qr.v + k * stride;
            const double factor = qr.beta[k] * dot(v, z, units), arriving = qr.beta[k] * spread(v, error, units);
            for (index i = k; i < units; ++i) {
                const double scale = two_to(memory.unit[i] - memory.unit[k]);
                qr.weighted[i] = scale * (scale * v[i]);
            }
            add_multiple(z + k, -factor, qr.weighted + k, units - k);
            take_errors(error + k, z + k, arriving, qr.weighted + k, units - k);
        }
        for (index l = 0; l < qr.rank; ++l) error[l] = larger(error[l], spread(qr.left + l * stride, z, units));
        for (index l = 0; l < qr.count; ++l) {
            qr.r.entry[l * stride + o] = z[l];
            qr.r.error[l * stride + o] = error[l];
        }
        memory.new_unit[o] = memory.weight.row[o] + unit;
    }
    std::memcpy(qr.r.row, memory.new_unit, std::size_t(outputs) * sizeof(index));
    for (index l = 0; l < qr.count; ++l) qr.r.column[l] = 0;
}

// next := C P R^T without the scales of R's rows, which go to the columns of the next weight.
inline void times_transposed(const ProductSvdMemory &memory, index rows, Decisions &decisions) {
    const GradedQr &qr = memory.qr;
    const index stride = memory.stride;
    for (index k = 0; k < qr.count; ++k) {
        double *const entry = memory.next.entry + k * stride, *const error = memory.next.error + k * stride;
        index unit = no_exponent;
        for (index j = 0; j < qr.n; ++j) {
            const double size = larger(magnitude(k <= j ? qr.r.entry[j * stride + k] : 0.0),
                                       decisions.tolerance * qr.upper[j * stride + k]);
            if (size > 0) unit = larger(unit, exponent_of(size) + qr.r.column[j]);
        }
        if (unit == no_exponent) unit = 0;
        for (index i = 0; i < rows; ++i) entry[i] = error[i] = 0;
        for (index j = smaller(k, qr.rank); j < qr.n; ++j) {
            const double by = two_to(qr.r.column[j] - unit);
            const double factor = qr.r.entry[j * stride + k] * by, doubt = qr.upper[j * stride + k] * by;
            const double *const c = memory.c.entry + qr.pivot[j] * stride;
            const double *const c_error = memory.c.error + qr.pivot[j] * stride;
            for (index i = 0; i < rows; ++i) {
                entry[i] += factor * c[i];
                error[i] += factor * c_error[i] * factor * c_error[i] + doubt * c[i] * doubt * c[i];
            }
        }
        for (index i = 0; i < rows; ++i) error[i] = larger(square_root(error[i]), magnitude(entry[i]));
        decisions.remove_noise(entry, error, rows);
        memory.next.column[k] = unit;
    }
    for (index i = 0; i < rows; ++i) memory.next.row[i] = memory.c.row[i];
}

// Singular values of R, descending.
inline bool singular_values(const ProductSvdMemory &memory, double *values, index *exponents) {
    const GradedQr &qr = memory.qr;
    double *const rows = qr.v;  // the rows of R as columns, over reflections that nobody needs any more
    const index stride = padded(qr.n);
    for (index k = 0; k < qr.rank; ++k) {
        index unit = no_exponent;
        for (index j = k; j < qr.n; ++j) {
            const double entry = qr.r.entry[j * memory.stride + k];
            if (entry != 0) unit = larger(unit, exponent_of(entry) + qr.r.column[j]);
        }
        for (index j = 0; j < qr.n; ++j)
            rows[k * stride + j] = j < k ? 0.0 : qr.r.entry[j * memory.stride + k] * two_to(qr.r.column[j] - unit);
        exponents[k] = unit + qr.r.row[k];
    }
    return jacobi(rows, exponents, stride, qr.n, qr.rank, values);
}

inline void take_over(const Graded &target, const Graded &source, index stride, index rows, index columns) {
    std::memcpy(target.entry, source.entry, std::size_t(stride * columns) * sizeof(double));
    std::memcpy(target.error, source.error, std::size_t(stride * columns) * sizeof(double));
    std::memcpy(target.row, source.row, std::size_t(rows) * sizeof(index));
    std::memcpy(target.column, source.column, std::size_t(columns) * sizeof(index));
}

// The rank of one factor; the largest possible one if rounding errors hide entries of it.
inline index possible_rank(const ProductSvdMemory &memory, const Graded &given, index rows, index columns,
                           double tolerance) {
    GradedQr qr = memory.qr;
    const index stride = memory.stride;
    Decisions decisions{tolerance};
    take_over(qr.r, given, stride, rows, columns);
    factor(qr, stride, rows, columns, decisions);
    for (index j = 0; j < columns; ++j)
        for (index i = j < qr.rank ? qr.rank : 0; i < rows; ++i) {
            const index at = qr.pivot[j] * stride + qr.order[i];
            const double size = magnitude(given.entry[at]);
            if (size > tolerance * given.error[at] && size <= tolerance * qr.r.error[j * stride + i]) return qr.count;
        }
    return qr.rank;
}

// The smallest of the factors.
inline index smallest_rank(const ProductSvdMemory &memory, const FactorChain &chain) {
    read_first(memory, chain);
    index least = possible_rank(memory, memory.c, chain.rows, chain.columns, chain.tolerance);
    for (index k = 0; k < chain.count; ++k) {
        const index width = k == 0 ? chain.columns : chain.outputs[k - 1];
        read_weight(memory, chain, k, memory.weight);
        least = smaller(least, possible_rank(memory, memory.weight, chain.outputs[k], width, chain.tolerance));
    }
    return least;
}

inline void product_svd(const FactorChain &chain, double *values, index *exponents, FactorSpectrum *spectrum,
                        double *scratch) {
    Scratch<double> pool{scratch};
    ProductSvdMemory memory = product_svd_memory(chain, [&](index count) { return pool.take(count); });
    const index stride = memory.stride;
    Decisions decisions{chain.tolerance};
    GradedQr &qr = memory.qr;
    index inner = chain.columns, most = smaller(chain.rows, chain.columns);
    read_first(memory, chain);
    if (chain.count > 0) read_weight(memory, chain, 0, qr.r);
    for (index k = 0; k < chain.count; ++k) {
        const index outputs = chain.outputs[k];
        most = smaller(most, outputs);
        if (k > 0) rotate_weight(memory, outputs);
        for (index j = 0; j < inner; ++j) qr.r.column[j] += memory.c.column[j];
        balance(qr.r, stride, outputs, inner, chain.tolerance, memory.work);
        if (k + 1 < chain.count) {
            read_weight(memory, chain, k + 1, memory.weight);
            for (index i = 0; i < outputs; ++i) qr.r.row[i] += memory.weight.column[i];
        }
        factor(qr, stride, outputs, inner, decisions);
        part_errors(qr, stride);
        times_transposed(memory, chain.rows, decisions);
        swap(memory.c, memory.next);
        inner = qr.count;
        balance(memory.c, stride, chain.rows, inner, chain.tolerance, memory.work);
    }
    if (chain.count > 0) {
        for (index k = 0; k < inner; ++k) memory.c.column[k] += qr.r.row[k];
        decisions.relative += left_change(qr, stride);
        decisions.lost = left_outside(qr, stride);
    }
    take_over(qr.r, memory.c, stride, chain.rows, inner);
    factor(qr, stride, chain.rows, inner, decisions);
    for (index k = 0; k < most; ++k) values[k] = 0, exponents[k] = 0;
    bool converged = true;
    if (qr.rank > 0) {
        decisions.lost = larger(decisions.lost, errors_outside(qr, stride));
        part_errors(qr, stride);
        decisions.relative += left_change(qr, stride) + right_change(qr, stride, memory.work);
        converged = singular_values(memory, values, exponents);
    }
    const double amplification = larger(1 + decisions.relative, decisions.unknown);
    *spectrum = {qr.rank, decisions.kept, decisions.dropped, amplification, decisions.lost, converged};
    // No factor lacks the direction: the product cancels, or rounding errors hide what is left.
    if (qr.rank < most && spectrum->rank < smallest_rank(memory, chain)) spectrum->dropped = spectrum->kept;
}

inline index product_svd_scratch(const FactorChain &chain) {
    Scratch<double> pool{nullptr};
    product_svd_memory(chain, [&](index count) { return pool.take(count); });
    return pool.used;
}

}  // namespace hesskern::HESSKERN_ISA
