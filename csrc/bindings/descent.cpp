// Descents as objects that own their padded state, so that Python can run them a few steps at a time, many at once.
#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/descent_state.hpp"
#include "bindings/gil.hpp"
#include "bindings/module.hpp"
#include "bindings/threads.hpp"

namespace hesskern::bindings {

namespace {

// A job's arrays, checked, and kept alive while it runs.
class Job {
  public:
    Job(const py::sequence &fields, index samples, index largest_batch) {
        if (py::len(fields) != 8) fail("a job must have eight fields");
        const py::array rates = keep(checked<double>(fields[0], "rates", {-1}));
        const index count = rates.shape(0);
        const py::array scales = keep(checked<double>(fields[1], "scales", {count}));
        job.count = count;
        job.rates = read<double>(rates);
        job.scales = read<double>(scales);
        if (largest_batch) {
            const py::array order = keep(checked<index>(fields[2], "order", {-1}));
            const py::array ends = keep(checked<index>(fields[3], "ends", {count}));
            job.order = read<index>(order);
            job.ends = read<index>(ends);
            index before = 0;
            for (index k = 0; k < count; ++k) {
                if (job.ends[k] <= before || job.ends[k] - before > largest_batch)
                    fail("ends holds a wrong batch size");
                before = job.ends[k];
            }
            if (before > order.shape(0)) fail("order holds fewer samples than ends asks for");
            if (std::any_of(job.order, job.order + before, [=](index k) { return k < 0 || k >= samples; }))
                fail("order holds a number outside 0, ..., N - 1");
        }
        if (fields[4].is_none()) fail("losses must be an array");
        job.losses = result(fields[4], "losses");
        job.batch_losses = result(fields[5], "batch_losses");
        job.gradient_norms = result(fields[6], "gradient_norms");
        job.sharpness = result(fields[7], "sharpness");
    }

    DescentJob job{};

  private:
    py::array keep(py::array array) {
        kept_.push_back(array);
        return array;
    }
    double *result(const py::object &object, const char *name) {
        if (object.is_none()) return nullptr;
        py::array array = keep(checked<double>(object, name, {job.count}));
        return written<double>(array, name);
    }

    std::vector<py::array> kept_;
};

// A number of a saved state.
template <class N>
N number(const py::dict &state, const char *name) {
    try {
        return py::cast<N>(py::object(state[name]));
    } catch (const py::cast_error &) {
        fail(std::string(name) + " must be a number");
    }
}

// The network a descent starts from, and its data.
struct DescentArrays {
    const py::sequence &weights, &biases;
    const py::array &x;
    const py::object &ones;
    const py::array &y;
    const py::object &samples_x, &samples_y;
};

template <class T>
class TypedDescent {
  public:
    TypedDescent(const DescentArrays &arrays, const DescentOptions &options)
        : view_(arrays.weights, arrays.biases),
          data_(arrays.x, arrays.ones, arrays.y, view_.width().front(), view_.width().back()) {
        if (options.largest_batch > 0)
            samples_.emplace(arrays.samples_x, py::none(), arrays.samples_y, view_.width().front(),
                             view_.width().back());
        for (const index layer : options.leak_layers)
            if (layer < 1 || layer >= index(view_.layers().size()))
                fail("leak_layers holds a number that is not a hidden layer");
        memory.emplace(view_, data_.data, samples_ ? samples_->data : data_.data, options);
    }

    index samples() const { return samples_ ? samples_->data.samples : 0; }

    py::dict save() const {
        const DescentNumbers numbers = memory->numbers();
        const index size = memory->size();
        py::array_t<T> parameters(size), previous(size), velocity(memory->has_velocity() ? size : 0);
        memory->read_parameters(parameters.mutable_data());
        memory->read_previous(previous.mutable_data());
        if (memory->has_velocity()) memory->read_velocity(velocity.mutable_data());
        py::array_t<T> search({memory->search_size(), size});
        memory->read_search(search.mutable_data());
        py::dict state;
        state["steps"] = numbers.steps;
        state["target"] = numbers.target;
        state["parameters"] = parameters;
        state["previous"] = previous;
        state["velocity"] = velocity;
        state["growth"] = values(numbers.growth);
        state["growth_rate"] = values(numbers.growth_rate);
        state["growth_step"] = numbers.growth_step;
        state["search"] = search;
        state["search_step"] = numbers.search_step;
        state["search_rest"] = numbers.search_rest;
        state["search_drift"] = numbers.search_drift;
        return state;
    }

