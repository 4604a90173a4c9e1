// One block of the Hessian of a linear network, every entry written once.
//
// In the rows of layer m (outputs r, inputs s) and the columns of layer l (outputs p, inputs q):
//     H[(r,s),(p,q)] = U[r,p] V[s,q]
// for a Kronecker product U (x) V. The parameters of a layer are its weight, row-major, then its bias; with a bias the
// last index of V is the constant input.
#pragma once

#include "kernels/simd.hpp"
#include "kernels/table.hpp"

namespace hesskern::HESSKERN_ISA {

inline constexpr index stream_from_bytes = index(8) << 20;

template <class T>
inline void scaled_row(T *target, const T *source, T factor, index count) {
    constexpr int L = lanes<T>;
    index k = 0;
    for (; k + L <= count; k += L) store<T, L>(target + k, load<T, L>(source + k) * factor);
    for (; k < count; ++k) target[k] = source[k] * factor;
}

// One row of the block. `row` holds zeros wherever U[r,p] is zero and stays so, unless the caller clears it.
template <class T>
inline void kronecker_row(const KroneckerBlock<T> &block, index r, index s, T *row) {
    const index q = block.column_inputs, inner = q + (block.column_bias ? 1 : 0);
    const T *v = block.v + s * inner;
    const T *u = block.u + r * block.column_outputs;
    T *bias = row + block.column_outputs * q;
    for (index p = 0; p < block.column_outputs; ++p) {
        if (u[p] == T(0))
            std::memset(row + p * q, 0, std::size_t(q) * sizeof(T));
        else
            scaled_row(row + p * q, v, u[p], q);
        if (block.column_bias) bias[p] = u[p] * v[q];
    }
}

template <class T>
inline void kronecker_block(const KroneckerBlock<T> &block, T *scratch) {
    const index columns = block.column_outputs * (block.column_inputs + (block.column_bias ? 1 : 0));
    const index weights = block.row_outputs * block.row_inputs;
    const index rows = weights + (block.row_bias ? block.row_outputs : 0);
    const bool stream = rows * columns * index(sizeof(T)) >= stream_from_bytes;
    for (index k = 0; k < rows; ++k) {
        const index r = k < weights ? k / block.row_inputs : k - weights;
        const index s = k < weights ? k % block.row_inputs : block.row_inputs;
        T *target = block.out + k * block.out_stride;
        kronecker_row(block, r, s, stream ? scratch : target);
        if (stream) stream_row(target, scratch, columns);
    }
    if (stream) stream_fence();
}

}  // namespace hesskern::HESSKERN_ISA
