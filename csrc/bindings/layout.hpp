// The padded layout of a network's parameters that the training loop and the Hessian products share.
//
// Every layer is stored so that its longer dimension is contiguous, padded to whole vectors with zeros; the product
// form needs the first one transposed. Parameters, gradients and directions are buffers in this one layout.
#pragma once

#include <algorithm>
#include <vector>

#include "bindings/arrays.hpp"

namespace hesskern::bindings {

template <class T>
class Layout {
  public:
    Layout(const NetworkView<T> &view, bool product) : product_(product), width_(view.width()) {
        const index lanes = index(kernels().vector_bytes) / index(sizeof(T));
        for (const index w : width_) pad_.push_back((w + lanes - 1) / lanes * lanes);
        bias_ = view.network().bias;
        for (std::size_t l = 0; l < view.layers().size(); ++l) {
            const bool transposed = (l == 0 && product) || width_[l + 1] > width_[l];
            const bool has_bias = view.layers()[l].bias != nullptr;
            Slot slot{count_, -1, transposed ? pad_[l + 1] : pad_[l], transposed};
            count_ += slot.stride * (transposed ? width_[l] : width_[l + 1]);
            if (transposed ? bias_ : has_bias) {
                if (has_bias) slot.bias = count_;
                count_ += pad_[l + 1];
            }
            size_ += width_[l] * width_[l + 1] + (has_bias ? width_[l + 1] : 0);
            slot_.push_back(slot);
        }
        count_ = (count_ + 15) / 16 * 16;
    }

    index count() const { return count_; }  // of a buffer, padding included
    index size() const { return size_; }    // of a flat vector
    bool product() const { return product_; }
    const std::vector<index> &width() const { return width_; }
    const std::vector<index> &pad() const { return pad_; }

    bool alike(const Layout &other) const {
        const auto same = [](const Slot &a, const Slot &b) { return a.bias == b.bias && a.transposed == b.transposed; };
        return product_ == other.product_ && width_ == other.width_ &&
               std::equal(slot_.begin(), slot_.end(), other.slot_.begin(), same);
    }

    Network<T> network(const std::vector<Layer<T>> &layers) const {
        return {index(layers.size()), width_.data(), pad_.data(), layers.data(), bias_};
    }

    std::vector<Layer<T>> over(T *buffer) const {
        std::vector<Layer<T>> layers;
        for (const Slot &slot : slot_)
            layers.push_back(
                {buffer + slot.weight, slot.bias >= 0 ? buffer + slot.bias : nullptr, slot.stride, slot.transposed});
        return layers;
    }

    // Flat (every `step`-th value of it) to buffer, and back, in named_parameters() order.
    void pack(const T *flat, index step, T *buffer) const {
        each(flat, step, buffer, [](const T &outside, T &inside) { inside = outside; });
    }
    void unpack(const T *buffer, T *flat, index step) const {
        each(flat, step, const_cast<T *>(buffer), [](T &outside, T &inside) { outside = inside; });
    }

    // The padded copy of the data.
    struct Samples {
        Buffer<T> x, y, ones, diagonal;
        Data<T> data;
    };
    Samples copy(const Data<T> &given) const {
        const index n = given.samples, in = width_.front(), out = width_.back(), pad_in = pad_.front(),
                    pad_out = pad_.back();
        Samples copy{make_buffer<T>(n * pad_in), make_buffer<T>(n * pad_out), make_buffer<T>(n), {}, {}};
        for (index k = 0; k < n; ++k) {
            std::copy_n(given.x + k * in, in, copy.x.get() + k * pad_in);
            std::copy_n(given.y + k * out, out, copy.y.get() + k * pad_out);
            copy.ones[std::size_t(k)] = given.ones[k * given.ones_step];
        }
        copy.data = {n, copy.x.get(), pad_in, copy.ones.get(), 1, copy.y.get(), pad_out};
        if (product_ && is_diagonal(given)) {
            copy.diagonal = make_buffer<T>(n);
            for (index k = 0; k < std::min(n, in); ++k) copy.diagonal[std::size_t(k)] = given.x[k * in + k];
            copy.data.diagonal = copy.diagonal.get();
        }
        return copy;
    }

  private:
    bool is_diagonal(const Data<T> &given) const {
        const index in = width_.front();
        for (index k = 0; k < given.samples; ++k)
            for (index a = 0; a < in; ++a)
                if (a != k && given.x[k * in + a] != T(0)) return false;
        return true;
    }

    struct Slot {
        index weight, bias, stride;  // offsets; bias < 0: none
        bool transposed;
    };

    template <class Outside, class Copy>
    void each(Outside *flat, index step, T *buffer, Copy &&copy) const {
        for (std::size_t l = 0; l < slot_.size(); ++l) {
            const Slot &slot = slot_[l];
            const index in = width_[l], out = width_[l + 1];
            const index by_row = slot.transposed ? 1 : slot.stride, by_column = slot.transposed ? slot.stride : 1;
            T *weight = buffer + slot.weight;
            for (index r = 0; r < out; ++r)
                for (index a = 0; a < in; ++a) copy(flat[(r * in + a) * step], weight[r * by_row + a * by_column]);
            flat += in * out * step;
            if (slot.bias < 0) continue;
            for (index r = 0; r < out; ++r) copy(flat[r * step], buffer[slot.bias + r]);
            flat += out * step;
        }
    }

    bool product_, bias_ = false;
    std::vector<index> width_, pad_;
    std::vector<Slot> slot_;
    index count_ = 0, size_ = 0;
};

}  // namespace hesskern::bindings
