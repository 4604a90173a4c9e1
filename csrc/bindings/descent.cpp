// Gradient descent as an object that owns the padded state, so that Python can run it a few steps at a time.
#include <atomic>

#include "bindings/layout.hpp"
#include "bindings/module.hpp"

namespace hesskern::bindings {

namespace {

template <class T>
class State {
  public:
    State(const NetworkView<T> &view, const DataView<T> &given, double rate, double scale, double decay,
          double constant, double rtol)
        : layout_(view, kernels().of<T>().product_form(view.network(), given.data.samples, true)),
          samples_(layout_.copy(given.data)),
          parameters_(make_buffer<T>(layout_.count())),
          gradient_(make_buffer<T>(layout_.count())),
          layer_(layout_.over(parameters_.get())),
          gradient_layer_(layout_.over(gradient_.get())),
          rtol_(rtol) {
        for (std::size_t l = 0; l < layer_.size(); ++l) {
            const Layer<T> &from = view.layers()[l], &to = layer_[l];
            const index in = layout_.width()[l], out = layout_.width()[l + 1];
            for (index r = 0; r < out; ++r)
                for (index a = 0; a < in; ++a)
                    to.weight[to.transposed ? a * to.stride + r : r * to.stride + a] = from.weight[r * in + a];
            if (from.bias) std::copy_n(from.bias, out, to.bias);
        }
        const KernelsFor<T> &k = kernels().of<T>();
        const Network<T> network = layout_.network(layer_);
        scratch_ = make_buffer<T>(k.pass_scratch(network, samples_.data.samples, layout_.product()));
        problem_ = {network,
                    samples_.data,
                    gradient_layer_.data(),
                    parameters_.get(),
                    gradient_.get(),
                    layout_.count(),
                    scratch_.get(),
                    layout_.product(),
                    rate,
                    scale,
                    decay,
                    constant};
    }

    // One run at a time: a second thread would write into the same state.
    DescentStop run(double *losses, index steps) {
        if (running_.exchange(true)) throw std::runtime_error("this descent is already running in another thread");
        DescentStop stop = DescentStop::steps;
        const KernelsFor<T> &k = kernels().of<T>();
        index taken = 0;
        if (steps_ == 0 && steps > 0 && rtol_ >= 0) {
            // The first loss sets the target; it has to be seen before the loop can compare with it.
            taken = k.descend(blas<T>(), problem_, 1, -1.0, losses, &stop);
            if (stop != DescentStop::diverged) {
                target_ = rtol_ * losses[0];
                stop = losses[0] <= target_ ? DescentStop::converged : DescentStop::steps;
            }
        }
        if (stop == DescentStop::steps && taken < steps)
            taken += k.descend(blas<T>(), problem_, steps - taken, target_, losses + taken, &stop);
        steps_ += taken;
        running_ = false;
        return stop;
    }

    void write_to(T *flat) const { layout_.unpack(parameters_.get(), flat, 1); }
    void set(const T *flat, index steps) {
        layout_.pack(flat, 1, parameters_.get());
        steps_ = steps;
    }
    index steps() const { return steps_; }
    index size() const { return layout_.size(); }
    bool product() const { return layout_.product(); }

  private:
    Layout<T> layout_;
    typename Layout<T>::Samples samples_;
    Buffer<T> parameters_, gradient_, scratch_;
    std::vector<Layer<T>> layer_, gradient_layer_;
    DescentProblem<T> problem_{};
    index steps_ = 0;
    double rtol_, target_ = -1.0;
    std::atomic<bool> running_ = false;
};

template <class T>
std::unique_ptr<State<T>> make_state(const py::sequence &weights, const py::sequence &biases, const py::array &x,
                                     const py::object &ones, const py::array &y, double rate, double scale,
                                     double decay, double constant, double rtol) {
    const NetworkView<T> view(weights, biases);
    const DataView<T> data(x, ones, y, view.width().front(), view.width().back());
    return std::make_unique<State<T>>(view, data, rate, scale, decay, constant, rtol);
}

class Descent {
  public:
    Descent(const py::sequence &weights, const py::sequence &biases, const py::array &x, const py::object &ones,
            const py::array &y, double rate, double scale, double decay, double constant, double rtol) {
        if (holds_float32(x))
            f32_ = make_state<float>(weights, biases, x, ones, y, rate, scale, decay, constant, rtol);
        else
            f64_ = make_state<double>(weights, biases, x, ones, y, rate, scale, decay, constant, rtol);
    }

    std::string run(const py::array &losses) {
        py::array target = checked<double>(losses, "losses", {-1});
        double *values = written<double>(target, "losses");
        const index steps = target.shape(0);
        DescentStop stop;
        {
            py::gil_scoped_release release;
            stop = f32_ ? f32_->run(values, steps) : f64_->run(values, steps);
        }
        return stop == DescentStop::steps ? "running" : stop == DescentStop::converged ? "converged" : "diverged";
    }

    void parameters(const py::array &out) const {
        if (f32_)
            copy_out(*f32_, out);
        else
            copy_out(*f64_, out);
    }

    void set_parameters(const py::array &flat, index steps) {
        if (f32_)
            f32_->set(read<float>(checked<float>(flat, "flat", {f32_->size()})), steps);
        else
            f64_->set(read<double>(checked<double>(flat, "flat", {f64_->size()})), steps);
    }

    index steps() const { return f32_ ? f32_->steps() : f64_->steps(); }
    bool product() const { return f32_ ? f32_->product() : f64_->product(); }

  private:
    template <class T>
    static void copy_out(const State<T> &state, const py::array &out) {
        py::array target = checked<T>(out, "out", {state.size()});
        state.write_to(written<T>(target, "out"));
    }

    std::unique_ptr<State<float>> f32_;
    std::unique_ptr<State<double>> f64_;
};

}  // namespace

void bind_descent(py::module_ &module) {
    py::class_<Descent>(module, "Descent", "Full-batch gradient descent, resumable between calls of run().")
        .def(py::init<const py::sequence &, const py::sequence &, const py::array &, const py::object &,
                      const py::array &, double, double, double, double, double>(),
             py::arg("weights"), py::arg("biases"), py::arg("X"), py::arg("ones"), py::arg("Y"), py::arg("rate"),
             py::arg("scale"), py::arg("decay"), py::arg("constant"), py::arg("rtol"))
        .def("run", &Descent::run, py::arg("losses"),
             "Take up to len(losses) steps, writing the loss each one started from; "
             "'running', 'converged' or 'diverged'.")
        .def("parameters", &Descent::parameters, py::arg("out"), "The current parameters, flat, into out.")
        .def("set_parameters", &Descent::set_parameters, py::arg("flat"), py::arg("steps"),
             "Go back to these parameters and this number of steps.")
        .def_property_readonly("steps", &Descent::steps, "Steps taken.")
        .def_property_readonly("product_form", &Descent::product,
                               "Whether the product of the weights, not the samples, goes through the layers.");
}

}  // namespace hesskern::bindings