    void restore(const py::dict &state) {
        const index size = memory->size(), watched = index(memory->options().leak_layers.size());
        const py::array growth = checked<double>(state["growth"], "growth", {watched});
        const py::array rate = checked<double>(state["growth_rate"], "growth_rate", {watched});
        const py::array parameters = checked<T>(state["parameters"], "parameters", {size});
        const py::array previous = checked<T>(state["previous"], "previous", {size});
        const py::array velocity = checked<T>(state["velocity"], "velocity", {memory->has_velocity() ? size : 0});
        const py::array search = checked<T>(state["search"], "search", {-1, size});
        if (search.shape(0) > memory->search_room()) fail("search holds too many vectors");
        DescentNumbers numbers{};
        numbers.steps = number<index>(state, "steps");
        if (numbers.steps < 0) fail("steps is negative");
        numbers.target = number<double>(state, "target");
        numbers.growth.assign(read<double>(growth), read<double>(growth) + watched);
        numbers.growth_rate.assign(read<double>(rate), read<double>(rate) + watched);
        numbers.growth_step = number<index>(state, "growth_step");
        numbers.search_step = number<index>(state, "search_step");
        numbers.search_rest = number<double>(state, "search_rest");
        numbers.search_drift = number<double>(state, "search_drift");
        memory->restore(numbers,
                        {read<T>(parameters), read<T>(previous), read<T>(velocity), read<T>(search), search.shape(0)});
    }

    void parameters(const py::array &out) const {
        py::array target = checked<T>(out, "out", {memory->size()});
        memory->read_parameters(written<T>(target, "out"));
    }

    std::optional<DescentMemory<T>> memory;

  private:
    static py::array_t<double> values(const std::vector<double> &from) {
        return py::array_t<double>(py::ssize_t(from.size()), from.data());
    }

    NetworkView<T> view_;
    DataView<T> data_;
    std::optional<DataView<T>> samples_;
};

class Descent {
  public:
    Descent(const DescentArrays &arrays, const DescentOptions &options) {
        if (options.every < 1) fail("every must be at least 1");
        if (options.largest_batch < 0) fail("largest_batch must not be negative");
        if (!holds_float32(arrays.x)) {
            f64.emplace(arrays, options);
            return;
        }
        if (options.sharpness) fail("sharpness is computed in float64 only");
        f32.emplace(arrays, options);
    }

    template <class Visit>
    auto visit(Visit &&with) {
        return f32 ? with(*f32) : with(*f64);
    }

    std::optional<TypedDescent<float>> f32;
    std::optional<TypedDescent<double>> f64;
};

const char *name_of(DescentStop stop) {
    return stop == DescentStop::steps ? "running" : stop == DescentStop::converged ? "converged" : "diverged";
}

bool packs(const Descent &descent) { return descent.f64 && descent.f64->memory->packed_size() > 0; }

// The beginnings of groups that run together: networks of one shape, one for each lane of a vector, or a single one.
// The last entry is the number of networks.
std::vector<std::size_t> grouped(const std::vector<Descent *> &descents, const std::vector<std::unique_ptr<Job>> &job) {
    std::vector<std::size_t> start;
    for (std::size_t k = 0; k < descents.size(); ++k) {
        const bool joins = !start.empty() && packs(*descents[k]) && packs(*descents[start.back()]) &&
                           index(k - start.back()) < kernels().lanes &&
                           job[k]->job.count == job[start.back()]->job.count &&
                           descents[k]->f64->memory->alike(*descents[start.back()]->f64->memory);
        if (!joins) start.push_back(k);
    }
    start.push_back(descents.size());
    return start;
}

// Descents that nobody else may run meanwhile.
class Entered {
  public:
    explicit Entered(const std::vector<Descent *> &descents) : descents_(descents) {
        for (Descent *descent : descents) {
            if (!descent->visit([](auto &typed) { return typed.memory->enter(); })) {
                leave();
                throw std::runtime_error("a descent is given twice, or is already running in another thread");
            }
            ++count_;
        }
    }
    ~Entered() { leave(); }
    Entered(const Entered &) = delete;
    Entered &operator=(const Entered &) = delete;

  private:
    void leave() {
        for (; count_ > 0; --count_) descents_[count_ - 1]->visit([](auto &typed) { typed.memory->leave(); });
    }

