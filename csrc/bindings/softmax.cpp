// The Hessian of softmax cross-entropy with respect to a last layer: dense, and products with it.
#include <algorithm>

#include "bindings/arrays.hpp"
#include "bindings/gil.hpp"
#include "bindings/module.hpp"

namespace hesskern::bindings {

namespace {

// Arrays kept alive while the view lives.
template <class T>
class SoftmaxView {
  public:
    SoftmaxView(const py::handle &features, const py::handle &probabilities, const py::handle &scale, bool bias)
        : f_(checked<T>(features, "features", {-1, -1})),
          p_(checked<T>(probabilities, "probabilities", {f_.shape(0), -1})),
          s_(checked<T>(scale, "scale", {f_.shape(0)})),
          problem{f_.shape(0), f_.shape(1), p_.shape(1), bias, read<T>(f_), read<T>(p_), read<T>(s_)} {
        if (problem.samples < 1 || problem.features < 1 || problem.classes < 1) fail("an array is empty");
    }
    index weights() const { return problem.classes * problem.features; }
    index size() const { return weights() + (problem.bias ? problem.classes : 0); }

  private:
    py::array f_, p_, s_;

  public:
    const SoftmaxProblem<T> problem;
};

template <class T>
void dense(const py::handle &features, const py::handle &probabilities, const py::handle &scale, bool bias,
           const py::handle &out) {
    const SoftmaxView<T> view(features, probabilities, scale, bias);
    py::array matrix = checked<T>(out, "out", {view.size(), view.size()});
    T *target = written<T>(matrix, "out");
    const KernelsFor<T> &k = kernels().of<T>();
    const WithoutGil released;
    const Buffer<T> scratch = make_buffer<T>(k.softmax_dense_scratch(view.problem));
    k.softmax_dense(blas<T>(), view.problem, target, scratch.get());
}

// Columns [start, start + count) of a row-major (size, columns) array as rows, and back.
template <class T>
void to_rows(const T *from, index size, index columns, index start, index count, T *rows) {
    for (index r = 0; r < size; ++r)
        for (index j = 0; j < count; ++j) rows[j * size + r] = from[r * columns + start + j];
}
template <class T>
void from_rows(const T *rows, index size, index columns, index start, index count, T *to) {
    for (index r = 0; r < size; ++r)
        for (index j = 0; j < count; ++j) to[r * columns + start + j] = rows[j * size + r];
}

template <class T>
void product(const py::handle &features, const py::handle &probabilities, const py::handle &scale, bool bias,
             const py::array &v, const py::handle &out) {
    const SoftmaxView<T> view(features, probabilities, scale, bias);
    const bool vector = v.ndim() == 1;
    const index columns = vector || v.ndim() != 2 ? 1 : v.shape(1), size = view.size(), weights = view.weights();
    const py::array from = vector ? checked<T>(v, "v", {size}) : checked<T>(v, "v", {size, columns});
    py::array to = vector ? checked<T>(out, "out", {size}) : checked<T>(out, "out", {size, columns});
    const T *source = read<T>(from);
    T *target = written<T>(to, "out");
    const KernelsFor<T> &k = kernels().of<T>();
    constexpr index most = 16;  // vectors at once
    const index together = std::min(most, columns), classes = bias ? view.problem.classes : 0;
    const WithoutGil released;
    const Buffer<T> scratch = make_buffer<T>(k.softmax_product_scratch(view.problem, together)),
                    rows = make_buffer<T>(2 * together * size);
    T *given = rows.get(), *given_bias = bias ? given + together * weights : nullptr, *found = given + together * size,
      *found_bias = bias ? found + together * weights : nullptr;
    for (index start = 0; start < columns; start += together) {
        const index count = std::min(together, columns - start);
        to_rows(source, weights, columns, start, count, given);
        to_rows(source + weights * columns, classes, columns, start, count, given_bias);
        k.softmax_product(blas<T>(), view.problem, count, given, given_bias, found, found_bias, scratch.get());
        from_rows(found, weights, columns, start, count, target);
        from_rows(found_bias, classes, columns, start, count, target + weights * columns);
    }
}

}  // namespace

void bind_softmax(py::module_ &module) {
    module.def(
        "softmax_dense",
        [](const py::array &features, const py::array &probabilities, const py::array &scale, bool bias,
           const py::array &out) {
            (holds_float32(features) ? dense<float> : dense<double>)(features, probabilities, scale, bias, out);
        },
        py::arg("features"), py::arg("probabilities"), py::arg("scale"), py::arg("bias"), py::arg("out"),
        "Sum over samples of scale (diag(p) - p p^T) (x) f f^T into out (P, P); rows of a bias come after all "
        "weights.");
    module.def(
        "softmax_product",
        [](const py::array &features, const py::array &probabilities, const py::array &scale, bool bias,
           const py::array &v, const py::array &out) {
            (holds_float32(features) ? product<float> : product<double>)(features, probabilities, scale, bias, v, out);
        },
        py::arg("features"), py::arg("probabilities"), py::arg("scale"), py::arg("bias"), py::arg("v"), py::arg("out"),
        "The same matrix times v into out, both (P,) or (P, k), without the matrix.");
}

}  // namespace hesskern::bindings
