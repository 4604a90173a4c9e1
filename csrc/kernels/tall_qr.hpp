// The triangular factor of a tall matrix that is read a few rows at a time.
//
// [R; C] = Q [R'; 0] for a triangle R and a chunk C of rows that fits in cache: column j's reflector is e_j on top, as
// R is triangular already, so only C carries vectors. Eight columns make a panel, whose reflectors I - V T V^T are then
// applied to the rest at once (the kernel called TSQRT in Buttari, Langou, Kurzak, Dongarra 2009). Column by column
// backward stable; Q is never formed.
#pragma once

#include "kernels/gemm.hpp"

namespace hesskern::HESSKERN_ISA {

inline constexpr index panel = 8;

// One row of a panel, as vectors.
struct PanelRow {
    static constexpr int step = lanes<double> < int(panel) ? lanes<double> : int(panel), count = int(panel) / step;
    Vector<double, step> part[count];

    static PanelRow read(const double *source) {
        PanelRow row;
        for (int k = 0; k < count; ++k) row.part[k] = load<double, step>(source + k * step);
        return row;
    }
    void write(double *target) const {
        for (int k = 0; k < count; ++k) store<double, step>(target + k * step, part[k]);
    }
    void scale(const PanelRow &other) {
        for (int k = 0; k < count; ++k) part[k] *= other.part[k];
    }
    void add(const PanelRow &other, double factor) {
        for (int k = 0; k < count; ++k) part[k] += other.part[k] * factor;
    }
};

// Reflectors of one panel: c (rows, from column `first`) becomes V, the panel's rows of R are updated, t is T^T.
inline void factor_panel(double *r, double *c, index stride, index rows, index first, index width, double *t) {
    double *top = r + first * stride + first;
    c += first;
    double gram[panel][panel] = {}, tau[panel] = {};
    for (index j = 0; j < panel && j < width; ++j) {
        // One pass gives the column's norm, its products with the rest of the panel and with the reflectors so far.
        PanelRow sums[4] = {};
        index i = 0;
        for (; i + 4 <= rows; i += 4)
            for (index k = 0; k < 4; ++k) {
                const double *row = c + (i + k) * stride;
                sums[k].add(PanelRow::read(row), row[j]);
            }
        for (; i < rows; ++i) sums[0].add(PanelRow::read(c + i * stride), c[i * stride + j]);
        sums[0].add(sums[1], 1.0);
        sums[2].add(sums[3], 1.0);
        sums[0].add(sums[2], 1.0);
        double w[panel], keep[panel];
        sums[0].write(w);
        const double below = w[j], head = top[j * stride + j];
        tau[j] = 0;
        if (below == 0) continue;  // nothing to eliminate: no reflector
        const double length = square_root(head * head + below), beta = head > 0 ? -length : length;
        const double inverse = 1 / (head - beta);
        tau[j] = (beta - head) / beta;
        top[j * stride + j] = beta;
        for (index k = 0; k < panel; ++k) {
            keep[k] = k == j ? 0.0 : 1.0;
            if (k < j) gram[k][j] = w[k] * inverse;
            if (k > j && k < width) {
                const double change = tau[j] * (w[k] * inverse + top[j * stride + k]);
                top[j * stride + k] -= change;
                w[k] = -change * inverse;
            } else {
                w[k] = k == j ? inverse : 0.0;  // the column becomes its reflector; earlier ones stay
            }
        }
        const PanelRow change = PanelRow::read(w), kept = PanelRow::read(keep);
        for (i = 0; i < rows; ++i) {
            double *row = c + i * stride;
            const double factor = row[j];
            PanelRow moved = PanelRow::read(row);
            moved.scale(kept);
            moved.add(change, factor);
            moved.write(row);
        }
    }
    // T^T, row by row: T[:j, j] = -tau_j T[:j, :j] gram[:j, j].
    for (index k = 0; k < panel * panel; ++k) t[k] = 0;
    for (index j = 0; j < panel && j < width; ++j) {
        t[j * panel + j] = tau[j];
        for (index a = 0; a < j; ++a) {
            double total = 0;
            for (index b = a; b < j; ++b) total += t[b * panel + a] * gram[b][j];
            t[j * panel + a] = -tau[j] * total;
        }
    }
}

// R := the triangular factor of [R; C]; c (rows, columns) is destroyed. Rows of both have `stride` values, a multiple
// of the panel. `work` holds 2 * panel * stride values.
inline void append_rows(double *r, double *c, index stride, index rows, index columns, double *work) {
    double t[panel * panel];
    for (index first = 0; first < columns; first += panel) {
        const index width = smaller(panel, columns - first), next = first + width, rest = columns - next;
        factor_panel(r, c, stride, rows, first, width, t);
        if (rest == 0) return;
        double *sums = work, *change = work + panel * stride;
        for (index j = 0; j < width; ++j)
            std::memcpy(sums + j * stride, r + (first + j) * stride + next, std::size_t(rest) * sizeof(double));
        small_product(width, rest, rows, 1.0, c + first, index(1), stride, c + next, stride, 1.0, sums, stride);
        small_product(width, rest, width, 1.0, t, panel, index(1), sums, stride, 0.0, change, stride);
        for (index j = 0; j < width; ++j) {
            double *row = r + (first + j) * stride + next;
            for (index k = 0; k < rest; ++k) row[k] -= change[j * stride + k];
        }
        small_product(rows, rest, width, -1.0, c + first, stride, index(1), change, stride, 1.0, c + next, stride);
    }
}

// product (columns - split, split) += C[:, split:]^T C[:, :split].
inline void add_cross_product(double *product, const double *c, index stride, index rows, index split, index columns) {
    small_product(columns - split, split, rows, 1.0, c + split, index(1), stride, c, stride, 1.0, product, split);
}

}  // namespace hesskern::HESSKERN_ISA
