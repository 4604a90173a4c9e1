// Gradient descent and stochastic gradient descent: the loop that PyTorch spends 200 us of overhead a step on.
//
// The state is laid out once: every layer stored so that its longer dimension is contiguous and padded to whole vectors
// with zeros, which stay zero (a zero column has a zero gradient). One buffer holds all parameters, a second one all
// gradients, so that the update is one loop.
#pragma once

#include "kernels/leak.hpp"
#include "kernels/pass.hpp"
#include "kernels/sharpness.hpp"

namespace hesskern::HESSKERN_ISA {

inline bool is_finite(double value) { return magnitude(value) <= 1.7976931348623157e308; }

// torch.optim.SGD:  d = g + decay theta;  v = momentum v + d;  theta -= rate (nesterov ? d + momentum v : v).
template <class T, bool Momentum>
inline void update(const T *from, T *to, const T *gradient, T *velocity, index count, T rate, T momentum, bool nesterov,
                   T decay) {
    constexpr int L = lanes<T>;
    for (index k = 0; k < count; k += L) {
        const Vector<T, L> theta = load<T, L>(from + k);
        Vector<T, L> step = load<T, L>(gradient + k) + theta * decay;
        if constexpr (Momentum) {
            const Vector<T, L> moved = load<T, L>(velocity + k) * momentum + step;
            store<T, L>(velocity + k, moved);
            step = nesterov ? step + moved * momentum : moved;
        }
        store<T, L>(to + k, theta - step * rate);
    }
}

// ||g + decay theta||
template <class T>
inline double gradient_norm(const T *gradient, const T *parameters, index count, T decay) {
    constexpr int L = lanes<T>;
    double total = 0;
    for (index k = 0; k < count; k += L) {
        const Vector<T, L> step = load<T, L>(gradient + k) + load<T, L>(parameters + k) * decay;
        for (int j = 0; j < L; ++j) total += double(step[j]) * double(step[j]);
    }
    return square_root(total);
}

template <class T>
inline void prefetch_rows(const T *rows, index width, const index *order, index count) {
    constexpr index line = 64 / index(sizeof(T));
    for (index k = 0; k < count; ++k)
        for (index a = 0; a < width; a += line) __builtin_prefetch(rows + order[k] * width + a);
}

template <class T>
inline void gather_rows(const T *rows, index width, const index *order, index count, T *target, index stride) {
    constexpr int L = lanes<T>;
    for (index k = 0; k < count; ++k) {
        const T *from = rows + order[k] * width;
        T *to = target + k * stride;
        index a = 0;
        for (; a + L <= width; a += L) store<T, L>(to + a, load<T, L>(from + a));
        for (; a < width; ++a) to[a] = from[a];
    }
}

// Gathers a batch, and prefetches the next one while this one is in use.
template <class T>
inline Data<T> gather(const DescentProblem<T> &problem, const DescentJob &job, index k) {
    const Network<T> &net = problem.network[0];
    const Batches<T> &from = problem.batches;
    const index in = net.width[0], out = net.width[net.depth], pad_in = net.pad[0], pad_out = net.pad[net.depth];
    const index start = k ? job.ends[k - 1] : 0, rows = job.ends[k] - start;
    gather_rows(from.x, in, job.order + start, rows, from.batch_x, pad_in);
    gather_rows(from.y, out, job.order + start, rows, from.batch_y, pad_out);
    if (k + 1 < job.count) {
        prefetch_rows(from.x, in, job.order + job.ends[k], job.ends[k + 1] - job.ends[k]);
        prefetch_rows(from.y, out, job.order + job.ends[k], job.ends[k + 1] - job.ends[k]);
    }
    return {rows, from.batch_x, pad_in, from.one, 0, from.batch_y, pad_out};
}

// What is recorded of the curvature at the weights of this step, which uses `batch`.
template <class T>
inline void observe(const Blas<T> &blas, const DescentProblem<T> &problem, index step, const Data<T> &batch,
                    double scale, const DescentJob &job, index k) {
    Curvature<T> &curvature = *problem.curvature;
    const Network<T> &net = problem.network[step & 1];
    const bool whole = problem.batches.largest == 0;
    const bool sharpness_wanted = job.sharpness && step % problem.every == 0;
    if (sharpness_wanted) look_at(blas, net, problem.data, problem.scale, curvature);
    if (job.sharpness)
        job.sharpness[k] = sharpness_wanted
                               ? largest_eigenvalue(blas, curvature.hessian, problem.parameters[step & 1],
                                                    problem.count, problem.rule.decay, step, curvature.search)
                               : __builtin_nan("");
    if (leak_is_due(curvature.leak, step)) {
        // What multiplies the rounding errors of this step is the residual of its own batch.
        if (!sharpness_wanted || !whole) look_at(blas, net, batch, scale, curvature);
        watch_leak(blas, curvature, problem.rule, job.rates[k], step);
    }
}

// Takes up to `job.count` steps. A step is: losses and gradient at the current weights, then the update. Stops before a
// step whose loss is not finite, back at the weights before the update that led there, and after a step whose loss is
// at most `state.target`. Returns the number of steps whose losses were finite.
template <class T>
inline index descend(const Blas<T> &blas, const DescentProblem<T> &problem, DescentState &state, const DescentJob &job,
                     DescentStop *stop) {
    const UpdateRule &rule = problem.rule;
    const Data<T> &data = problem.data;
    const bool whole = problem.batches.largest == 0;
    Scratch<T> scratch{problem.scratch};
    const PassMemory<T> memory = pass_memory(problem.network[0], data.samples, problem.product, scratch);
    const PassMemory<T> batch_memory = whole ? memory
                                             : pass_memory(problem.network[0], problem.batches.largest, problem.product,
                                                           scratch);
    const double unknown = __builtin_nan("");
    *stop = DescentStop::steps;
    for (index k = 0; k < job.count; ++k) {
        const index now = state.steps & 1;
        const Network<T> &net = problem.network[now];
        const T *theta = problem.parameters[now];
        const bool recorded = state.steps % problem.every == 0;
        const double decayed = rule.decay == 0 ? 0 : 0.5 * rule.decay * squared_norm(theta, problem.count);

        // The full-batch loss, with the gradient where the step or the record needs it.
        const bool norm_wanted = recorded && job.gradient_norms;
        double loss = unknown;
        if (whole || norm_wanted || problem.rtol >= 0 || (recorded && problem.loss_recorded)) {
            loss = 0.5 * problem.scale *
                       pass(blas, net, data, problem.product, T(problem.scale),
                            whole || norm_wanted ? problem.gradient : nullptr, memory) +
                   decayed + problem.constant;
        }
        if (job.gradient_norms)
            job.gradient_norms[k] = norm_wanted
                                        ? gradient_norm(problem.gradient_values, theta, problem.count, T(rule.decay))
                                        : unknown;
        job.losses[k] = loss;
        double used = loss, scale = problem.scale;
        Data<T> batch = data;
        if (!whole) {
            batch = gather(problem, job, k);
            scale = job.scales[k];
            used = 0.5 * scale * pass(blas, net, batch, problem.product, T(scale), problem.gradient, batch_memory) +
                   decayed;
            if (job.batch_losses) job.batch_losses[k] = used;
        }
        if (!is_finite(used)) {
            *stop = DescentStop::diverged;
            if (state.steps > 0) --state.steps;
            return k;
        }
        if (problem.curvature) observe(blas, problem, state.steps, batch, scale, job, k);

        T *next = problem.parameters[1 - now];
        if (problem.velocity)
            update<T, true>(theta, next, problem.gradient_values, problem.velocity, problem.count, T(job.rates[k]),
                            T(rule.momentum), rule.nesterov, T(rule.decay));
        else
            update<T, false>(theta, next, problem.gradient_values, nullptr, problem.count, T(job.rates[k]), T(0), false,
                             T(rule.decay));
        if (state.steps == 0 && problem.rtol >= 0) state.target = problem.rtol * loss;
        ++state.steps;
        if (loss <= state.target) {
            *stop = DescentStop::converged;
            return k + 1;
        }
    }
    return job.count;
}

}  // namespace hesskern::HESSKERN_ISA
