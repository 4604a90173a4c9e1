// Matrices whose rows and columns have any scale: 2^row * entry * 2^column, with integer exponents and entries up to
// one. Nothing overflows or vanishes, and no scale hides a digit of another.
//
// Every entry has the size of its errors beside it: the effect of a relative rounding error in the data, in the same
// units and per rounding unit. Column-major, `stride` between columns.
#pragma once

#include "kernels/simd.hpp"

namespace hesskern::HESSKERN_ISA {

struct Graded {
    double *entry, *error;
    index *row, *column;  // exponents
};

inline constexpr index no_exponent = -(index(1) << 40);  // that of zero

// 2^exponent; zero or a very large number for what is out of range.
inline double two_to(index exponent) {
    if (exponent < -1022) return 0;
    const std::uint64_t bits = std::uint64_t(smaller(exponent, index(1000)) + 1023) << 52;
    double power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
}

inline double scaled(double x, index exponent) {
    const index half = exponent / 2;  // 2^exponent itself may be out of range
    return x * two_to(half) * two_to(exponent - half);
}

// The exponent that brings |x| into [1/2, 1).
inline index exponent_of(double x) {
    if (x == 0) return no_exponent;
    index below = 0;
    if (magnitude(x) < 0x1p-1022) x *= 0x1p64, below = 64;
    std::uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return index(bits >> 52 & 0x7ff) - 1022 - below;
}

// A nonnegative number of any size.
struct Size {
    double mantissa;
    index exponent;

    explicit Size(double x, index by = 0) : mantissa(0), exponent(exponent_of(x)) {
        if (x == 0) return;
        mantissa = scaled(x, -exponent);
        exponent += by;
    }
    bool operator<(const Size &other) const {
        if (mantissa == 0 || other.mantissa == 0) return mantissa < other.mantissa;
        return exponent != other.exponent ? exponent < other.exponent : mantissa < other.mantissa;
    }
    // Zero only if the number is zero: a very small number is not certainly zero.
    double over(const Size &other) const {
        return mantissa == 0 ? 0 : mantissa / other.mantissa * two_to(larger(exponent - other.exponent, index(-900)));
    }
};

inline double dot(const double *a, const double *b, index n) {
    constexpr int L = lanes<double>;
    Vector<double, L> acc = {};
    index k = 0;
    for (; k + L <= n; k += L) acc += load<double, L>(a + k) * load<double, L>(b + k);
    double total = sum<double, L>(acc);
    for (; k < n; ++k) total += a[k] * b[k];
    return total;
}

// Sum of weight * a^2.
inline double squares(const double *weight, const double *a, index n) {
    constexpr int L = lanes<double>;
    Vector<double, L> acc = {};
    index k = 0;
    for (; k + L <= n; k += L) {
        const Vector<double, L> x = load<double, L>(a + k);
        acc += load<double, L>(weight + k) * x * x;
    }
    double total = sum<double, L>(acc);
    for (; k < n; ++k) total += weight[k] * a[k] * a[k];
    return total;
}

// Norm of weight * a: the size of the weighted sum of independent errors a. Only its square may overflow.
inline double spread(const double *weight, const double *a, index n) {
    constexpr int L = lanes<double>;
    const auto norm = [=](double unit) {
        Vector<double, L> acc = {};
        index k = 0;
        for (; k + L <= n; k += L) {
            const Vector<double, L> x = load<double, L>(weight + k) * load<double, L>(a + k) * unit;
            acc += x * x;
        }
        double total = sum<double, L>(acc);
        for (; k < n; ++k) total += weight[k] * a[k] * unit * weight[k] * a[k] * unit;
        return square_root(total);
    };
    const double found = norm(1);
    return found < __builtin_inf() ? found : norm(0x1p-512) * 0x1p512;
}

inline void add_multiple(double *target, double factor, const double *source, index n) {
    for (index k = 0; k < n; ++k) target[k] += factor * source[k];
}

template <class T>
inline void swap(T &a, T &b) {
    const T keep = a;
    a = b;
    b = keep;
}

inline void swap_columns(double *a, double *b, index n) {
    for (index k = 0; k < n; ++k) swap(a[k], b[k]);
}

inline double size_of(double entry, double error, double tolerance) {
    return larger(magnitude(entry), tolerance * error);
}

// Scales every row and column to entries of one at most; noise counts by its own size. `most` holds 2 * rows.
inline void balance(const Graded &m, index stride, index rows, index columns, double tolerance, double *most) {
    double *const factor = most + rows;
    for (index i = 0; i < rows; ++i) most[i] = 0;
    for (index j = 0; j < columns; ++j) {
        const double *const entry = m.entry + j * stride, *const error = m.error + j * stride;
        for (index i = 0; i < rows; ++i) most[i] = larger(most[i], size_of(entry[i], error[i], tolerance));
    }
    bool near = true;  // products of powers of two stay in range
    for (index i = 0; i < rows; ++i) {
        const index by = most[i] > 0 ? exponent_of(most[i]) : 0;
        near = near && by < 300 && by > -300;
        m.row[i] += by;
        most[i] = double(by);
        factor[i] = two_to(-by);
    }
    for (index j = 0; j < columns; ++j) {
        double *const entry = m.entry + j * stride, *const error = m.error + j * stride;
        double top = 0;
        for (index i = 0; i < rows; ++i) top = larger(top, factor[i] * size_of(entry[i], error[i], tolerance));
        if (near && (top == 0 || top > 0x1p-600)) {
            const index by = top > 0 ? exponent_of(top) : 0;
            const double down = two_to(-by);
            m.column[j] += by;
            for (index i = 0; i < rows; ++i) entry[i] *= factor[i] * down, error[i] *= factor[i] * down;
            continue;
        }
        index by = no_exponent;
        for (index i = 0; i < rows; ++i) {
            const double size = size_of(entry[i], error[i], tolerance);
            if (size > 0) by = larger(by, exponent_of(size) - index(most[i]));
        }
        if (by == no_exponent) by = 0;
        m.column[j] += by;
        for (index i = 0; i < rows; ++i) {
            entry[i] = scaled(entry[i], -index(most[i]) - by);
            error[i] = scaled(error[i], -index(most[i]) - by);
        }
    }
}

}  // namespace hesskern::HESSKERN_ISA
