// The kernels of one instruction set, as plain function pointers over raw memory. Bindings see only this.
#pragma once

#include <cstdint>

#include "kernels/blas.hpp"
#include "kernels/descent_problem.hpp"

namespace hesskern {

// One side of a block of the Hessian: the parameters of one layer. See kernels/assembly.hpp.
struct AssemblySide {
    std::int64_t outer, inner;
    bool bias;
};

// H[(r,s),(p,q)] = U[r,p] V[s,q] + B[s,p] W[r,q]; rows of all four are padded so that whole vectors can be read.
template <class T>
struct AssemblyBlock {
    const T *u, *v, *b, *w;  // b and w null: no functional part
    std::int64_t outer_stride, inner_stride;
};

template <class T>
struct Assembly {
    std::int64_t row_layers, column_layers, total_rows;
    const AssemblySide *rows, *columns;
    const AssemblyBlock<T> *block;  // row_layers x column_layers
    T *out;                         // contiguous
    bool stream;                    // larger than the caches: write past them
};

// Features (samples, features), probabilities (samples, classes) and what each sample counts; see kernels/softmax.hpp.
template <class T>
struct SoftmaxProblem {
    std::int64_t samples, features, classes;
    bool bias;
    const T *f, *p, *scale;
};

// The product  first W_1^T W_2^T ... W_count^T,  for its singular values. See kernels/product_svd.hpp.
struct FactorChain {
    const double *first;  // (rows, columns), element (a, b) at a * row_step + b * column_step
    std::int64_t rows, columns, row_step, column_step;
    std::int64_t count;
    const double *const *weight;  // weight[k] is (outputs[k], outputs[k-1]), row-major; outputs[-1] = columns
    const std::int64_t *outputs;
    bool rotated;      // an orthogonal matrix acted on the rows of `first`: rounding goes with its columns
    double tolerance;  // what is no larger than this times the magnitudes it was summed from counts as zero
};

struct FactorSpectrum {
    std::int64_t rank;
    double kept, dropped;  // around that decision: the smallest pivot kept, the largest entry dropped, relative
    double amplification;  // relative error of a singular value, in units of the rounding unit
    double lost;           // size of what was dropped over the smallest singular value kept, in the same units
    bool converged;
};

template <class T>
struct KernelsFor {
    void (*predict)(const Blas<T> &, const Network<T> &, const Data<T> &, bool product, T *out, T *scratch);
    double (*pass)(const Blas<T> &, const Network<T> &, const Data<T> &, bool product, T scale,
                   const Layer<T> *gradient, T *scratch);
    bool (*product_form)(const Network<T> &, std::int64_t samples, bool backward);
    std::int64_t (*pass_scratch)(const Network<T> &, std::int64_t samples, bool product);
    std::int64_t (*descend)(const Blas<T> &, const DescentProblem<T> &, DescentState &, const DescentJob &,
                            DescentStop *stop);
    void (*assemble)(const Assembly<T> &, std::int64_t first_row, std::int64_t last_row, T *scratch);
    std::int64_t (*hessian_scratch)(const Network<T> &, std::int64_t rows);
    void (*hessian_prepare)(const Blas<T> &, const HessianProblem<T> &, T *const *activation, T *const *delta, T *gram);
    void (*hessian_product)(const Blas<T> &, const HessianProblem<T> &, const Layer<T> *direction,
                            const Layer<T> *product);
    void (*chain_backward)(const Blas<T> &, const Network<T> &, const Data<T> &, const T *delta, bool product,
                           const Layer<T> *gradient, T *below, T *scratch);
    void (*softmax_dense)(const Blas<T> &, const SoftmaxProblem<T> &, T *out, T *scratch);
    std::int64_t (*softmax_dense_scratch)(const SoftmaxProblem<T> &);
    void (*softmax_product)(const Blas<T> &, const SoftmaxProblem<T> &, std::int64_t vectors, const T *v,
                            const T *v_bias, T *out, T *out_bias, T *scratch);
    std::int64_t (*softmax_product_scratch)(const SoftmaxProblem<T> &, std::int64_t vectors);
    // v orthogonal to the rows (count, size), and of norm 1; see kernels/krylov.hpp.
    bool (*orthonormalise)(const T *rows, std::int64_t count, std::int64_t near, std::int64_t size, T *v, T *factors);
};

struct Kernels {
    const char *name;
    int vector_bytes;
    KernelsFor<double> f64;
    KernelsFor<float> f32;
    // Singular values of factor[count-1] ... factor[0], descending: values * 2^exponents (min of all dimensions).
    void (*product_svd)(const FactorChain &, double *values, std::int64_t *exponents, FactorSpectrum *spectrum,
                        double *scratch);
    std::int64_t (*product_svd_scratch)(const FactorChain &);
    // How many networks train in the lanes of a vector, how many doubles they need (0: not a problem for that), and
    // their jobs; see kernels/packed_descent.hpp.
    std::int64_t lanes;
    std::int64_t (*packed_memory)(const DescentProblem<double> &);
    void (*descend_packed)(PackedLane *, std::int64_t count, double *memory);
    // r := triangular factor of [r; c]; see kernels/tall_qr.hpp.
    void (*append_rows)(double *r, double *c, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                        double *work);
    void (*add_cross_product)(double *product, const double *c, std::int64_t stride, std::int64_t rows,
                              std::int64_t split, std::int64_t columns);

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
