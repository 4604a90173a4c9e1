// The dense Hessian of a linear network, or any block of it, every entry written once.
//
// Parameters of one layer carry two indices, outer and inner (row-major: output and input of the weight). In the rows
// (r, s) of one layer and the columns (p, q) of another,
//     H[(r,s),(p,q)] = U[r,p] V[s,q] + B[s,p] W[r,q]:
// the Gauss-Newton part is the Kronecker product U (x) V, the functional part couples outer with inner indices. With a
// bias the last inner index is the constant input; those parameters come after the weight's.
//
// Segments are written in whole vectors. Each runs over into the next, which overwrites the excess: no code for tails
// is needed. A matrix larger than the caches is built row by row in a buffer and copied past them.
#pragma once

#include "kernels/simd.hpp"
#include "kernels/table.hpp"

namespace hesskern::HESSKERN_ISA {

// `count` values of left_factor left + right_factor right, rounded up to whole vectors.
template <class T, bool Functional>
inline void combine(T *target, const T *left, T left_factor, const T *right, T right_factor, index count) {
    constexpr int L = lanes<T>;
    for (index k = 0; k < count; k += L) {
        Vector<T, L> value = load<T, L>(left + k) * left_factor;
        if constexpr (Functional) value += load<T, L>(right + k) * right_factor;
        store<T, L>(target + k, value);
    }
}

// Where finished entries of a row go: they stay where they are built, or (Stream) are written past the caches as soon
// as whole vectors of them are complete, so that memory is busy while the next ones are computed.
template <class T, bool Stream>
struct Destination {
    T *target;
    const T *row;  // what is being built
    index sent = 0;
    void upto(index end) {
        if (!Stream || end - sent < 8 * lanes<T>) return;
        const index beyond = index(reinterpret_cast<std::uintptr_t>(target + end) % HESSKERN_VECTOR_BYTES);
        const index stop = end - beyond / index(sizeof(T));
        stream_row(target + sent, row + sent, stop - sent);
        sent = stop;
    }
    void finish(index end) {
        if (Stream) stream_row(target + sent, row + sent, end - sent);
    }
};

template <class T, bool Functional, bool Stream>
inline void assemble_segment(const AssemblyBlock<T> &block, const AssemblySide &side, index r, index s, T *row,
                             index start, Destination<T, Stream> &destination) {
    const T *u = block.u + r * block.outer_stride, *v = block.v + s * block.inner_stride;
    const T *b = Functional ? block.b + s * block.outer_stride : u,
            *w = Functional ? block.w + r * block.inner_stride : v;
    row += start;
    if (side.inner > 0)
        for (index p = 0; p < side.outer; ++p) {
            combine<T, Functional>(row + p * side.inner, v, u[p], w, b[p], side.inner);
            destination.upto(start + (p + 1) * side.inner);
        }
    if (side.bias)
        combine<T, Functional>(row + side.outer * side.inner, u, v[side.inner], b, w[side.inner], side.outer);
}

// `streamed`: where the row goes from `row`; used with Stream only.
template <bool Stream, class T>
inline void assemble_row(const Assembly<T> &assembly, index m, index r, index s, T *row, T *streamed) {
    Destination<T, Stream> destination{streamed, row};
    index start = 0;
    for (index l = 0; l < assembly.column_layers; ++l) {
        const AssemblyBlock<T> &block = assembly.block[m * assembly.column_layers + l];
        const AssemblySide &side = assembly.columns[l];
        if (block.w)
            assemble_segment<T, true, Stream>(block, side, r, s, row, start, destination);
        else
            assemble_segment<T, false, Stream>(block, side, r, s, row, start, destination);
        start += side.outer * (side.inner + side.bias);
    }
    destination.finish(start);
}

// Rows first <= k < last of the matrix. `scratch` holds one row and a vector more.
template <class T>
inline void assemble(const Assembly<T> &assembly, index first, index last, T *scratch) {
    index columns = 0, k = 0;
    for (index l = 0; l < assembly.column_layers; ++l)
        columns += assembly.columns[l].outer * (assembly.columns[l].inner + assembly.columns[l].bias);
    for (index m = 0; m < assembly.row_layers; ++m) {
        const AssemblySide &side = assembly.rows[m];
        const index weights = side.outer * side.inner, size = weights + side.outer * side.bias;
        for (index j = larger(first - k, index(0)); j < smaller(last - k, size); ++j) {
            const bool weight = j < weights;
            const index r = weight ? j / side.inner : j - weights, s = weight ? j % side.inner : side.inner;
            T *target = assembly.out + (k + j) * columns;
            if (assembly.stream) {
                assemble_row<true>(assembly, m, r, s, scratch, target);
            } else if (k + j + 1 < last && columns >= lanes<T>) {
                // Straight into the matrix, an overrun into the next row being overwritten by it.
                assemble_row<false>(assembly, m, r, s, target, target);
            } else {  // the last row has no next
                assemble_row<false>(assembly, m, r, s, scratch, target);
                std::memcpy(target, scratch, std::size_t(columns) * sizeof(T));
            }
        }
        k += size;
    }
    if (assembly.stream) stream_fence();
}

}  // namespace hesskern::HESSKERN_ISA
