// The memory of one descent: parameters, velocity, data, and the state of what it records.
#pragma once

#include <atomic>
#include <optional>

#include "bindings/hessian_memory.hpp"

namespace hesskern::bindings {

// What does not depend on the type of the numbers.
struct DescentOptions {
    double scale, constant, rtol;
    UpdateRule rule;
    index every;
    bool loss_recorded, sharpness;
    std::vector<index> leak_layers;  // counted from 1
    index largest_batch;             // 0: all samples each step
    bool packed;                     // whether it may be trained in the lanes of vectors together with others
};

// What has to be kept, besides vectors of parameters, for a run to go on where it stopped: the numbers of `State` in
// hesskern/backends/protocol.py.
struct DescentNumbers {
    index steps;
    double target;
    std::vector<double> growth, growth_rate;
    index growth_step, search_step;
    double search_rest, search_drift;
};

// And the vectors, flat; those of `search` one behind the other.
template <class T>
struct DescentVectors {
    const T *parameters, *previous, *velocity, *search;
    index search_count;
};

template <class T>
class DescentMemory {
  public:
    // `samples` are those that minibatches are gathered from; they live as long as this.
    DescentMemory(const NetworkView<T> &view, const Data<T> &data, const Data<T> &samples,
                  const DescentOptions &options)
        : options_(options),
          layout_(view, kernels().of<T>().product_form(
                            view.network(), options.largest_batch ? options.largest_batch : data.samples, true)),
          data_(layout_.copy(data)) {
        const KernelsFor<T> &k = kernels().of<T>();
        const index count = layout_.count();
        for (int side = 0; side < 2; ++side) {
            parameters_[side] = make_buffer<T>(count);
            layer_[side] = layout_.over(parameters_[side].get());
            problem_.network[side] = layout_.network(layer_[side]);
            problem_.parameters[side] = parameters_[side].get();
        }
        for (const Buffer<T> &buffer : parameters_) layout_.pack(view.flat().data(), 1, buffer.get());
        gradient_ = make_buffer<T>(count);
        gradient_layer_ = layout_.over(gradient_.get());
        problem_.gradient = gradient_layer_.data();
        problem_.gradient_values = gradient_.get();
        if (options.rule.momentum != 0) velocity_ = make_buffer<T>(count);
        problem_.velocity = velocity_.get();
        problem_.count = count;
        problem_.product = layout_.product();
        problem_.data = data_.data;
        problem_.scale = options.scale;
        problem_.constant = options.constant;
        problem_.rule = options.rule;
        problem_.rtol = options.rtol;
        problem_.every = options.every;
        problem_.loss_recorded = options.loss_recorded;
        index scratch = k.pass_scratch(problem_.network[0], data_.data.samples, layout_.product());
        if (options.largest_batch) {
            scratch += k.pass_scratch(problem_.network[0], options.largest_batch, layout_.product());
            batch_x_ = make_buffer<T>(options.largest_batch * layout_.pad().front());
            batch_y_ = make_buffer<T>(options.largest_batch * layout_.pad().back());
            problem_.batches = {samples.x, samples.y, batch_x_.get(), batch_y_.get(), options.largest_batch, &one_};
        }
        scratch_ = make_buffer<T>(scratch);
        problem_.scratch = scratch_.get();
        if (options.sharpness || !options.leak_layers.empty()) watch();
        if constexpr (sizeof(T) == sizeof(double))
            if (options.packed) packed_size_ = kernels().packed_memory(problem_);
    }
    DescentMemory(const DescentMemory &) = delete;
    DescentMemory &operator=(const DescentMemory &) = delete;

    // Writes the losses of up to `job.count` steps; `taken` counts those that were finite.
    DescentStop run(const DescentJob &job, index *taken) {
        DescentStop stop = DescentStop::steps;
        *taken = kernels().of<T>().descend(blas<T>(), problem_, state_, job, &stop);
        return stop;
    }

    // For several at once; see kernels/packed_descent.hpp.
    PackedLane lane(const DescentJob &job) { return {&problem_, &state_, &job, DescentStop::steps, 0}; }
    index packed_size() const { return packed_size_; }
    bool alike(const DescentMemory &other) const {
        return packed_size_ == other.packed_size_ && layout_.alike(other.layout_) &&
               data_.data.samples == other.data_.data.samples && bool(data_.diagonal) == bool(other.data_.diagonal) &&
               state_.steps == other.state_.steps && options_.every == other.options_.every &&
               options_.scale == other.options_.scale && options_.rule.momentum == other.options_.rule.momentum &&
               options_.rule.decay == other.options_.rule.decay &&
               options_.rule.nesterov == other.options_.rule.nesterov;
    }

    // One run at a time: a second thread would write into the same state.
    bool enter() { return !running_.exchange(true); }
    void leave() { running_ = false; }