    const std::vector<Descent *> &descents_;
    std::size_t count_ = 0;
};

// Runs each job with its descent, `threads` at a time. The results do not depend on which thread runs which.
std::vector<std::pair<std::string, index>> advance(const std::vector<Descent *> &descents, const py::sequence &jobs,
                                                   index threads) {
    if (index(py::len(jobs)) != index(descents.size())) fail("jobs and descents must have the same length");
    if (std::any_of(descents.begin(), descents.end(), [](const Descent *descent) { return !descent; }))
        fail("descents holds None");
    std::vector<std::unique_ptr<Job>> job;
    for (std::size_t k = 0; k < descents.size(); ++k)
        job.push_back(descents[k]->visit([&](auto &typed) {
            return std::make_unique<Job>(jobs[k], typed.samples(), typed.memory->options().largest_batch);
        }));
    const Entered entered(descents);
    std::vector<DescentStop> stop(descents.size());
    std::vector<index> taken(descents.size());
    const std::vector<std::size_t> start = grouped(descents, job);
    const index groups = index(start.size()) - 1, workers = std::clamp<index>(threads, 1, std::max<index>(groups, 1));
    index packed_size = 0;
    for (const Descent *descent : descents)
        if (packs(*descent)) packed_size = std::max(packed_size, descent->f64->memory->packed_size());
    {
        const WithoutGil released;
        // Memory is taken here, where running out of it is an exception like any other.
        packed_size = (packed_size + 15) / 16 * 16;
        const Buffer<double> memory = make_buffer<double>(packed_size * workers);
        std::vector<PackedLane> lanes(std::size_t(kernels().lanes * workers));
        run_tasks(groups, workers, [&](index group, index worker) {
            const std::size_t first = start[std::size_t(group)], last = start[std::size_t(group) + 1];
            if (!packs(*descents[first])) {
                for (std::size_t k = first; k < last; ++k)
                    stop[k] = descents[k]->visit(
                        [&](auto &typed) { return typed.memory->run(job[k]->job, &taken[k]); });
                return;
            }
            PackedLane *const lane = lanes.data() + worker * kernels().lanes;
            for (std::size_t k = first; k < last; ++k) lane[k - first] = descents[k]->f64->memory->lane(job[k]->job);
            double *const mine = memory.get() + worker * packed_size;
            std::fill_n(mine, packed_size, 0.0);
            kernels().descend_packed(lane, index(last - first), mine);
            for (std::size_t k = first; k < last; ++k) {
                stop[k] = lane[k - first].stop;
                taken[k] = lane[k - first].taken;
            }
        });
    }
    std::vector<std::pair<std::string, index>> results;
    for (std::size_t k = 0; k < descents.size(); ++k) results.emplace_back(name_of(stop[k]), taken[k]);
    return results;
}

}  // namespace

void bind_descent(py::module_ &module) {
    py::class_<Descent>(module, "Descent", "(Stochastic) gradient descent that `advance` runs some steps at a time.")
        .def(py::init([](const py::sequence &weights, const py::sequence &biases, const py::array &x,
                         const py::object &ones, const py::array &y, const py::object &samples_x,
                         const py::object &samples_y, index largest_batch, double scale, double constant, double rtol,
                         double momentum, bool nesterov, double decay, index every, bool loss_recorded, bool sharpness,
                         const std::vector<index> &leak_layers, bool packed) {
                 const DescentArrays arrays{weights, biases, x, ones, y, samples_x, samples_y};
                 return std::make_unique<Descent>(
                     arrays, DescentOptions{.scale = scale,
                                            .constant = constant,
                                            .rtol = rtol,
                                            .rule = {.momentum = momentum, .decay = decay, .nesterov = nesterov},
                                            .every = every,
                                            .loss_recorded = loss_recorded,
                                            .sharpness = sharpness,
                                            .leak_layers = leak_layers,
                                            .largest_batch = largest_batch,
                                            .packed = packed});
             }),
             py::kw_only(), py::arg("weights"), py::arg("biases"), py::arg("X"), py::arg("ones"), py::arg("Y"),
             py::arg("samples_X"), py::arg("samples_Y"), py::arg("largest_batch"), py::arg("scale"),
             py::arg("constant"), py::arg("rtol"), py::arg("momentum"), py::arg("nesterov"), py::arg("decay"),
             py::arg("every"), py::arg("loss_recorded"), py::arg("sharpness"), py::arg("leak_layers"),
             py::arg("packed"))
        .def(
            "parameters", [](Descent &self, const py::array &out) { self.visit([&](auto &d) { d.parameters(out); }); },
            py::arg("out"), "The current parameters, flat, into out.")
        .def(
            "step_back", [](Descent &self) { self.visit([](auto &d) { d.memory->step_back(); }); },
            "Return to the parameters before the last update.")
        .def(
            "save", [](Descent &self) { return self.visit([](auto &d) { return d.save(); }); },
            "Everything needed to continue from here, as arrays.")
        .def(
            "restore", [](Descent &self, const py::dict &state) { self.visit([&](auto &d) { d.restore(state); }); },
            py::arg("state"), "Continue from the result of save().")
        .def_property_readonly(
            "steps", [](Descent &self) { return self.visit([](auto &d) { return d.memory->steps(); }); },
            "Steps taken.")
        .def_property_readonly(
            "growth", [](Descent &self) { return self.visit([](auto &d) { return d.memory->leak_growth(); }); },
            "Log of the growth of rounding errors across each of leak_layers, up to the present step.")
        .def_property_readonly(
            "product_form", [](Descent &self) { return self.visit([](auto &d) { return d.memory->product(); }); },
            "Whether the product of the weights, not the samples, goes through the layers.");
    module.def("advance", &advance, py::arg("descents"), py::arg("jobs"), py::arg("threads"),
               "Run each job (rates, scales, order, ends, losses, batch_losses, gradient_norms, sharpness) with its "
               "descent; a list of ('running', 'converged' or 'diverged', steps whose losses were finite).");
}

}  // namespace hesskern::bindings
