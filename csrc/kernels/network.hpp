// A linear network and its data as the kernels see them: shapes, strides and pointers; nothing here owns memory.
#pragma once

#include <cstdint>

namespace hesskern {

// One layer. Plain: `weight` is (out, in). Transposed: `weight` is W^T (in, out), and row `in` below it is the bias
// (zero where the layer has none, present wherever any layer of the network has one).
template <class T>
struct Layer {
    T *weight;
    T *bias;  // (out), or null
    std::int64_t stride;
    bool transposed;
};

// `pad[l]` >= `width[l]` is the length of a row of activations of layer l; what lies beyond `width[l]` is zero.
template <class T>
struct Network {
    std::int64_t depth;
    const std::int64_t *width;  // depth + 1
    const std::int64_t *pad;    // depth + 1
    const Layer<T> *layer;
    bool bias;  // any layer has one
};

// Samples in rows of `pad[0]` values. `ones` is the column that the biases multiply: a vector after the data was
// reduced by QR, otherwise a single 1 read with step 0.
template <class T>
struct Data {
    std::int64_t samples;
    const T *x;
    std::int64_t x_stride;
    const T *ones;
    std::int64_t ones_step;
    const T *y;
    std::int64_t y_stride;
    // Where X is diagonal: its diagonal (samples), zero beyond the inputs; else null. `x` holds all of it in any case.
    const T *diagonal = nullptr;
};

// The rows that go through the layers, and the column of them that biases multiply: in the product form the constant is
// the last row of the identity.
template <class T>
struct Rows {
    std::int64_t count;
    bool product;
    const T *ones;
    std::int64_t ones_step;
};

}  // namespace hesskern
