// The kernels of one instruction set, as plain function pointers over raw memory. Bindings see only this.
#pragma once

#include <cstdint>

#include "kernels/blas.hpp"
#include "kernels/network.hpp"

namespace hesskern {

enum class DescentStop { steps, converged, diverged };

// Everything one descent needs, laid out by the caller (bindings/descent.cpp owns the memory).
template <class T>
struct DescentProblem {
    Network<T> network;
    Data<T> data;
    const Layer<T> *gradient;
    T *parameters;       // all layers, `count` values, a multiple of the vector width
    T *gradient_values;  // the same layout
    std::int64_t count;
    T *scratch;
    bool product;
    double rate, scale, decay, constant;
};

template <class T>
struct KroneckerBlock {
    const T *u;  // (row_outputs, column_outputs)
    const T *v;  // (row_inputs [+1], column_inputs [+1])
    std::int64_t row_outputs, row_inputs, column_outputs, column_inputs;
    bool row_bias, column_bias;
    T *out;
    std::int64_t out_stride;
};

// The product  first W_1^T W_2^T ... W_count^T,  whose singular values are wanted. See kernels/product_svd.hpp.
struct FactorChain {
    const double *first;  // (rows, columns), element (a, b) at a * row_step + b * column_step
    std::int64_t rows, columns, row_step, column_step;
    std::int64_t count;
    const double *const *weight;  // weight[k] is (outputs[k], outputs[k-1]), row-major; outputs[-1] = columns
    const std::int64_t *outputs;
    double tolerance;  // a singular value of an equilibrated factor at or below this, relatively, counts as zero
};

struct FactorSpectrum {
    std::int64_t rank;
    double kept, dropped;  // around that decision: the smallest value kept, the largest dropped, relative
    double amplification;  // relative error of the smallest singular value kept, in units of the rounding unit
    bool converged;
};

template <class T>
struct KernelsFor {
    void (*predict)(const Blas<T> &, const Network<T> &, const Data<T> &, bool product, T *out, T *scratch);
    double (*pass)(const Blas<T> &, const Network<T> &, const Data<T> &, bool product, T scale, const Layer<T> *gradient,
                   T *scratch);
    bool (*product_form)(const Network<T> &, std::int64_t samples, bool backward);
    std::int64_t (*pass_scratch)(const Network<T> &, std::int64_t samples, bool product);
    std::int64_t (*descend)(const Blas<T> &, const DescentProblem<T> &, std::int64_t steps, double target,
                            double *losses, DescentStop *stop);
    void (*kronecker)(const KroneckerBlock<T> &, T *scratch);
};

struct Kernels {
    const char *name;
    int vector_bytes;
    KernelsFor<double> f64;
    KernelsFor<float> f32;
    // Singular values of factor[count-1] ... factor[0], descending, into `values` (min of all dimensions).
    void (*product_svd)(const FactorChain &, double *values, FactorSpectrum *spectrum, double *scratch);
    std::int64_t (*product_svd_scratch)(const FactorChain &);

    template <class T>
    const KernelsFor<T> &of() const;
};
template <>
inline const KernelsFor<double> &Kernels::of<double>() const {
    return f64;
}
template <>
inline const KernelsFor<float> &Kernels::of<float>() const {
    return f32;
}

// The table in use: the widest this processor has, or what HESSKERN_ISA names. Null with a reason where that is unknown
// or beyond the processor.
const Kernels *choose_kernels(const char *requested, const char **reason);
// Names of the tables this build holds and this processor can run, widest first; null-terminated.
const char *const *available_kernels();

}  // namespace hesskern
