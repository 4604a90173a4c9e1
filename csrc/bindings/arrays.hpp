// Arguments from Python, checked once. The Python layer has already explained to the user what was wrong with an
// argument; here every shape, type and stride is checked again so that no call of the extension can read or write
// outside an array.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels/table.hpp"

namespace hesskern::bindings {

namespace py = pybind11;
using index = std::int64_t;

const Kernels &kernels();
template <class T>
const Blas<T> &blas();

[[noreturn]] inline void fail(const std::string &message) { throw py::value_error(message); }

inline constexpr std::size_t alignment = 64;

template <class T>
struct FreeAligned {
    void operator()(T *memory) const { ::operator delete[](memory, std::align_val_t(alignment)); }
};

template <class T>
using Buffer = std::unique_ptr<T[], FreeAligned<T>>;

// Zeroed memory on a cache line. A count that is negative is one that overflowed.
template <class T>
Buffer<T> make_buffer(index count) {
    if (count < 0 || count > std::numeric_limits<index>::max() / index(sizeof(T))) throw std::bad_alloc();
    const std::size_t size = std::size_t(std::max<index>(count, 1));
    T *memory = static_cast<T *>(::operator new[](size * sizeof(T), std::align_val_t(alignment)));
    std::fill_n(memory, size, T(0));
    return Buffer<T>(memory);
}

// A C-contiguous array of exactly this type and shape (-1: any length); anything else is an error, never a copy.
template <class T>
py::array checked(const py::handle &object, const char *name, std::initializer_list<index> shape) {
    if (!py::isinstance<py::array>(object)) fail(std::string(name) + " must be a numpy array");
    auto array = py::reinterpret_borrow<py::array>(object);
    if (!py::dtype::of<T>().is(array.dtype()) && !py::dtype::of<T>().equal(array.dtype()))
        fail(std::string(name) + " must have dtype " + std::string(py::str(py::dtype::of<T>())));
    if (array.ndim() != index(shape.size())) fail(std::string(name) + " has the wrong number of dimensions");
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) fail(std::string(name) + " is not aligned");
    index axis = 0, expected_stride = index(sizeof(T)) * array.size();
    for (const index length : shape) {
        if (length >= 0 && array.shape(axis) != length)
            fail(std::string(name) + " has length " + std::to_string(array.shape(axis)) + " along axis " +
                 std::to_string(axis) + ", expected " + std::to_string(length));
        if (array.shape(axis) > 0) expected_stride /= array.shape(axis);
        if (array.size() > 0 && array.shape(axis) > 1 && array.strides(axis) != expected_stride)
            fail(std::string(name) + " must be C-contiguous");
        ++axis;
    }
    return array;
}

template <class T>
const T *read(const py::array &array) {
    return static_cast<const T *>(array.data());
}

template <class T>
T *written(py::array &array, const char *name) {
    if (!array.writeable()) fail(std::string(name) + " is read-only");
    return static_cast<T *>(array.mutable_data());
}

inline bool holds_float32(const py::handle &object) {
    return py::isinstance<py::array>(object) &&
           py::reinterpret_borrow<py::array>(object).dtype().equal(py::dtype::of<float>());
}

// Layers as Python has them: plain storage, no padding, arrays kept alive while the view lives.
template <class T>
class NetworkView {
  public:
    NetworkView(const py::sequence &weights, const py::sequence &biases) {
        const index depth = index(py::len(weights));
        if (depth < 1) fail("weights must hold at least one matrix");
        if (index(py::len(biases)) != depth) fail("biases must have one entry (or None) for each weight");
        for (index l = 0; l < depth; ++l) {
            py::array weight = checked<T>(weights[std::size_t(l)], "a weight", {-1, -1});
            if (l == 0) width_.push_back(weight.shape(1));
            if (weight.shape(1) != width_.back()) fail("consecutive weights do not fit");
            if (weight.size() == 0) fail("a weight is empty");
            width_.push_back(weight.shape(0));
            const py::object given = biases[std::size_t(l)];
            T *bias = nullptr;
            if (!given.is_none()) {
                py::array array = checked<T>(given, "a bias", {weight.shape(0)});
                bias = const_cast<T *>(read<T>(array));
                kept_.push_back(array);
                any_bias_ = true;
            }
            layer_.push_back({const_cast<T *>(read<T>(weight)), bias, weight.shape(1), false});
            kept_.push_back(weight);
        }
    }

    Network<T> network() const {
        return {index(layer_.size()), width_.data(), width_.data(), layer_.data(), any_bias_};
    }
    index parameters() const {
        index count = 0;
        for (std::size_t l = 0; l < layer_.size(); ++l)
            count += width_[l] * width_[l + 1] + (layer_[l].bias ? width_[l + 1] : 0);
        return count;
    }
    // All parameters in named_parameters() order.
    std::vector<T> flat() const {
        std::vector<T> values;
        for (std::size_t l = 0; l < layer_.size(); ++l) {
            values.insert(values.end(), layer_[l].weight, layer_[l].weight + width_[l] * width_[l + 1]);
            if (layer_[l].bias) values.insert(values.end(), layer_[l].bias, layer_[l].bias + width_[l + 1]);
        }
        return values;
    }
    // The same layers over a flat vector in named_parameters() order.
    std::vector<Layer<T>> over(T *flat) const {
        std::vector<Layer<T>> layers = layer_;
        for (std::size_t l = 0; l < layers.size(); ++l) {
            layers[l].weight = flat;
            flat += width_[l] * width_[l + 1];
            if (layers[l].bias) {
                layers[l].bias = flat;
                flat += width_[l + 1];
            }
        }
        return layers;
    }
    const std::vector<index> &width() const { return width_; }
    const std::vector<Layer<T>> &layers() const { return layer_; }

  private:
    std::vector<py::array> kept_;
    std::vector<index> width_;
    std::vector<Layer<T>> layer_;
    bool any_bias_ = false;
};

// X (N, i), Y (N, o) and the column the biases multiply (None: ones).
template <class T>
class DataView {
  public:
    DataView(const py::handle &x, const py::handle &ones, const py::handle &y, index inputs, index outputs)
        : x_(checked<T>(x, "X", {-1, inputs})), y_(checked<T>(y, "Y", {x_.shape(0), outputs})) {
        if (!ones.is_none()) ones_ = checked<T>(ones, "ones", {x_.shape(0)});
        data = {x_.shape(0), read<T>(x_), inputs, ones.is_none() ? &one_ : read<T>(ones_), ones.is_none() ? 0 : 1,
                read<T>(y_), outputs};
    }
    DataView(const DataView &) = delete;
    DataView &operator=(const DataView &) = delete;

    Data<T> data;

  private:
    py::array x_, y_, ones_;
    T one_ = T(1);
};

}  // namespace hesskern::bindings
