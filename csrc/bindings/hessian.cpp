// Products with the Hessian, as an object that keeps everything that does not depend on the vector.
#include <atomic>
#include <optional>

#include "bindings/gil.hpp"
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
          layer_(layout_.over(weights_.get())),
          decay_(T(decay)) {
        layout_.pack(view.flat().data(), 1, weights_.get());

        memory_.emplace(layout_, layout_.network(layer_), samples_.data, samples_.data.samples, scale, gauss_newton,
                        functional);
        kernels().of<T>().hessian_prepare(blas<T>(), memory_->problem, memory_->activation(), memory_->delta(),
                                          memory_->gram());
    }

    ~Products() { delete spare_.load(); }

    // `columns` vectors, column j of the row-major (P, columns) array.
    void apply(const T *v, T *out, index columns) {
        std::unique_ptr<Workspace> mine(spare_.exchange(nullptr));
        if (!mine) mine = std::make_unique<Workspace>(layout_, memory_->problem);
        HessianProblem<T> problem = memory_->problem;
        problem.scratch = mine->scratch.get();
        for (index j = 0; j < columns; ++j) {
            layout_.pack(v + j, columns, mine->direction.get());
            kernels().of<T>().hessian_product(blas<T>(), problem, mine->direction_layer.data(),
                                              mine->product_layer.data());
            layout_.unpack(mine->product.get(), out + j, columns);
        }
        if (decay_ != T(0))
            for (index k = 0; k < layout_.size() * columns; ++k) out[k] += decay_ * v[k];
        delete spare_.exchange(mine.release());
    }

    // Lanczos steps: vectors and images (rows, size) as in `hesskern._base.lanczos.steps`, which defines what it does.
    index extend(T *vectors, T *images, index start, index stop, index block, const T *inside) {
        const index size = layout_.size();
        std::vector<T> factors(std::size_t(stop + block));
        for (index j = start; j < stop; ++j) {
            T *image = images + j * size, *next = vectors + (j + block) * size;
            apply(vectors + j * size, image, 1);
            if (inside)
                for (index k = 0; k < size; ++k) image[k] *= inside[k];
            std::copy_n(image, size, next);
            if (!kernels().of<T>().orthonormalise(vectors, j + block, 2 * block + 1, size, next, factors.data()))
                return j + 1;
        }
        return -1;
    }

    index size() const { return layout_.size(); }

  private:
    // What one product writes into. The rest is only read after the constructor.
    struct Workspace {
        Workspace(const Layout<T> &layout, const HessianProblem<T> &problem)
            : direction(make_buffer<T>(layout.count())),
              product(make_buffer<T>(layout.count())),
              scratch(make_buffer<T>(kernels().of<T>().hessian_scratch(problem.network, problem.rows.count))),
              direction_layer(layout.over(direction.get())),
              product_layer(layout.over(product.get())) {}
        Buffer<T> direction, product, scratch;
        std::vector<Layer<T>> direction_layer, product_layer;
    };

    Layout<T> layout_;
    typename Layout<T>::Samples samples_;
    Buffer<T> weights_;
    std::vector<Layer<T>> layer_;
    std::optional<HessianMemory<T>> memory_;
    T decay_;
    // Kept from one product to the next. Threads that multiply at the same time make their own: no lock, which a fork
    // would leave locked for ever in the child.
    std::atomic<Workspace *> spare_{nullptr};
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

    index extend(py::array vectors, py::array images, index start, index stop, index block, const py::object &inside) {
        return f32_ ? extend_with(*f32_, vectors, images, start, stop, block, inside)
                    : extend_with(*f64_, vectors, images, start, stop, block, inside);
    }

  private:
    template <class T>
    static index extend_with(Products<T> &products, const py::array &given_vectors, const py::array &given_images,
                             index start, index stop, index block, const py::object &given_inside) {
        const index size = products.size();
        py::array vectors = checked<T>(given_vectors, "vectors", {-1, size});
        py::array images = checked<T>(given_images, "images", {-1, size});
        if (start < 0 || start > stop || block < 1 || stop > images.shape(0) || stop + block > vectors.shape(0))
            fail("start, stop and block do not fit the arrays");
        py::array inside;
        if (!given_inside.is_none()) inside = checked<T>(given_inside, "inside", {size});
        const T *mask = given_inside.is_none() ? nullptr : read<T>(inside);
        T *to_vectors = written<T>(vectors, "vectors"), *to_images = written<T>(images, "images");
        const WithoutGil released;
        return products.extend(to_vectors, to_images, start, stop, block, mask);
    }

    template <class T>
    static void apply_to(Products<T> &products, const py::array &v, const py::array &out) {
        const bool vector = v.ndim() == 1;
        const index columns = vector || v.ndim() != 2 ? 1 : v.shape(1);
        const index size = products.size();
        const py::array from = vector ? checked<T>(v, "v", {size}) : checked<T>(v, "v", {size, columns});
        py::array to = vector ? checked<T>(out, "out", {size}) : checked<T>(out, "out", {size, columns});
        const T *source = read<T>(from);
        T *target = written<T>(to, "out");
        const WithoutGil released;
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
             "H v into out; v is (P,) or (P, k), in named_parameters() order.")
        .def("extend", &HessianProduct::extend, py::arg("vectors"), py::arg("images"), py::arg("start"),
             py::arg("stop"), py::arg("block"), py::arg("inside"),
             "Lanczos steps; -1, or how many vectors have images when nothing was left of a new vector.");
}

}  // namespace hesskern::bindings
