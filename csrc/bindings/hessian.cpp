// Products with the Hessian, as an object that keeps everything that does not depend on the vector.
#include <mutex>
#include <optional>

#include "bindings/hessian_memory.hpp"
#include "bindings/module.hpp"

namespace hesskern::bindings {

namespace {

template <class T>
class Products {
  public:
    Products(const NetworkView<T> &view, const DataView<T> &given, double scale, double decay, bool gauss_newton,
             bool functional)
        : layout_(view, kernels().of<T>().product_form(view.network(), given.data.samples, true)),
          samples_(layout_.copy(given.data)),
          weights_(make_buffer<T>(layout_.count())),
          direction_(make_buffer<T>(layout_.count())),
          product_(make_buffer<T>(layout_.count())),
          layer_(layout_.over(weights_.get())),
          direction_layer_(layout_.over(direction_.get())),
          product_layer_(layout_.over(product_.get())),
          decay_(T(decay)) {
        layout_.pack(view.flat().data(), 1, weights_.get());

        memory_.emplace(layout_, layout_.network(layer_), samples_.data, samples_.data.samples, scale, gauss_newton,
                        functional);
        kernels().of<T>().hessian_prepare(blas<T>(), memory_->problem, memory_->activation(), memory_->delta(),
                                          memory_->gram());
    }

    // `columns` vectors, column j of the row-major (P, columns) array.
    void apply(const T *v, T *out, index columns) {
        const std::lock_guard<std::mutex> alone(busy_);  // one scratch memory: a second thread waits
        for (index j = 0; j < columns; ++j) {
            layout_.pack(v + j, columns, direction_.get());
            kernels().of<T>().hessian_product(blas<T>(), memory_->problem, direction_layer_.data(),
                                              product_layer_.data());
            layout_.unpack(product_.get(), out + j, columns);
        }
        if (decay_ != T(0))
            for (index k = 0; k < layout_.size() * columns; ++k) out[k] += decay_ * v[k];
    }

    index size() const { return layout_.size(); }

  private:
    Layout<T> layout_;
    typename Layout<T>::Samples samples_;
    Buffer<T> weights_, direction_, product_;
    std::vector<Layer<T>> layer_, direction_layer_, product_layer_;
    std::optional<HessianMemory<T>> memory_;
    T decay_;
    std::mutex busy_;
};

class HessianProduct {
  public:
    HessianProduct(const py::sequence &weights, const py::sequence &biases, const py::array &x, const py::object &ones,
                   const py::array &y, double scale, double decay, bool gauss_newton, bool functional) {
        const auto make = [&]<class T>(std::unique_ptr<Products<T>> &target) {
            const NetworkView<T> view(weights, biases);
            const DataView<T> data(x, ones, y, view.width().front(), view.width().back());
            target = std::make_unique<Products<T>>(view, data, scale, decay, gauss_newton, functional);
        };
        if (holds_float32(x))
            make(f32_);
        else
            make(f64_);
    }

    void apply(const py::array &v, const py::array &out) {
        if (f32_)
            apply_to(*f32_, v, out);
        else
            apply_to(*f64_, v, out);
    }

  private:
    template <class T>
    static void apply_to(Products<T> &products, const py::array &v, const py::array &out) {
        const bool vector = v.ndim() == 1;
        const index columns = vector || v.ndim() != 2 ? 1 : v.shape(1);
        const index size = products.size();
        const py::array from = vector ? checked<T>(v, "v", {size}) : checked<T>(v, "v", {size, columns});
        py::array to = vector ? checked<T>(out, "out", {size}) : checked<T>(out, "out", {size, columns});
        const T *source = read<T>(from);
        T *target = written<T>(to, "out");
        py::gil_scoped_release release;
        products.apply(source, target, columns);
    }

    std::unique_ptr<Products<float>> f32_;
    std::unique_ptr<Products<double>> f64_;
};

}  // namespace

void bind_hessian(py::module_ &module) {
    py::class_<HessianProduct>(module, "HessianProduct", "Products of the Hessian with vectors, in closed form.")
        .def(py::init<const py::sequence &, const py::sequence &, const py::array &, const py::object &,
                      const py::array &, double, double, bool, bool>(),
             py::arg("weights"), py::arg("biases"), py::arg("X"), py::arg("ones"), py::arg("Y"), py::arg("scale"),
             py::arg("decay"), py::arg("gauss_newton"), py::arg("functional"))
        .def("apply", &HessianProduct::apply, py::arg("v"), py::arg("out"),
             "H v into out; v is (P,) or (P, k), in named_parameters() order.");
}

}  // namespace hesskern::bindings
