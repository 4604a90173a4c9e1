// How far rounding errors may take a run at full width from the exact trajectory.
//
// Let a hidden layer l have more units than its neighbours together, and q be a unit vector orthogonal to all weights
// that touch it. The exact trajectory never moves along q. Each step multiplies rounding errors along q (q a^T below
// the layer, c q^T above it) by at most 1 + rate ||C||_2 with C = D_{l+1}^T Z_{l-1}: the residual taken back to the
// layer above, times the input of the layer (G = E^T X for two layers). With momentum the factor is the larger root of
// the recurrence's polynomial. The norm is computed after 0, 1, 2, 4, ... 64 and then every 64 steps, and the growth in
// between is interpolated: the result has to be right in its order of magnitude, and must cost less than the step.
#pragma once

#include "kernels/descent_problem.hpp"
#include "kernels/hessian_product.hpp"

namespace hesskern::HESSKERN_ISA {

inline constexpr index leak_interval = 64;

inline bool leak_is_due(const Leak &leak, index step) {
    return leak.count > 0 && step != leak.last_step &&
           (step % leak_interval == 0 || (step < leak_interval && (step & (step - 1)) == 0));
}

// The Hessian's factors at these weights on these samples.
template <class T>
inline void look_at(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, double scale,
                    Curvature<T> &curvature) {
    HessianProblem<T> &hessian = curvature.hessian;
    hessian.network = net;
    hessian.data = data;
    hessian.scale = T(scale);
    if (hessian.rows.product) {
        curvature.activation[1] = net.layer[0].weight;
    } else {
        curvature.activation[0] = const_cast<T *>(data.x);
        hessian.rows = {data.samples, false, data.ones, data.ones_step};
    }
    hessian_prepare(blas, hessian, curvature.activation, curvature.delta, curvature.gram);
}

// ||A||_2 for A (m, n), from below, by power iteration: two digits are plenty.
template <class T>
inline double spectral_norm(const T *a, index stride, index m, index n, T *left, T *right) {
    double norm = 0;
    for (index b = 0; b < n; ++b) right[b] = T(1) / T(b + 1);
    for (int round = 0; round < 20; ++round) {
        double size = 0;
        for (index b = 0; b < n; ++b) size += double(right[b]) * double(right[b]);
        if (!(size > 0)) return norm;
        const T inverse = T(1 / square_root(size));
        double image = 0;
        for (index r = 0; r < m; ++r) {
            T total = 0;
            for (index b = 0; b < n; ++b) total += a[r * stride + b] * right[b];
            left[r] = total * inverse;
            image += double(left[r]) * double(left[r]);
        }
        const double before = norm;
        norm = square_root(image);
        if (norm - before <= 1e-2 * norm) return norm;
        for (index b = 0; b < n; ++b) right[b] = 0;
        for (index r = 0; r < m; ++r)
            for (index b = 0; b < n; ++b) right[b] += left[r] * a[r * stride + b];
    }
    return norm;
}

// ||C||_2 of hidden layer l, counted from 1.
template <class T>
inline double coupling_norm(const Blas<T> &blas, const Curvature<T> &curvature, index l) {
    const HessianProblem<T> &hessian = curvature.hessian;
    const Network<T> &net = hessian.network;
    const Rows<T> &rows = hessian.rows;
    const T *delta = hessian.delta[l + 1];
    const index outputs = net.width[l + 1], pad_out = net.pad[l + 1];
    T *c = curvature.coupling;
    if (l == 1 && rows.product)  // the identity below: C^T is D_2 itself
        return spectral_norm(delta, pad_out, rows.count, outputs, c, c + rows.count);
    const index inputs = net.width[l - 1], pad_in = net.pad[l - 1], stride = pad_in + (net.bias ? 1 : 0);
    multiply_tn(blas, outputs, inputs, rows.count, T(1), delta, pad_out, hessian.activation[l - 1], pad_in, T(0), c,
                stride);
    if (net.bias)
        for (index r = 0; r < outputs; ++r) {
            T total = 0;
            if (rows.product)
                total = delta[(rows.count - 1) * pad_out + r];
            else
                for (index k = 0; k < rows.count; ++k) total += delta[k * pad_out + r] * rows.ones[k * rows.ones_step];
            c[r * stride + inputs] = total;
        }
    T *work = c + outputs * stride;
    return spectral_norm(c, stride, outputs, inputs + (net.bias ? 1 : 0), work, work + outputs);
}

// log of the factor by which a component along q with dq/dt = `gain` q grows in one step.
inline double log_growth(const UpdateRule &rule, double rate, double gain) {
    const double push = 1 + rate * larger(gain - rule.decay, 0.0), m = rule.momentum;
    const double b = rule.nesterov ? (1 + m) * push : push + m, c = rule.nesterov ? m * push : m;
    return larger(0.0, __builtin_log(0.5 * (b + square_root(larger(0.0, b * b - 4 * c)))));
}

template <class T>
inline void watch_leak(const Blas<T> &blas, Curvature<T> &curvature, const UpdateRule &rule, double rate, index step) {
    Leak &leak = curvature.leak;
    const double passed = leak.last_step < 0 ? 0 : double(step - leak.last_step);
    for (index k = 0; k < leak.count; ++k) {
        const double now = log_growth(rule, rate, coupling_norm(blas, curvature, leak.layers[k]));
        leak.growth[k] += passed * 0.5 * (leak.rate[k] + now);
        leak.rate[k] = now;
    }
    leak.last_step = step;
}

}  // namespace hesskern::HESSKERN_ISA
