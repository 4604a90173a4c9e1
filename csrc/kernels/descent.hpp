// Full-batch gradient descent: the loop that PyTorch spends 200 us of overhead a step on.
//
// The state is laid out once: every layer stored so that its longer dimension is contiguous and padded to whole vectors
// with zeros, which stay zero (a zero column has a zero gradient). One buffer holds all parameters, a second one all
// gradients, so that the update is one loop.
#pragma once

#include "kernels/pass.hpp"
#include "kernels/table.hpp"

namespace hesskern::HESSKERN_ISA {

template <class T>
inline void update(T *parameters, const T *gradient, index count, T rate, T keep) {
    constexpr int L = lanes<T>;
    for (index k = 0; k < count; k += L)
        store<T, L>(parameters + k, load<T, L>(parameters + k) * keep - load<T, L>(gradient + k) * rate);
}

// Runs up to `steps` steps; `losses[s]` is the loss that step s started from (scale/2 ||E||^2 + decay/2 ||theta||^2 +
// constant). Stops before a step whose loss is not finite, and after one whose loss is at most `target`.
// Returns the number of steps taken.
template <class T>
inline index descend(const Blas<T> &blas, const DescentProblem<T> &problem, index steps, double target, double *losses,
                     DescentStop *stop) {
    const Network<T> &net = problem.network;
    Scratch<T> scratch{problem.scratch};
    const PassMemory<T> memory = pass_memory(net, problem.data.samples, problem.product, scratch);
    const T rate = T(problem.rate), keep = T(1.0 - problem.rate * problem.decay);
    *stop = DescentStop::steps;
    for (index s = 0; s < steps; ++s) {
        double loss = 0.5 * problem.scale *
                      pass(blas, net, problem.data, problem.product, T(problem.scale), problem.gradient, memory);
        if (problem.decay != 0)
            loss += 0.5 * problem.decay * squared_norm(problem.parameters, index(1), problem.count, problem.count);
        loss += problem.constant;
        losses[s] = loss;
        if (!(loss <= 1.7976931348623157e308)) {
            *stop = DescentStop::diverged;
            return s;
        }
        update(problem.parameters, problem.gradient_values, problem.count, rate, keep);
        if (loss <= target) {
            *stop = DescentStop::converged;
            return s + 1;
        }
    }
    return steps;
}

}  // namespace hesskern::HESSKERN_ISA
