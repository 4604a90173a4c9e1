// Hessian-vector products in closed form: the gradient D_l^T Z_{l-1} differentiated once in a direction.
//
// With the direction (V_1 ... V_L), forward:   Z'_l = Z'_{l-1} W_l^T + Z_{l-1} V_l^T
// and backward from D'_L = S Z'_L:              D'_{l-1} = D'_l W_l + D_l V_l,
// the product is  D'_l^T Z_{l-1} + D_l^T Z'_{l-1}.  The Gauss-Newton part keeps the terms without D_l, the functional
// part those with it. Z and D come from one pass at the beginning; S is X^T X in the product form, else the identity.
#pragma once

#include "kernels/pass.hpp"
#include "kernels/table.hpp"

namespace hesskern::HESSKERN_ISA {

// Z'_1 ... Z'_L and D'_L ... D'_1, each in its own place: see PassMemory.
template <class T>
inline index hessian_scratch(const Network<T> &net, index rows) {
    index total = 0;
    for (index l = 1; l <= net.depth; ++l) total += rows * net.pad[l];
    return 2 * total;
}

// scale [X u]^T [X u], without u where no layer has a bias.
template <class T>
inline void data_gram(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, T scale, T *gram) {
    const index in = net.width[0], rows = product_rows(net), n = data.samples;
    multiply_tn(blas, in, in, n, scale, data.x, data.x_stride, data.x, data.x_stride, T(0), gram, rows);
    if (!net.bias) return;
    T *last = gram + in * rows;
    small_product(index(1), in, n, scale, data.ones, index(1), data.ones_step, data.x, data.x_stride, T(0), last, rows);
    for (index a = 0; a < in; ++a) gram[a * rows + in] = last[a];
    last[in] = T(0);
    for (index k = 0; k < n; ++k) last[in] += scale * data.ones[k * data.ones_step] * data.ones[k * data.ones_step];
}

// Z_0 ... Z_{L-1} and D_1 ... D_L at the current weights, kept by the caller for all products to come.
template <class T>
inline void hessian_prepare(const Blas<T> &blas, const HessianProblem<T> &problem, T *const *activation,
                            T *const *delta, T *gram) {
    const Network<T> &net = problem.network;
    const index rows = problem.rows.count;
    if (problem.rows.product) data_gram(blas, net, problem.data, problem.scale, gram);
    for (index l = problem.rows.product ? 2 : 1; l <= net.depth; ++l) {
        forward_layer(blas, net, l, net.layer[l - 1], rows, problem.activation[l - 1], T(0), activation[l]);
        add_bias(net, l, net.layer[l - 1], problem.rows, activation[l]);
    }
    const index out = net.width[net.depth], pad = net.pad[net.depth];
    const T *prediction = problem.activation[net.depth];
    const Data<T> &data = problem.data;
    if (problem.rows.product) {
        T *residual = problem.residual;
        product_prediction(blas, net, data, index(0), data.samples, prediction, residual);
        subtract_targets(residual, pad, data.y, data.y_stride, data.samples, out);
        multiply_tn(blas, net.width[0], pad, data.samples, problem.scale, data.x, data.x_stride, residual, pad, T(0),
                    delta[net.depth], pad);
        if (net.bias)
            small_product(index(1), pad, data.samples, problem.scale, data.ones, index(1), data.ones_step, residual,
                          pad, T(0), delta[net.depth] + net.width[0] * pad, pad);
    } else {
        for (index k = 0; k < rows; ++k)
            for (index c = 0; c < out; ++c)
                delta[net.depth][k * pad + c] = problem.scale *
                                                (prediction[k * pad + c] - data.y[k * data.y_stride + c]);
    }
    for (index l = net.depth; l >= 2; --l)
        backward_layer(blas, net, l, net.layer[l - 1], rows, delta[l], T(0), delta[l - 1]);
}

// product := H direction, all in the padded layout.
template <class T>
inline void hessian_product(const Blas<T> &blas, const HessianProblem<T> &problem, const Layer<T> *direction,
                            const Layer<T> *product) {
    const Network<T> &net = problem.network;
    const Rows<T> &rows = problem.rows;
    const index n = rows.count, pad = net.pad[net.depth];
    const bool gauss_newton = problem.gauss_newton, functional = problem.functional;

    // Forward: Z'_1 ... Z'_L one behind the other; in the product form Z'_1 is V_1^T itself.
    T *space = problem.scratch;
    const T *moved = nullptr;
    T *start = space;
    for (index l = 1; l <= net.depth; ++l) {
        if (l == 1 && rows.product) {
            moved = direction[0].weight;
            space += n * net.pad[1];
            continue;
        }
        if (moved) forward_layer(blas, net, l, net.layer[l - 1], n, moved, T(0), space);
        forward_layer(blas, net, l, direction[l - 1], n, problem.activation[l - 1], moved ? T(1) : T(0), space);
        add_bias(net, l, direction[l - 1], rows, space);
        moved = space;
        space += n * net.pad[l];
    }

    const T *change = nullptr;  // D'_l; null while it is zero
    if (gauss_newton) {
        if (rows.product)
            multiply_nn(blas, n, pad, n, T(1), problem.gram, n, moved, pad, T(0), space, pad);
        else
            for (index k = 0; k < n * pad; ++k) space[k] = problem.scale * moved[k];
        change = space;
    }
    for (index l = net.depth; l >= 1; --l) {
        const Layer<T> &target = product[l - 1];
        const bool identity = l == 1 && rows.product;
        if (!identity) {
            if (change) {
                weight_gradient(blas, net, l, n, problem.activation[l - 1], change, T(0), target);
                bias_gradient(net, l, rows, change, T(0), target);
            }
            const T *before = nullptr;  // Z'_{l-1}; zero below the first layer
            if (l >= 2) {
                before = start;
                for (index j = 1; j < l - 1; ++j) before += n * net.pad[j];
                if (l == 2 && rows.product) before = direction[0].weight;
            }
            if (functional && before)
                weight_gradient(blas, net, l, n, before, problem.delta[l], change ? T(1) : T(0), target);
        } else if (change && change != target.weight) {
            std::memcpy(target.weight, change, std::size_t(n * net.pad[1]) * sizeof(T));
        }
        if (l == 1) {
            if (identity) store_first_gradient(net, target.weight, target);
            break;
        }
        space += n * net.pad[l];
        T *below = l == 2 && rows.product ? product[0].weight : space;
        if (change) backward_layer(blas, net, l, net.layer[l - 1], n, change, T(0), below);
        if (functional)
            backward_layer(blas, net, l, direction[l - 1], n, problem.delta[l], change ? T(1) : T(0), below);
        change = change || functional ? below : nullptr;
    }
}

}  // namespace hesskern::HESSKERN_ISA
