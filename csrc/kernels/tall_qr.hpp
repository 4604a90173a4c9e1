// The triangular factor of a tall matrix that is read a few rows at a time.
//
// [R; C] = Q [R'; 0] for a triangle R and a chunk C of rows that fits in cache: column j's reflector is e_j on top, as R
// is triangular already, so only C carries vectors. Eight columns make a panel, whose reflectors I - V T V^T are then
// applied to the rest at once (the kernel called TSQRT in Buttari, Langou, Kurzak, Dongarra 2009). Column by column
// backward stable; Q is never formed.
#pragma once

#include "kernels/gemm.hpp"

namespace hesskern::HESSKERN_ISA {

inline constexpr index panel = 8;

// One row of a panel, in as many vectors as it takes.
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
    void add(const PanelRow &other, double factor) {
        for (int k = 0; k < count; ++k) part[k] += other.part[k] * factor;
    }
};

// Reflectors of one panel: c (rows, from column `first`) becomes V, the panel's rows of R are updated, t is T^T.
inline void factor_panel(double *r, double *c, index stride, index rows, index first, index width, double *t) {
    double *top = r + first * stride + first;
    c += first;
    double gram[panel][panel] = {}, tau[panel] = {};
    for (index j = 0; j < width; ++j) {
        double norm[4] = {};
        index i = 0;
        for (; i + 4 <= rows; i += 4)
            for (index k = 0; k < 4; ++k) norm[k] += c[(i + k) * stride + j] * c[(i + k) * stride + j];
        for (; i < rows; ++i) norm[0] += c[i * stride + j] * c[i * stride + j];
        const double below = (norm[0] + norm[1]) + (norm[2] + norm[3]), head = top[j * stride + j];
        tau[j] = 0;
        if (below == 0) {  // nothing to eliminate: no reflector
            for (i = 0; i < rows; ++i) c[i * stride + j] = 0;
            continue;
        }
        const double length = square_root(head * head + below), beta = head > 0 ? -length : length;
        tau[j] = (beta - head) / beta;
        top[j * stride + j] = beta;
        const double inverse = 1 / (head - beta);
        PanelRow sums[2] = {};
        for (i = 0; i + 2 <= rows; i += 2)
            for (index k = 0; k < 2; ++k) {
                double *row = c + (i + k) * stride;
                row[j] *= inverse;
                sums[k].add(PanelRow::read(row), row[j]);
            }
        for (; i < rows; ++i) {
            double *row = c + i * stride;
            row[j] *= inverse;
            sums[0].add(PanelRow::read(row), row[j]);
        }
        double w[panel];
        sums[0].add(sums[1], 1.0);
        sums[0].write(w);
        for (index k = 0; k < j; ++k) gram[k][j] = w[k];  // v_k . v_j below the triangle
        for (index k = 0; k < panel; ++k) {
            if (k <= j || k >= width) {
                w[k] = 0;  // V itself, and what lies beyond the matrix, stay
                continue;
            }
            w[k] = tau[j] * (w[k] + top[j * stride + k]);
            top[j * stride + k] -= w[k];
        }
        const PanelRow change = PanelRow::read(w);
        for (i = 0; i < rows; ++i) {
            double *row = c + i * stride;
            PanelRow moved = PanelRow::read(row);
            moved.add(change, -row[j]);
            moved.write(row);
        }
    }
    // T^T, row by row: T[:j, j] = -tau_j T[:j, :j] gram[:j, j].
    for (index k = 0; k < panel * panel; ++k) t[k] = 0;
    for (index j = 0; j < width; ++j) {
        t[j * panel + j] = tau[j];
        for (index a = 0; a < j; ++a) {
            double total = 0;
            for (index b = a; b < j; ++b) total += t[b * panel + a] * gram[b][j];
            t[j * panel + a] = -tau[j] * total;
        }
    }
}

// R := the triangular factor of [R; C]; c (rows, columns) is destroyed. Rows of both have `stride` values, a multiple of
// the panel. `work` holds 2 * panel * stride values.
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

}  // namespace hesskern::HESSKERN_ISA
