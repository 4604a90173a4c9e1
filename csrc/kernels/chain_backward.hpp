// The vector-Jacobian product of a linear network: from D_L, the gradient with respect to its predictions, to those
// with respect to parameters and samples. The network is stored plain, its rows of activations without padding.
#pragma once

#include "kernels/pass.hpp"

namespace hesskern::HESSKERN_ISA {

// `delta` is D_L (samples, out); `gradient` may be null, and so may `below`, the gradient of the samples (samples, in).
template <class T>
inline void chain_backward(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, const T *delta,
                           bool product, const Layer<T> *gradient, T *below, const PassMemory<T> &memory) {
    const index chunk = chunk_rows(net, data.samples), in = net.width[0], out = net.width[net.depth];
    const T *first;
    const T *map = product ? product_forward(blas, net, memory, first) : nullptr;
    T *seed = product ? product_seed(net, memory, gradient) : nullptr;
    for (index start = 0; start < data.samples; start += chunk) {
        const index rows = smaller(chunk, data.samples - start);
        const T beta = start == 0 ? T(0) : T(1), *top = delta + start * out;
        T *target = below ? below + start * in : nullptr;
        if (product) {
            if (gradient) add_to_seed(blas, net, data, start, rows, T(1), top, beta, seed);
            if (target) multiply_nt(blas, rows, in, out, T(1), top, out, map, out, T(0), target, in);
            continue;
        }
        const Rows<T> some{rows, false, data.ones + start * data.ones_step, data.ones_step};
        const T *x = data.x + start * data.x_stride, *input = x;
        T *z = memory.activation;
        for (index l = 1; gradient && l < net.depth; ++l) {
            forward_layer(blas, net, l, net.layer[l - 1], rows, input, T(0), z);
            add_bias(net, l, net.layer[l - 1], some, z);
            input = z;
            z += memory.rows * net.pad[l];
        }
        const T *last = sample_sweep(blas, net, memory, x, some, top, beta, gradient);
        if (target) backward_layer(blas, net, index(1), net.layer[0], rows, last, T(0), target);
    }
    if (product && gradient) product_sweep(blas, net, memory, first, seed, gradient);
}

}  // namespace hesskern::HESSKERN_ISA
