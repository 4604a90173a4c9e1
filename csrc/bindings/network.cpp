// Forward, loss and gradient.
#include "bindings/arrays.hpp"
#include "bindings/gil.hpp"
#include "bindings/module.hpp"

namespace hesskern::bindings {

namespace {

template <class T>
void forward(const py::sequence &weights, const py::sequence &biases, const py::handle &x, const py::handle &out) {
    const NetworkView<T> view(weights, biases);
    const Network<T> net = view.network();
    py::array input = checked<T>(x, "X", {-1, view.width().front()});
    py::array output = checked<T>(out, "out", {input.shape(0), view.width().back()});
    const T one = T(1);
    const Data<T> data{input.shape(0), read<T>(input), input.shape(1), &one, 0, nullptr, 0};
    T *target = written<T>(output, "out");
    const KernelsFor<T> &k = kernels().of<T>();
    const WithoutGil released;
    const bool product = k.product_form(net, data.samples, false);
    const Buffer<T> scratch = make_buffer<T>(k.pass_scratch(net, data.samples, product));
    k.predict(blas<T>(), net, data, product, target, scratch.get());
}

template <class T>
double squared_residual(const py::sequence &weights, const py::sequence &biases, const py::handle &x,
                        const py::handle &ones, const py::handle &y, double scale, const py::object &gradient) {
    const NetworkView<T> view(weights, biases);
    const Network<T> net = view.network();
    const DataView<T> data(x, ones, y, view.width().front(), view.width().back());
    std::vector<Layer<T>> target;
    if (!gradient.is_none()) {
        py::array flat = checked<T>(gradient, "gradient", {view.parameters()});
        target = view.over(written<T>(flat, "gradient"));
    }
    const KernelsFor<T> &k = kernels().of<T>();
    const bool with_gradient = !target.empty();
    const WithoutGil released;
    const bool product = k.product_form(net, data.data.samples, with_gradient);
    const Buffer<T> scratch = make_buffer<T>(k.pass_scratch(net, data.data.samples, product));
    return k.pass(blas<T>(), net, data.data, product, T(scale), with_gradient ? target.data() : nullptr, scratch.get());
}

template <class T>
void backward(const py::sequence &weights, const py::sequence &biases, const py::handle &x, const py::handle &delta,
              const py::object &gradient, const py::object &below) {
    const NetworkView<T> view(weights, biases);
    const Network<T> net = view.network();
    const index in = view.width().front(), out = view.width().back();
    py::array input = checked<T>(x, "X", {-1, in});
    py::array top = checked<T>(delta, "delta", {input.shape(0), out});
    std::vector<Layer<T>> target;
    T *samples = nullptr;
    if (!gradient.is_none()) {
        py::array flat = checked<T>(gradient, "gradient", {view.parameters()});
        target = view.over(written<T>(flat, "gradient"));
        std::fill_n(written<T>(flat, "gradient"), view.parameters(), T(0));  // what no sample adds to
    }
    if (!below.is_none()) {
        py::array array = checked<T>(below, "below", {input.shape(0), in});
        samples = written<T>(array, "below");
    }
    const T one = T(1);
    const Data<T> data{input.shape(0), read<T>(input), in, &one, 0, nullptr, 0};
    const KernelsFor<T> &k = kernels().of<T>();
    const T *from = read<T>(top);
    const WithoutGil released;
    const bool product = k.product_form(net, data.samples, true);
    const Buffer<T> scratch = make_buffer<T>(k.pass_scratch(net, data.samples, product));
    k.chain_backward(blas<T>(), net, data, from, product, target.empty() ? nullptr : target.data(), samples,
                     scratch.get());
}

}  // namespace

void bind_network(py::module_ &module) {
    module.def(
        "forward",
        [](const py::sequence &weights, const py::sequence &biases, const py::array &x, const py::array &out) {
            (holds_float32(x) ? forward<float> : forward<double>)(weights, biases, x, out);
        },
        py::arg("weights"), py::arg("biases"), py::arg("X"), py::arg("out"),
        "Predictions (N, o) of X (N, i) into out.");
    module.def(
        "squared_residual",
        [](const py::sequence &weights, const py::sequence &biases, const py::array &x, const py::object &ones,
           const py::array &y, double scale, const py::object &gradient) {
            return (holds_float32(x) ? squared_residual<float> : squared_residual<double>)(weights, biases, x, ones, y,
                                                                                           scale, gradient);
        },
        py::arg("weights"), py::arg("biases"), py::arg("X"), py::arg("ones"), py::arg("Y"), py::arg("scale") = 1.0,
        py::arg("gradient") = py::none(),
        "Squared norm of the residual; with `gradient` (flat) the gradient of scale/2 times it.");
    module.def(
        "backward",
        [](const py::sequence &weights, const py::sequence &biases, const py::array &x, const py::array &delta,
           const py::object &gradient, const py::object &below) {
            (holds_float32(x) ? backward<float> : backward<double>)(weights, biases, x, delta, gradient, below);
        },
        py::arg("weights"), py::arg("biases"), py::arg("X"), py::arg("delta"), py::arg("gradient"), py::arg("below"),
        "From the gradient with respect to the predictions to that of the parameters (flat) and of X; None: not "
        "wanted.");
}

}  // namespace hesskern::bindings
