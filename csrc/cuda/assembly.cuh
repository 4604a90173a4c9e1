// The dense Hessian of a linear network, or any block of it, on a GPU: every entry written once, zeros included.
//
// A parameter has two indices, outer and inner, numbered consecutively over all layers. Each entry of the matrix is
// H[k,c] = U[r,p] V[s,q] + B[s,p] W[r,q], where tables give the indices (r, s) of row k and (p, q) of column c: no
// thread needs to know the layers, or divides.
//
// A thread writes 16 bytes at a time, and goes down the rows of a tile in its columns: values that depend on the
// columns only, or on an r that is the same from row to row, are read once. Where the length of a row is not a multiple
// of 16 bytes, rows begin at different offsets within 16 bytes; those with the same offset are visited together.
//
// Every entry is one explicit fused product, so the matrix is symmetric to the bit.
#pragma once

#include "common.cuh"

namespace hesskern {

constexpr int tile_rows = 16;

template <class T>
struct alignas(16) Pack {
    static constexpr int size = 16 / int(sizeof(T));
    T value[size];
};

// Which thread of how many.
struct Thread {
    index block, blocks;
    int thread, threads;
};

template <class T>
struct Assembly {
    const T *u, *v, *b, *w;                  // row-major; b and w are read where there is a functional part only
    index outer_stride, inner_stride;        // row lengths of u and b, of v and w
    const int *row_outer, *row_inner;        // (rows,)
    const int *column_outer, *column_inner;  // (columns,)
    index rows, columns;
    T *out;  // (rows, columns), aligned to one number, not more
};

// The rows `first`, `first + step`, ... before `last`, in the columns of one pack, the first of them `column`; that may
// be negative, and the pack may reach beyond the last column: what is outside is not written.
template <class T, bool Functional>
HESSKERN_DEVICE void assemble_strip(const Assembly<T> &a, index column, index first, index last, index step) {
    constexpr int L = Pack<T>::size;
    int p[L], q[L];
    for (int i = 0; i < L; ++i) {
        const index inside = column + i < 0 ? 0 : column + i < a.columns ? column + i : a.columns - 1;
        p[i] = a.column_outer[inside];
        q[i] = a.column_inner[inside];
    }
    T u[L] = {}, w[L] = {};
    int held = -1;
    for (index row = first; row < last; row += step) {
        const int r = a.row_outer[row], s = a.row_inner[row];
        if (r != held) {
            for (int i = 0; i < L; ++i) {
                u[i] = a.u[r * a.outer_stride + p[i]];
                if constexpr (Functional) w[i] = a.w[r * a.inner_stride + q[i]];
            }
            held = r;
        }
        Pack<T> entries;
        for (int i = 0; i < L; ++i) {
            const T v = a.v[s * a.inner_stride + q[i]];
            if constexpr (Functional)
                entries.value[i] = fused(u[i], v, a.b[s * a.outer_stride + p[i]] * w[i]);
            else
                entries.value[i] = u[i] * v;
        }
        const index start = row * a.columns + column;
        if (column >= 0 && column + L <= a.columns)
            *reinterpret_cast<Pack<T> *>(a.out + start) = entries;
        else
            for (int i = 0; i < L; ++i)
                if (column + i >= 0 && column + i < a.columns) a.out[start + i] = entries.value[i];
    }
}

// What one thread does. The numbers do not depend on how many there are.
template <class T, bool Functional>
HESSKERN_DEVICE void assemble(const Assembly<T> &a, Thread me) {
    constexpr int L = Pack<T>::size;
    int period = 1;  // rows until one begins at the same place within a pack again
    while (period * a.columns % L != 0) period *= 2;
    const index before = index(reinterpret_cast<unsigned long long>(a.out) / sizeof(T) % L);
    const index packs = (a.columns + 2 * L - 2) / L;  // of a row, wherever it begins
    const index across = (packs + me.threads - 1) / me.threads, down = (a.rows + tile_rows - 1) / tile_rows;
    for (index tile = me.block; tile < across * down; tile += me.blocks) {
        const index top = tile / across * tile_rows, pack = tile % across * me.threads + me.thread;
        const index bottom = top + tile_rows < a.rows ? top + tile_rows : a.rows;
        for (index row = top; row < top + period && row < bottom; ++row) {
            const index column = pack * L - (before + row * a.columns) % L;
            if (column < a.columns) assemble_strip<T, Functional>(a, column, row, bottom, period);
        }
    }
}

}  // namespace hesskern

#ifdef __CUDACC__
#define HESSKERN_ASSEMBLE(name, T, functional)                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                                            \
        name(const T *u, const T *v, const T *b, const T *w, long long outer_stride, long long inner_stride,     \
             const int *row_outer, const int *row_inner, const int *column_outer, const int *column_inner,       \
             long long rows, long long columns, T *out) {                                                        \
        const hesskern::Assembly<T> assembly{                                                                    \
            u,    v,       b,  w, outer_stride, inner_stride, row_outer, row_inner, column_outer, column_inner,  \
            rows, columns, out};                                                                                 \
        hesskern::assemble<T, functional>(assembly, {blockIdx.x, gridDim.x, int(threadIdx.x), int(blockDim.x)}); \
    }
HESSKERN_ASSEMBLE(assemble_float32, float, false)
HESSKERN_ASSEMBLE(assemble_float64, double, false)
HESSKERN_ASSEMBLE(assemble_functional_float32, float, true)
HESSKERN_ASSEMBLE(assemble_functional_float64, double, true)
#endif
