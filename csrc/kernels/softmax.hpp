// The Hessian of softmax cross-entropy with respect to the weights (classes, features) of a last layer, and its bias:
//     H = sum_n s_n (diag(p_n) - p_n p_n^T) (x) f_n f_n^T,
// class factor (x) feature factor, row-major; with a bias f_n has a last entry 1, and those parameters come after all
// weights.
//
// The matrix is built block row by block row, class c against all classes from c on: the features times the weights
// s p_c (delta - p_c') side by side make one product with the features. What lies below the diagonal is a copy.
//
// Products take the value of the most probable class off first, a shift of all classes that the matrix maps to zero:
// where its probability is nearly one, a - p^T a would be the difference of two numbers that are nearly equal.
#pragma once

#include "kernels/gemm.hpp"
#include "kernels/table.hpp"

namespace hesskern::HESSKERN_ISA {

// Features of a panel that stay in the second-level cache.
inline constexpr index panel_elements = 65536;

inline index softmax_rows(index samples, index width) {
    return smaller(samples, larger(index(16), panel_elements / larger(index(1), width)));
}

// 1 - p_c: the sum of the others where the difference would cancel.
template <class T>
inline T complement(const T *p, index c, index classes) {
    if (p[c] < T(0.5)) return T(1) - p[c];
    T rest = T(0);
    for (index k = 0; k < classes; ++k) rest += k == c ? T(0) : p[k];
    return rest;
}

// The class of largest probability.
template <class T>
inline index most_probable(const T *p, index classes) {
    index best = 0;
    T largest = p[0];
    for (index c = 1; c < classes; ++c)
        if (p[c] > largest) largest = p[c], best = c;
    return best;
}

// target := factor source.
template <class T>
inline void scaled_copy(T *target, const T *source, T factor, index count) {
    constexpr index L = lanes<T>;
    index k = 0;
    for (; k + L <= count; k += L) store<T, L>(target + k, load<T, L>(source + k) * factor);
    for (; k < count; ++k) target[k] = source[k] * factor;
}

// Copies the part above the diagonal to the part below.
template <class T>
inline void mirror(T *matrix, index size) {
    constexpr index tile = 32;
    for (index i = 0; i < size; i += tile)
        for (index j = i; j < size; j += tile)
            for (index r = i; r < smaller(i + tile, size); ++r)
                for (index c = larger(j, r + 1); c < smaller(j + tile, size); ++c)
                    matrix[c * size + r] = matrix[r * size + c];
}

template <class T>
inline index softmax_dense_scratch(const SoftmaxProblem<T> &problem) {
    const index width = problem.classes * problem.features;
    return softmax_rows(problem.samples, width) * (width + problem.classes + 1);
}

// out (P, P), contiguous, the part above its diagonal first.
template <class T>
inline void softmax_dense(const Blas<T> &blas, const SoftmaxProblem<T> &problem, T *out, T *scratch) {
    const index d = problem.features, classes = problem.classes, weights = classes * d;
    const index size = weights + (problem.bias ? classes : 0), chunk = softmax_rows(problem.samples, weights);
    T *panel = scratch, *factor = panel + chunk * weights, *one = factor + chunk * classes;
    for (index n = 0; n < chunk; ++n) one[n] = T(1);
    for (index start = 0; start < problem.samples; start += chunk) {
        const index rows = smaller(chunk, problem.samples - start);
        const T *f = problem.f + start * d, *probability = problem.p + start * classes;
        const T beta = start == 0 ? T(0) : T(1);
        for (index c = 0; c < classes; ++c) {
            const index rest = classes - c, width = rest * d;
            for (index n = 0; n < rows; ++n) {
                const T *p = probability + n * classes;
                const T own = problem.scale[start + n] * p[c];
                for (index k = 0; k < rest; ++k) {
                    const T value = own * (k == 0 ? complement(p, c, classes) : -p[c + k]);
                    factor[n * rest + k] = value;
                    scaled_copy(panel + n * width + k * d, f + n * d, value, d);
                }
            }
            multiply_tn(blas, d, width, rows, T(1), f, d, panel, width, beta, out + c * d * size + c * d, size);
            if (!problem.bias) continue;
            // Bias against bias, and weights of class c against the biases from c on.
            small_product(index(1), rest, rows, T(1), one, index(1), index(1), factor, rest, beta,
                          out + (weights + c) * size + weights + c, size);
            multiply_tn(blas, d, rest, rows, T(1), f, d, factor, rest, beta, out + c * d * size + weights + c, size);
        }
    }
    if (problem.bias)  // the blocks are symmetric in the two classes
        for (index c = 0; c < classes; ++c)
            for (index k = c + 1; k < classes; ++k)
                for (index i = 0; i < d; ++i)
                    out[(k * d + i) * size + weights + c] = out[(c * d + i) * size + weights + k];
    mirror(out, size);
}

template <class T>
inline index softmax_product_scratch(const SoftmaxProblem<T> &problem, index vectors) {
    const index width = vectors * problem.classes;
    return softmax_rows(problem.samples, width) * (width + 1);
}

// Products with `vectors` directions: `v` (vectors, classes, features) and `v_bias` (vectors, classes) or null.
template <class T>
inline void softmax_product(const Blas<T> &blas, const SoftmaxProblem<T> &problem, index vectors, const T *v,
                            const T *v_bias, T *out, T *out_bias, T *scratch) {
    const index d = problem.features, classes = problem.classes, width = vectors * classes;
    const index chunk = softmax_rows(problem.samples, width);
    T *change = scratch, *one = change + chunk * width;
    for (index n = 0; n < chunk; ++n) one[n] = T(1);
    for (index start = 0; start < problem.samples; start += chunk) {
        const index rows = smaller(chunk, problem.samples - start);
        const T *f = problem.f + start * d;
        const T beta = start == 0 ? T(0) : T(1);
        multiply_nt(blas, rows, width, d, T(1), f, d, v, d, T(0), change, width);
        for (index n = 0; n < rows; ++n) {
            const T *p = problem.p + (start + n) * classes;
            const T scale = problem.scale[start + n];
            const index best = most_probable(p, classes);
            for (index j = 0; j < vectors; ++j) {
                T *a = change + n * width + j * classes, mean = T(0);
                if (v_bias)
                    for (index c = 0; c < classes; ++c) a[c] += v_bias[j * classes + c];
                const T reference = a[best];
                for (index c = 0; c < classes; ++c) mean += p[c] * (a[c] -= reference);
                for (index c = 0; c < classes; ++c) a[c] = scale * p[c] * (a[c] - mean);
            }
        }
        multiply_tn(blas, width, d, rows, T(1), change, width, f, d, beta, out, d);
        if (out_bias)
            small_product(index(1), width, rows, T(1), one, index(1), index(1), change, width, beta, out_bias, width);
    }
}

}  // namespace hesskern::HESSKERN_ISA
