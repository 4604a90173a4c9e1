// The GPU's kernels compiled for the host: every thread of a launch, one after the other, or one of them alone.
#include "assembly.cuh"

namespace {

template <class T, bool Functional>
void threads(const hesskern::Assembly<T> &assembly, long long blocks, int size, long long only) {
    for (long long block = 0; block < blocks; ++block)
        for (int thread = 0; thread < size; ++thread)
            if (only < 0 || only == block * size + thread)
                hesskern::assemble<T, Functional>(assembly, {block, blocks, thread, size});
}

}  // namespace

// `only`: number of the one thread that runs, or -1.
#define HESSKERN_HOST(name, T, functional)                                                                           \
    extern "C" void name(long long blocks, int size, long long only, const T *u, const T *v, const T *b, const T *w, \
                         long long outer_stride, long long inner_stride, const int *row_outer, const int *row_inner, \
                         const int *column_outer, const int *column_inner, long long rows, long long columns,        \
                         T *out) {                                                                                   \
        threads<T, functional>({u, v, b, w, outer_stride, inner_stride, row_outer, row_inner, column_outer,          \
                                column_inner, rows, columns, out},                                                   \
                               blocks, size, only);                                                                  \
    }
HESSKERN_HOST(assemble_float32, float, false)
HESSKERN_HOST(assemble_float64, double, false)
HESSKERN_HOST(assemble_functional_float32, float, true)
HESSKERN_HOST(assemble_functional_float64, double, true)