    void read_parameters(T *flat) const { layout_.unpack(parameters_[state_.steps & 1].get(), flat, 1); }
    // Those before the last update.
    void read_previous(T *flat) const { layout_.unpack(parameters_[1 - (state_.steps & 1)].get(), flat, 1); }
    void read_velocity(T *flat) const { layout_.unpack(velocity_.get(), flat, 1); }
    void read_search(T *flat) const {
        if (search_size() == 0) return;
        const EigenSearch<T> &search = curvature_.search;
        for (index k = 0; k < search.kept; ++k)
            layout_.unpack(search.vectors + k * layout_.count(), flat + k * layout_.size(), 1);
        layout_.unpack(search.probe + layout_.count(), flat + search.kept * layout_.size(), 1);
    }
    DescentNumbers numbers() const {
        const EigenSearch<T> &search = curvature_.search;
        return {state_.steps,     state_.target, growth_,     rate_, curvature_.leak.last_step,
                search.looked_at, search.rest,   search.drift};
    }

    // `vectors` holds what the functions above read.
    void restore(const DescentNumbers &numbers, const DescentVectors<T> &vectors) {
        state_ = {numbers.steps, numbers.target};
        layout_.pack(vectors.parameters, 1, parameters_[state_.steps & 1].get());
        layout_.pack(vectors.previous, 1, parameters_[1 - (state_.steps & 1)].get());
        if (velocity_) layout_.pack(vectors.velocity, 1, velocity_.get());
        growth_ = numbers.growth;
        rate_ = numbers.growth_rate;
        curvature_.leak.last_step = numbers.growth_step;
        curvature_.leak.growth = growth_.data();
        curvature_.leak.rate = rate_.data();
        if (!vectors_) return;
        EigenSearch<T> &found = curvature_.search;
        found.looked_at = numbers.search_step;
        found.rest = numbers.search_rest;
        found.drift = numbers.search_drift;
        found.probe_made = false;
        found.kept = std::max(index(0), vectors.search_count - 1);
        for (index k = 0; k < found.kept; ++k)
            layout_.pack(vectors.search + k * layout_.size(), 1, found.vectors + k * layout_.count());
        if (vectors.search_count > 0)
            layout_.pack(vectors.search + found.kept * layout_.size(), 1, found.probe + layout_.count());
    }
    // To the weights before the last update.
    void step_back() { state_.steps -= state_.steps > 0; }

    index steps() const { return state_.steps; }
    index size() const { return layout_.size(); }
    bool has_velocity() const { return bool(velocity_); }
    std::vector<double> leak_growth() const {
        std::vector<double> total = growth_;
        for (std::size_t k = 0; k < total.size(); ++k)
            if (curvature_.leak.last_step >= 0)
                total[k] += rate_[k] * double(std::max(index(0), state_.steps - curvature_.leak.last_step));
        return total;
    }
    // Vectors that are kept from one record to the next, the probe's image among them.
    index search_size() const { return vectors_ && curvature_.search.kept > 0 ? curvature_.search.kept + 1 : 0; }
    index search_room() const { return vectors_ ? search_capacity : 0; }
    bool product() const { return layout_.product(); }
    const DescentOptions &options() const { return options_; }

  private:
    void watch() {
        hessian_.emplace(layout_, problem_.network[0], data_.data, std::max(data_.data.samples, options_.largest_batch),
                         options_.scale, true, true);
        curvature_.hessian = hessian_->problem;
        curvature_.activation = hessian_->activation();
        curvature_.delta = hessian_->delta();
        curvature_.gram = hessian_->gram();
        const index widest = *std::max_element(layout_.pad().begin(), layout_.pad().end());
        coupling_ = make_buffer<T>((widest + 2) * (widest + 2) + 2 * widest);
        curvature_.coupling = coupling_.get();
        const std::size_t watched = options_.leak_layers.size();
        growth_.resize(watched);
        rate_.resize(watched);
        curvature_.leak = {options_.leak_layers.data(), index(watched), growth_.data(), rate_.data(), -1};
        if (options_.sharpness) {
            constexpr index capacity = search_capacity;
            vectors_ = make_buffer<T>((2 * capacity + 2) * layout_.count());
            small_ = make_buffer<double>(3 * capacity * capacity + 3 * capacity);
            from_ = layer_[0];
            to_ = layer_[0];
            T *const images = vectors_.get() + capacity * layout_.count();
            T *const probe = images + capacity * layout_.count();
            curvature_.search = {
                vectors_.get(), images, 0, small_.get(), from_.data(), to_.data(), probe, false, -1, 0, 0};
        }
        problem_.curvature = &curvature_;
    }

    const DescentOptions options_;
    Layout<T> layout_;
    typename Layout<T>::Samples data_;
    Buffer<T> parameters_[2], gradient_, velocity_, scratch_, batch_x_, batch_y_, coupling_, vectors_;
    Buffer<double> small_;
    std::vector<Layer<T>> layer_[2], gradient_layer_, from_, to_;
    std::optional<HessianMemory<T>> hessian_;
    std::vector<double> growth_, rate_;
    Curvature<T> curvature_{};
    DescentProblem<T> problem_{};
    DescentState state_{0, -1.0};
    const T one_ = T(1);
    index packed_size_ = 0;
    std::atomic<bool> running_ = false;
};

}  // namespace hesskern::bindings
