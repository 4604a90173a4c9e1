// Gradient descent as an object that owns the padded state, so that Python can run it a few steps at a time.
#include <atomic>
#include <limits>
#include <variant>

#include "bindings/arrays.hpp"
#include "bindings/module.hpp"

namespace hesskern::bindings {

namespace {

// Where each layer lies in the one buffer of parameters (and of gradients).
struct Slot {
    index weight, bias, stride, rows;  // bias < 0: none
    bool transposed;
};

template <class T>
class State {
  public:
    State(const py::sequence &weights, const py::sequence &biases, const py::handle &x, const py::handle &ones,
          const py::handle &y, double rate, double scale, double decay, double constant, double rtol)
        : rtol_(rtol) {
        const NetworkView<T> view(weights, biases);
        const DataView<T> given(x, ones, y, view.width().front(), view.width().back());
        const KernelsFor<T> &k = kernels().of<T>();
        width_ = view.width();
        samples_ = given.data.samples;
        const Network<T> plain = view.network();
        bias_ = plain.bias;
        product_ = k.product_form(plain, samples_, true);
        lanes_ = index(kernels().vector_bytes) / index(sizeof(T));
        for (const index w : width_) pad_.push_back((w + lanes_ - 1) / lanes_ * lanes_);
        lay_out(view);
        copy_data(given.data);
        network_ = {plain.depth, width_.data(), pad_.data(), layer_.data(), bias_};
        scratch_ = make_buffer<T>(k.pass_scratch(network_, samples_, product_));
        problem_ = {network_,        data_,    gradient_layer_.data(), parameters_.get(), gradient_.get(), count_,
                    scratch_.get(),  product_, rate,                   scale,             decay,           constant};
        read_from(view);
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

    void write_to(T *flat) const {
        for (std::size_t l = 0; l < slot_.size(); ++l) {
            const index in = width_[l], out = width_[l + 1];
            for (index r = 0; r < out; ++r)
                for (index a = 0; a < in; ++a) flat[r * in + a] = parameters_[std::size_t(entry(l, r, a))];
            flat += in * out;
            if (slot_[l].bias >= 0) flat = std::copy_n(parameters_.get() + slot_[l].bias, out, flat);
        }
    }

    void set(const T *flat, index steps) {
        for (std::size_t l = 0; l < slot_.size(); ++l) {
            const index in = width_[l], out = width_[l + 1];
            for (index r = 0; r < out; ++r)
                for (index a = 0; a < in; ++a) parameters_[std::size_t(entry(l, r, a))] = flat[r * in + a];
            flat += in * out;
            if (slot_[l].bias >= 0) {
                std::copy_n(flat, out, parameters_.get() + slot_[l].bias);
                flat += out;
            }
        }
        steps_ = steps;
    }

    index steps() const { return steps_; }
    index size() const { return size_; }
    bool product() const { return product_; }

  private:
    index entry(std::size_t l, index r, index a) const {
        const Slot &slot = slot_[l];
        return slot.weight + (slot.transposed ? a * slot.stride + r : r * slot.stride + a);
    }

    // The longer dimension of each weight is made the contiguous one. The product form needs the first transposed.
    void lay_out(const NetworkView<T> &view) {
        size_ = view.parameters();
        for (std::size_t l = 0; l < view.layers().size(); ++l) {
            const bool transposed = (l == 0 && product_) || width_[l + 1] > width_[l];
            Slot slot{count_, -1, transposed ? pad_[l + 1] : pad_[l], 0, transposed};
            slot.rows = transposed ? width_[l] : width_[l + 1];
            count_ += slot.rows * slot.stride;
            const bool has_bias = view.layers()[l].bias != nullptr;
            if (transposed ? bias_ : has_bias) {
                if (has_bias) slot.bias = count_;
                count_ += pad_[l + 1];
            }
            slot_.push_back(slot);
        }
        count_ = (count_ + 15) / 16 * 16;
        parameters_ = make_buffer<T>(count_);
        gradient_ = make_buffer<T>(count_);
        const auto over = [&](T *base) {
            std::vector<Layer<T>> layers;
            for (const Slot &slot : slot_)
                layers.push_back({base + slot.weight, slot.bias >= 0 ? base + slot.bias : nullptr, slot.stride,
                                  slot.transposed});
            return layers;
        };
        layer_ = over(parameters_.get());
        gradient_layer_ = over(gradient_.get());
    }

    void read_from(const NetworkView<T> &view) {
        for (std::size_t l = 0; l < slot_.size(); ++l) {
            const Layer<T> &source = view.layers()[l];
            for (index r = 0; r < width_[l + 1]; ++r)
                for (index a = 0; a < width_[l]; ++a)
                    parameters_[std::size_t(entry(l, r, a))] = source.weight[r * width_[l] + a];
            if (source.bias) std::copy_n(source.bias, width_[l + 1], parameters_.get() + slot_[l].bias);
        }
    }

    void copy_data(const Data<T> &given) {
        const index in = width_.front(), out = width_.back(), pad_in = pad_.front(), pad_out = pad_.back();
        x_ = make_buffer<T>(samples_ * pad_in);
        y_ = make_buffer<T>(samples_ * pad_out);
        ones_ = make_buffer<T>(samples_);
        for (index n = 0; n < samples_; ++n) {
            std::copy_n(given.x + n * in, in, x_.get() + n * pad_in);
            std::copy_n(given.y + n * out, out, y_.get() + n * pad_out);
            ones_[std::size_t(n)] = given.ones[n * given.ones_step];
        }
        data_ = {samples_, x_.get(), pad_in, ones_.get(), 1, y_.get(), pad_out};
    }

    std::vector<index> width_, pad_;
    std::vector<Slot> slot_;
    std::vector<Layer<T>> layer_, gradient_layer_;
    Buffer<T> parameters_, gradient_, scratch_, x_, y_, ones_;
    Network<T> network_{};
    Data<T> data_{};
    DescentProblem<T> problem_{};
    index samples_ = 0, count_ = 0, size_ = 0, lanes_ = 1, steps_ = 0;
    bool bias_ = false, product_ = false;
    double rtol_, target_ = -1.0;
    std::atomic<bool> running_ = false;
};

class Descent {
  public:
    Descent(const py::sequence &weights, const py::sequence &biases, const py::array &x, const py::object &ones,
            const py::array &y, double rate, double scale, double decay, double constant, double rtol) {
        if (holds_float32(x))
            f32_ = std::make_unique<State<float>>(weights, biases, x, ones, y, rate, scale, decay, constant, rtol);
        else
            f64_ = std::make_unique<State<double>>(weights, biases, x, ones, y, rate, scale, decay, constant, rtol);
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
