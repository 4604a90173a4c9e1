// The memory behind products with a Hessian: activations, deltas and the Gram matrix of the data, as the kernels want
// them.
#pragma once

#include "bindings/layout.hpp"

namespace hesskern::bindings {

template <class T>
class HessianMemory {
  public:
    // `network` and `data` live as long as this; the factors are not computed yet. There is room for `samples` samples.
    HessianMemory(const Layout<T> &layout, const Network<T> &network, const Data<T> &data, index samples, double scale,
                  bool gauss_newton, bool functional) {
        const bool product = layout.product();
        const index rows = product ? network.width[0] + (network.bias ? 1 : 0) : samples;
        index activations = 0;
        for (const index pad : layout.pad()) activations += rows * pad;
        memory_ = make_buffer<T>(2 * activations + (product ? rows * rows : 0));
        T *next = memory_.get();
        for (const index pad : layout.pad()) {
            activation_.push_back(next);
            delta_.push_back(next + rows * pad);
            next += 2 * rows * pad;
        }
        gram_ = next;
        if (product)
            activation_[1] = network.layer[0].weight;
        else
            activation_[0] = const_cast<T *>(data.x);
        scratch_ = make_buffer<T>(kernels().of<T>().hessian_scratch(network, rows));
        residual_ = make_buffer<T>(product ? samples * layout.pad().back() : 0);
        problem = {network,
                   data,
                   {product ? rows : data.samples, product, data.ones, data.ones_step},
                   activation_.data(),
                   delta_.data(),
                   gram_,
                   T(scale),
                   scratch_.get(),
                   residual_.get(),
                   gauss_newton,
                   functional};
    }
    HessianMemory(const HessianMemory &) = delete;
    HessianMemory &operator=(const HessianMemory &) = delete;

    T **activation() { return activation_.data(); }
    T **delta() { return delta_.data(); }
    T *gram() { return gram_; }

    HessianProblem<T> problem{};

  private:
    Buffer<T> memory_, scratch_, residual_;
    std::vector<T *> activation_, delta_;
    T *gram_ = nullptr;
};

}  // namespace hesskern::bindings
