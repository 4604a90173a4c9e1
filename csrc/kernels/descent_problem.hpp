// The parts of a descent, as plain structs over memory that the caller owns (bindings/descent_state.hpp).
#pragma once

#include <cstdint>

#include "kernels/network.hpp"

namespace hesskern {

enum class DescentStop { steps, converged, diverged };

// The rule of torch.optim.SGD without dampening.
struct UpdateRule {
    double momentum, decay;
    bool nesterov;
};

// Everything a product with the Hessian needs. See kernels/hessian_product.hpp.
template <class T>
struct HessianProblem {
    Network<T> network;
    Data<T> data;
    Rows<T> rows;
    const T *const *activation;  // Z_0 ... Z_L
    const T *const *delta;       // delta[l] = D_l, l = 1 ... L
    const T *gram;               // scale X^T X of the product form
    T scale;
    T *scratch, *residual;
    bool gauss_newton, functional;
};

// Vectors of a search for the largest eigenvalue.
inline constexpr std::int64_t search_capacity = 48;

// The search for the largest eigenvalue of the Hessian, and what it keeps from one record to the next.
// See kernels/sharpness.hpp.
template <class T>
struct EigenSearch {
    T *vectors, *images;     // `search_capacity` vectors each, one behind the other, in the padded layout
    std::int64_t kept;       // approximate eigenvectors in `vectors`, by falling eigenvalue; 0 at the beginning
    double *small;           // 3 search_capacity^2 + 3 search_capacity values
    Layer<T> *from, *to;     // depth layers each
    T *probe;                // a random vector and its image at the last record
    bool probe_made;         // the vector can be made again; the image cannot
    std::int64_t looked_at;  // the step at which all eigenvalues but the largest were bounded,
    double rest, drift;      // by how much, and how much the Hessian has changed since
};

// How far rounding may have taken a run without width reduction from the exact trajectory. See kernels/leak.hpp.
struct Leak {
    const std::int64_t *layers;  // hidden layers that were reduced: l between the layers l and l+1, counted from 1
    std::int64_t count;
    double *growth;  // log of the growth so far, one for each of them
    double *rate;    // log of the growth in one step, at the last look
    std::int64_t last_step;
};

// The curvature that the loop records at the weights of a step.
template <class T>
struct Curvature {
    HessianProblem<T> hessian;
    T **activation, **delta;  // what `hessian` reads, to be written
    T *gram;
    EigenSearch<T> search;
    Leak leak;
    T *coupling;  // room for one residual Gram matrix
};

// Samples that a minibatch is gathered from, and the padded rows it goes to.
template <class T>
struct Batches {
    const T *x, *y;  // (N, in) and (N, out), no padding
    T *batch_x, *batch_y;
    std::int64_t largest;  // 0: the descent takes all samples each step
    const T *one;
};

template <class T>
struct DescentProblem {
    // There are two parameter buffers: step s reads buffer s % 2 and writes the other, so that the weights before the
    // last update are still there when its loss turns out not to be finite.
    Network<T> network[2];
    T *parameters[2];
    const Layer<T> *gradient;
    T *gradient_values;  // the same layout, `count` values, a multiple of the vector width
    T *velocity;         // null without momentum
    std::int64_t count;
    bool product;
    Data<T> data;  // of the full-batch loss
    double scale, constant;
    Batches<T> batches;
    T *scratch;
    UpdateRule rule;
    double rtol;              // below 0: never converged
    std::int64_t every;       // of how many steps one is recorded
    bool loss_recorded;       // with minibatches the full-batch loss costs extra
    Curvature<T> *curvature;  // null: nothing of it is wanted
};

struct DescentState {
    std::int64_t steps;
    double target;
};

// Some steps: their inputs and the arrays of their results. Arrays have `count` values; those of the results may be
// null, and hold NaN where a step is not recorded.
struct DescentJob {
    std::int64_t count;
    const double *rates, *scales;
    const std::int64_t *order, *ends;  // samples of all batches, one behind the other; null: all samples each step
    double *losses, *batch_losses, *gradient_norms, *sharpness;
};

// One of several networks of one shape that are trained in the lanes of vectors. See kernels/packed_descent.hpp.
struct PackedLane {
    const DescentProblem<double> *problem;
    DescentState *state;
    const DescentJob *job;
    DescentStop stop;
    std::int64_t taken;
};

}  // namespace hesskern
