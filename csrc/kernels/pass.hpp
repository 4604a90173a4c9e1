// Forward and backward through a linear network.
//
// Two forms of the same mathematics, chosen by counting multiply-adds:
//   sample form   pushes the N samples through the layers: Z_l = Z_{l-1} W_l^T + u b_l^T, D_{l-1} = D_l W_l;
//   product form  pushes the identity through them, so that nothing but the residual E = X P^T - Y and G = E^T X grows
//                 with N. The first layer then costs nothing: Z_1 = [W_1 b_1]^T and its gradient is D_1^T.
//                 With a diagonal X, as a rotation of the data makes it, E and G are products with a diagonal matrix.
// In both, the gradient of layer l is D_l^T Z_{l-1} and the loss is half the squared norm of the residual itself, never
// the expanded square, which cancels.
#pragma once

#include "kernels/gemm.hpp"
#include "kernels/network.hpp"

namespace hesskern::HESSKERN_ISA {

// Hands out pieces of the caller's scratch memory; with no memory it only counts.
template <class T>
struct Scratch {
    T *base;
    index used = 0;
    T *take(index count) {
        T *piece = base ? base + used : nullptr;
        used += (count + 7) / 8 * 8;
        return piece;
    }
};

inline constexpr index chunk_elements = 32768;
inline constexpr index smallest_chunk = 64;

template <class T>
inline index widest(const Network<T> &net) {
    index most = 1;
    for (index l = 0; l <= net.depth; ++l) most = larger(most, net.pad[l]);
    return most;
}

// How many samples go through at once: enough for fast products, few enough for their activations to stay in cache.
template <class T>
inline index chunk_rows(const Network<T> &net, index samples) {
    return smaller(samples, larger(smallest_chunk, chunk_elements / widest(net)));
}

template <class T>
inline index product_rows(const Network<T> &net) {
    return net.width[0] + (net.bias ? 1 : 0);
}

// Multiply-adds of one forward (and backward) pass in either form.
template <class T>
inline bool product_form_is_cheaper(const Network<T> &net, index samples, bool backward) {
    double later = 0;
    for (index l = 1; l < net.depth; ++l) later += double(net.width[l]) * double(net.width[l + 1]);
    const double first = double(net.width[0]) * double(net.width[1]), rows = double(product_rows(net));
    const double output = double(samples) * rows * double(net.width[net.depth]);
    const double sample = double(samples) * (backward ? 2 * first + 3 * later : first + later);
    const double product = backward ? 3 * rows * later + 2 * output : rows * later + output;
    return product < sample;
}

// out = beta out + in W_l^T, without the bias. `layer` may hold any matrix of layer l's shape.
template <class T>
inline void forward_layer(const Blas<T> &blas, const Network<T> &net, index l, const Layer<T> &layer, index rows,
                          const T *in, T beta, T *out) {
    const index k = net.width[l - 1], n = net.width[l], n_pad = net.pad[l], k_pad = net.pad[l - 1];
    if (layer.transposed)
        multiply_nn(blas, rows, n_pad, k, T(1), in, k_pad, layer.weight, layer.stride, beta, out, n_pad);
    else
        multiply_nt(blas, rows, n, k_pad, T(1), in, k_pad, layer.weight, layer.stride, beta, out, n_pad);
}

template <class T>
inline void add_bias(const Network<T> &net, index l, const Layer<T> &layer, const Rows<T> &rows, T *out) {
    if (!layer.bias) return;
    const index n = net.width[l], n_pad = net.pad[l];
    if (rows.product)
        for (index r = 0; r < n; ++r) out[(rows.count - 1) * n_pad + r] += layer.bias[r];
    else
        small_product(rows.count, n, index(1), T(1), rows.ones, rows.ones_step, index(1), layer.bias, n, T(1), out,
                      n_pad);
}

// gradient = beta gradient + D^T Z_{l-1}, the bias left alone.
template <class T>
inline void weight_gradient(const Blas<T> &blas, const Network<T> &net, index l, index rows, const T *in,
                            const T *delta, T beta, const Layer<T> &gradient) {
    const index k = net.width[l - 1], n = net.width[l], n_pad = net.pad[l], k_pad = net.pad[l - 1];
    if (gradient.transposed)
        multiply_tn(blas, k, n_pad, rows, T(1), in, k_pad, delta, n_pad, beta, gradient.weight, gradient.stride);
    else
        multiply_tn(blas, n, k_pad, rows, T(1), delta, n_pad, in, k_pad, beta, gradient.weight, gradient.stride);
}

template <class T>
inline void bias_gradient(const Network<T> &net, index l, const Rows<T> &rows, const T *delta, T beta,
                          const Layer<T> &gradient) {
    if (!gradient.bias) return;
    const index n = net.width[l], n_pad = net.pad[l];
    if (rows.product)
        std::memcpy(gradient.bias, delta + (rows.count - 1) * n_pad, std::size_t(n) * sizeof(T));
    else
        small_product(index(1), n, rows.count, T(1), rows.ones, index(1), rows.ones_step, delta, n_pad, beta,
                      gradient.bias, n);
}

// out = beta out + D_l W_l. `layer` may hold any matrix of layer l's shape.
template <class T>
inline void backward_layer(const Blas<T> &blas, const Network<T> &net, index l, const Layer<T> &layer, index rows,
                           const T *delta, T beta, T *out) {
    const index k = net.width[l - 1], n = net.width[l], n_pad = net.pad[l], k_pad = net.pad[l - 1];
    if (layer.transposed)
        multiply_nt(blas, rows, k, n_pad, T(1), delta, n_pad, layer.weight, layer.stride, beta, out, k_pad);
    else
        multiply_nn(blas, rows, k_pad, n, T(1), delta, n_pad, layer.weight, layer.stride, beta, out, k_pad);
}

// residual -= targets; returns the squared norm of what is left. Padding, which is zero in both, goes along.
template <class T>
inline Total<T> subtract_targets(T *residual, index stride, const T *targets, index targets_stride, index rows,
                                 index columns) {
    constexpr int L = lanes<T>;
    const index length = stride % L == 0 && targets_stride == stride ? stride : columns;
    Total<T> total = Total<T>(0);
    Vector<T, L> squares = {};
    for (index r = 0; r < rows; ++r) {
        T *row = residual + r * stride;
        const T *target = targets + r * targets_stride;
        index c = 0;
        for (; c + L <= length; c += L) {
            const Vector<T, L> v = load<T, L>(row + c) - load<T, L>(target + c);
            store<T, L>(row + c, v);
            squares += v * v;
        }
        for (; c < length; ++c) {
            row[c] -= target[c];
            total += Total<T>(row[c]) * Total<T>(row[c]);
        }
        if constexpr (sizeof(T) < sizeof(double)) {  // long sums need the longer type
            total += Total<T>(sum<T, L>(squares));
            squares = Vector<T, L>{};
        }
    }
    return total + Total<T>(sum<T, L>(squares));
}

// Of a buffer of whole vectors.
template <class T>
inline Total<T> squared_norm(const T *values, index count) {
    constexpr int L = lanes<T>;
    Total<T> total = Total<T>(0);
    for (index k = 0; k < count; k += L) {
        const Vector<T, L> v = load<T, L>(values + k);
        total += Total<T>(sum<T, L>(v * v));
    }
    return total;
}

// Every piece belongs to one layer for good, whatever the number of samples: rows of different lengths in one place
// would leave something in each other's padding, which has to stay zero.
template <class T>
struct PassMemory {
    index rows;     // that there is room for
    T *activation;  // Z_1 .. Z_L, one behind the other
    T *delta;       // D_L .. D_1 likewise, from the top; without D_L in the sample form, which has it in Z_L's place
    T *residual;
    T *first;           // product form: [W_1 b_1]^T where the layer is stored plain
    T *first_gradient;  // and its gradient
};

template <class T>
inline PassMemory<T> pass_memory(const Network<T> &net, index samples, bool product, Scratch<T> &scratch) {
    const index rows = product ? product_rows(net) : chunk_rows(net, samples);
    index activations = 0;
    for (index l = 1; l <= net.depth; ++l) activations += rows * net.pad[l];
    PassMemory<T> memory{};
    memory.rows = rows;
    memory.activation = scratch.take(activations);
    memory.delta = scratch.take(activations);
    if (product) {
        memory.residual = scratch.take(chunk_rows(net, samples) * net.pad[net.depth]);
        memory.first = scratch.take(rows * net.pad[1]);
        memory.first_gradient = scratch.take(rows * net.pad[1]);
    }
    return memory;
}

// [W_1 b_1]^T of a first layer that is stored plain.
template <class T>
inline void transpose_first(const Network<T> &net, T *target) {
    const Layer<T> &layer = net.layer[0];
    const index in = net.width[0], out = net.width[1], pad = net.pad[1];
    for (index a = 0; a < in; ++a)
        for (index r = 0; r < out; ++r) target[a * pad + r] = layer.weight[r * layer.stride + a];
    if (net.bias)
        for (index r = 0; r < out; ++r) target[in * pad + r] = layer.bias ? layer.bias[r] : T(0);
}

// D_1 of the product form is the first gradient, transposed: kept where it is, or written into plain storage.
template <class T>
inline void store_first_gradient(const Network<T> &net, const T *delta, const Layer<T> &gradient) {
    if (gradient.transposed) {
        if (net.bias && !gradient.bias)  // a row for a bias that this layer does not have
            std::memset(gradient.weight + net.width[0] * gradient.stride, 0, std::size_t(net.pad[1]) * sizeof(T));
        return;
    }
    const index in = net.width[0], out = net.width[1], pad = net.pad[1];
    for (index r = 0; r < out; ++r)
        for (index a = 0; a < in; ++a) gradient.weight[r * gradient.stride + a] = delta[a * pad + r];
    if (gradient.bias)
        for (index r = 0; r < out; ++r) gradient.bias[r] = delta[in * pad + r];
}

// Z_1 .. Z_L of the product form; returns Z_L = P^T (with its bias row).
template <class T>
inline const T *product_forward(const Blas<T> &blas, const Network<T> &net, const PassMemory<T> &memory,
                                const T *&first) {
    const Rows<T> rows{product_rows(net), true, nullptr, 0};
    first = net.layer[0].transposed ? net.layer[0].weight : memory.first;
    if (!net.layer[0].transposed) transpose_first(net, memory.first);
    const T *in = first;
    T *out = memory.activation;
    for (index l = 2; l <= net.depth; ++l) {
        forward_layer(blas, net, l, net.layer[l - 1], rows.count, in, T(0), out);
        add_bias(net, l, net.layer[l - 1], rows, out);
        in = out;
        out += rows.count * net.pad[l];
    }
    return in;
}

// X P^T + u p^T for a few samples.
template <class T>
inline void product_prediction(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, index start, index rows,
                               const T *map, T *prediction) {
    const index in = net.width[0], out = net.width[net.depth], pad = net.pad[net.depth];
    multiply_nn(blas, rows, pad, in, T(1), data.x + start * data.x_stride, data.x_stride, map, pad, T(0), prediction,
                pad);
    if (net.bias)
        small_product(rows, out, index(1), T(1), data.ones + start * data.ones_step, data.ones_step, index(1),
                      map + in * pad, pad, T(1), prediction, pad);
}

// Gradients of the product form from the seed [X u]^T D_L, which lies where `product_seed` says.
template <class T>
inline void product_sweep(const Blas<T> &blas, const Network<T> &net, const PassMemory<T> &memory, const T *first,
                          const T *seed, const Layer<T> *gradient) {
    const index rows = product_rows(net);
    T *first_gradient = gradient[0].transposed ? gradient[0].weight : memory.first_gradient;
    const Rows<T> all{rows, true, nullptr, 0};
    const T *delta = seed;
    T *next = memory.delta + rows * net.pad[net.depth];
    const T *activation = memory.activation;
    for (index l = 2; l < net.depth; ++l) activation += rows * net.pad[l];  // Z_L, behind Z_2 .. Z_{L-1}
    for (index l = net.depth; l >= 2; --l) {
        const T *input = l == 2 ? first : (activation -= rows * net.pad[l - 1]);
        weight_gradient(blas, net, l, rows, input, delta, T(0), gradient[l - 1]);
        bias_gradient(net, l, all, delta, T(0), gradient[l - 1]);
        T *below = l == 2 ? first_gradient : next;
        backward_layer(blas, net, l, net.layer[l - 1], rows, delta, T(0), below);
        delta = below;
        next += rows * net.pad[l - 1];
    }
    store_first_gradient(net, delta, gradient[0]);
}

// With one layer the seed is the gradient itself.
template <class T>
inline T *product_seed(const Network<T> &net, const PassMemory<T> &memory, const Layer<T> *gradient) {
    if (net.depth > 1) return memory.delta;
    return gradient && gradient[0].transposed ? gradient[0].weight : memory.first_gradient;
}

// seed = beta seed + scale [X u]^T D for a few samples.
template <class T>
inline void add_to_seed(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, index start, index count,
                        T scale, const T *delta, T beta, T *seed) {
    const index in = net.width[0], pad = net.pad[net.depth];
    multiply_tn(blas, in, pad, count, scale, data.x + start * data.x_stride, data.x_stride, delta, pad, beta, seed,
                pad);
    if (net.bias)
        small_product(index(1), pad, count, scale, data.ones + start * data.ones_step, index(1), data.ones_step, delta,
                      pad, beta, seed + in * pad, pad);
}

// Of a diagonal X, from P^T in `map`: the seed scale [X u]^T E, if there is room for it, and ||E||^2. Rows of E never
// leave the registers.
template <class T>
inline Total<T> diagonal_seed(const Network<T> &net, const Data<T> &data, T scale, const T *map, T *seed) {
    constexpr int L = lanes<T>;
    const index in = net.width[0], pad = net.pad[net.depth];
    const T *const shift = map + in * pad;
    T *const shift_seed = seed ? seed + in * pad : nullptr;
    if (seed && (net.bias || data.samples < in)) {
        const index first = smaller(data.samples, in);
        std::memset(seed + first * pad, 0, std::size_t((product_rows(net) - first) * pad) * sizeof(T));
    }
    Total<T> total = Total<T>(0);
    Vector<T, L> squares = {};
    for (index r = 0; r < data.samples; ++r) {
        const T d = data.diagonal[r], u = data.ones[r * data.ones_step], back = d * scale;
        const T *const row = map + smaller(r, in - 1) * pad, *const target = data.y + r * data.y_stride;
        for (index c = 0; c < pad; c += L) {
            Vector<T, L> v = load<T, L>(row + c) * d - load<T, L>(target + c);
            if (net.bias) v += load<T, L>(shift + c) * u;
            squares += v * v;
            if (!seed) continue;
            if (r < in) store<T, L>(seed + r * pad + c, v * back);
            if (net.bias) store<T, L>(shift_seed + c, load<T, L>(shift_seed + c) + v * (u * scale));
        }
        if constexpr (sizeof(T) < sizeof(double)) {  // long sums need the longer type
            total += Total<T>(sum<T, L>(squares));
            squares = Vector<T, L>{};
        }
    }
    return total + Total<T>(sum<T, L>(squares));
}

template <class T>
inline Total<T> product_pass(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, T scale,
                             const Layer<T> *gradient, const PassMemory<T> &memory) {
    const index pad = net.pad[net.depth], chunk = chunk_rows(net, data.samples);
    const T *first;
    const T *map = product_forward(blas, net, memory, first);
    T *seed = product_seed(net, memory, gradient);
    if (data.diagonal) {
        const Total<T> squared = diagonal_seed(net, data, scale, map, gradient ? seed : nullptr);
        if (gradient) product_sweep(blas, net, memory, first, seed, gradient);
        return squared;
    }
    Total<T> total = Total<T>(0);
    for (index start = 0; start < data.samples; start += chunk) {
        const index count = smaller(chunk, data.samples - start);
        product_prediction(blas, net, data, start, count, map, memory.residual);
        total += subtract_targets(memory.residual, pad, data.y + start * data.y_stride, data.y_stride, count,
                                  net.width[net.depth]);
        if (gradient)
            add_to_seed(blas, net, data, start, count, scale, memory.residual, start == 0 ? T(0) : T(1), seed);
    }
    if (gradient) product_sweep(blas, net, memory, first, seed, gradient);
    return total;
}

// gradient = beta gradient + what D_L of a few samples gives, whose Z_1 .. are in memory; returns D_1.
template <class T>
inline const T *sample_sweep(const Blas<T> &blas, const Network<T> &net, const PassMemory<T> &memory, const T *x,
                             const Rows<T> &rows, const T *delta, T beta, const Layer<T> *gradient) {
    T *below = memory.delta;
    const T *activation = memory.activation;
    for (index l = 1; l < net.depth; ++l) activation += memory.rows * net.pad[l];  // Z_L
    for (index l = net.depth; l >= 1; --l) {
        const T *input = l == 1 ? x : (activation -= memory.rows * net.pad[l - 1]);
        if (gradient) {
            weight_gradient(blas, net, l, rows.count, input, delta, beta, gradient[l - 1]);
            bias_gradient(net, l, rows, delta, beta, gradient[l - 1]);
        }
        if (l == 1) break;
        backward_layer(blas, net, l, net.layer[l - 1], rows.count, delta, T(0), below);
        delta = below;
        below += memory.rows * net.pad[l - 1];
    }
    return delta;
}

template <class T>
inline Total<T> sample_pass(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, T scale,
                            const Layer<T> *gradient, const PassMemory<T> &memory) {
    const index chunk = memory.rows, out = net.width[net.depth], pad = net.pad[net.depth];
    Total<T> total = Total<T>(0);
    for (index start = 0; start < data.samples; start += chunk) {
        const index rows = smaller(chunk, data.samples - start);
        const Rows<T> some{rows, false, data.ones + start * data.ones_step, data.ones_step};
        const T *in = data.x + start * data.x_stride;
        T *z = memory.activation;
        for (index l = 1; l <= net.depth; ++l) {
            forward_layer(blas, net, l, net.layer[l - 1], rows, in, T(0), z);
            add_bias(net, l, net.layer[l - 1], some, z);
            in = z;
            z += chunk * net.pad[l];
        }
        T *residual = z - chunk * pad;
        total += subtract_targets(residual, pad, data.y + start * data.y_stride, data.y_stride, rows, out);
        if (!gradient) continue;
        if (!is_zero(scale - T(1)))
            for (index k = 0; k < rows * pad; ++k) residual[k] *= scale;
        sample_sweep(blas, net, memory, data.x + start * data.x_stride, some, residual, start == 0 ? T(0) : T(1),
                     gradient);
    }
    return total;
}

// Predictions (samples, out), without padding.
template <class T>
inline void predict(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, bool product, T *out,
                    const PassMemory<T> &memory) {
    const index chunk = chunk_rows(net, data.samples), width = net.width[net.depth];
    const T *first;
    const T *map = product ? product_forward(blas, net, memory, first) : nullptr;
    for (index start = 0; start < data.samples; start += chunk) {
        const index rows = smaller(chunk, data.samples - start);
        if (product) {
            product_prediction(blas, net, data, start, rows, map, out + start * width);
            continue;
        }
        const Rows<T> some{rows, false, data.ones + start * data.ones_step, data.ones_step};
        const T *in = data.x + start * data.x_stride;
        T *z = memory.activation;
        for (index l = 1; l <= net.depth; ++l) {
            T *target = l == net.depth ? out + start * width : z;
            forward_layer(blas, net, l, net.layer[l - 1], rows, in, T(0), target);
            add_bias(net, l, net.layer[l - 1], some, target);
            in = z;
            z += chunk * net.pad[l];
        }
    }
}

// ||E||^2, and with `gradient` the gradient of scale/2 ||E||^2.
template <class T>
inline Total<T> pass(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, bool product, T scale,
                     const Layer<T> *gradient, const PassMemory<T> &memory) {
    return product ? product_pass(blas, net, data, scale, gradient, memory)
                   : sample_pass(blas, net, data, scale, gradient, memory);
}

}  // namespace hesskern::HESSKERN_ISA
