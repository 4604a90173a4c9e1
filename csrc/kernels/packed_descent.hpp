// Full-batch descent of several small networks of one shape at once, one in each lane of a vector.
//
// Small matrices fill vectors badly: a row of five is padded to eight, and most instructions are loads. With one
// network a lane nothing is padded, and no product needs a transposed copy. What a network does in its lane does not
// depend on its neighbours, so neither does its result. A network that has stopped is written out, and its lane
// ignored.
#pragma once

#include "kernels/descent.hpp"
#include "kernels/pack.hpp"

namespace hesskern::HESSKERN_ISA {

inline constexpr index packed_depth = 8;
inline constexpr index packed_bytes = 768 << 10;  // more would not stay in the second cache

// The networks of all lanes, laid out without padding.
struct PackedMemory {
    Layer<Pack> layer[2][packed_depth], gradient_layer[packed_depth];
    Network<Pack> network[2];
    Pack *parameters[2], *gradient, *velocity;
    index count;
    Pack *x, *y, *ones, *diagonal;
    Data<Pack> data;
    Scratch<Pack> rest;
};

// Layers over a buffer, each as the member's is stored; returns its size.
inline index packed_layers(const Network<double> &net, Pack *buffer, Layer<Pack> *layers) {
    index count = 0;
    for (index l = 0; l < net.depth; ++l) {
        const Layer<double> &from = net.layer[l];
        const index in = net.width[l], out = net.width[l + 1];
        const bool row = from.transposed ? net.bias : from.bias != nullptr;
        layers[l] = {buffer ? buffer + count : nullptr, buffer && from.bias ? buffer + count + in * out : nullptr,
                     from.transposed ? out : in, from.transposed};
        count += in * out + (row ? out : 0);
    }
    return count;
}

// Carves everything from `memory` and returns how many packs that takes; with no memory it only counts.
inline index packed_layout(const DescentProblem<double> &problem, Pack *memory, PackedMemory &packed) {
    const Network<double> &net = problem.network[0];
    const index samples = problem.data.samples, in = net.width[0], out = net.width[net.depth];
    Scratch<Pack> scratch{memory};
    packed.count = packed_layers(net, nullptr, packed.gradient_layer);
    for (Pack *&buffer : packed.parameters) buffer = scratch.take(packed.count);
    packed.gradient = scratch.take(packed.count);
    packed.velocity = problem.velocity ? scratch.take(packed.count) : nullptr;
    packed.x = scratch.take(samples * in);
    packed.y = scratch.take(samples * out);
    packed.ones = scratch.take(samples);
    packed.diagonal = problem.data.diagonal ? scratch.take(samples) : nullptr;
    packed.data = {samples, packed.x, in, packed.ones, 1, packed.y, out, packed.diagonal};
    for (int side = 0; side < 2; ++side) {
        packed_layers(net, packed.parameters[side], packed.layer[side]);
        packed.network[side] = {net.depth, net.width, net.width, packed.layer[side], net.bias};
    }
    packed_layers(net, packed.gradient, packed.gradient_layer);
    packed.rest = scratch;
    pass_memory(packed.network[0], samples, problem.product, scratch);
    return scratch.used;
}

// How many doubles `descend_packed` needs; 0 if it cannot run this problem.
inline index packed_memory(const DescentProblem<double> &problem) {
    if (problem.network[0].depth > packed_depth || problem.batches.largest > 0) return 0;
    PackedMemory packed;
    const index bytes = packed_layout(problem, nullptr, packed) * index(sizeof(Pack));
    return bytes <= packed_bytes ? bytes / index(sizeof(double)) : 0;
}

inline void exchange(Pack *pack, index j, double *single, bool out) {
    if (out)
        *single = pack->lane[j];
    else
        pack->lane[j] = *single;
}

// One network's parameters from or to its lane; both may be stored with different strides.
inline void exchange_layers(const Network<double> &net, const Layer<double> *single, const Layer<Pack> *pack, index j,
                            bool out) {
    for (index l = 0; l < net.depth; ++l) {
        const Layer<double> &here = single[l];
        const Layer<Pack> &there = pack[l];
        const index in = net.width[l], width = net.width[l + 1];
        const index rows = here.transposed ? in : width, columns = here.transposed ? width : in;
        for (index r = 0; r < rows; ++r)
            for (index c = 0; c < columns; ++c)
                exchange(there.weight + r * there.stride + c, j, here.weight + r * here.stride + c, out);
        if (here.bias)
            for (index r = 0; r < width; ++r) exchange(there.bias + r, j, here.bias + r, out);
    }
}

class PackedDescent {
  public:
    PackedDescent(PackedLane *lanes_of, index count, double *memory) : lane_(lanes_of), count_(count) {
        packed_layout(*lane_[0].problem, reinterpret_cast<Pack *>(memory), packed_);
        const DescentProblem<double> &first = *lane_[0].problem;
        const index side = lane_[0].state->steps & 1, depth = first.network[0].depth;
        const index samples = first.data.samples, in = first.network[0].width[0], out = first.network[0].width[depth];
        for (index j = 0; j < lanes<double>; ++j) {
            const DescentProblem<double> &problem = *lane_[j < count_ ? j : 0].problem;  // idle lanes repeat the first
            // Those before the last update too: if the first loss is not finite, that is where the network goes back
            // to.
            for (index both = 0; both < 2; ++both)
                exchange_layers(problem.network[0], problem.network[both].layer, packed_.layer[both], j, false);
            if (problem.velocity) exchange_velocity(problem, j, side, false);
            for (index k = 0; k < samples; ++k) {
                for (index a = 0; a < in; ++a)
                    packed_.x[k * in + a].lane[j] = problem.data.x[k * problem.data.x_stride + a];
                for (index c = 0; c < out; ++c)
                    packed_.y[k * out + c].lane[j] = problem.data.y[k * problem.data.y_stride + c];
                packed_.ones[k].lane[j] = problem.data.ones[k * problem.data.ones_step];
                if (packed_.diagonal) packed_.diagonal[k].lane[j] = problem.data.diagonal[k];
            }
            running_[j] = j < count_;
        }
        left_ = count_;
    }

    void run() {
        const DescentProblem<double> &first = *lane_[0].problem;
        const UpdateRule &rule = first.rule;
        const index steps = lane_[0].job->count;
        Scratch<Pack> scratch = packed_.rest;
        const PassMemory<Pack> memory = pass_memory(packed_.network[0], first.data.samples, first.product, scratch);
        const Blas<Pack> none{};
        for (index k = 0; k < steps && left_ > 0; ++k) {
            const index step = lane_step(), now = step & 1;
            const Pack *theta = packed_.parameters[now];
            Pack losses = pass(none, packed_.network[now], packed_.data, first.product, Pack(first.scale),
                               packed_.gradient_layer, memory) *
                          Pack(0.5 * first.scale);
            if (rule.decay != 0) losses += squared_norm(theta, packed_.count) * Pack(0.5 * rule.decay);
            const Pack norms = step % first.every == 0 && lane_[0].job->gradient_norms ? squared_gradient(theta)
                                                                                       : Pack{};
            Pack rates(0);
            for (index j = 0; j < count_; ++j)
                if (running_[j]) look(j, k, step, losses, norms, rates);
            if (packed_.velocity)
                update<Pack, true>(theta, packed_.parameters[1 - now], packed_.gradient, packed_.velocity,
                                   packed_.count, rates, Pack(rule.momentum), rule.nesterov, Pack(rule.decay));
            else
                update<Pack, false>(theta, packed_.parameters[1 - now], packed_.gradient, nullptr, packed_.count, rates,
                                    Pack(0), false, Pack(rule.decay));
            for (index j = 0; j < count_; ++j)
                if (running_[j]) advance(j, k, losses.lane[j]);
        }
        for (index j = 0; j < count_; ++j)
            if (running_[j]) write(j);
    }

  private:
    // Steps of those that run: the same for all.
    index lane_step() const {
        index j = 0;
        while (!running_[j]) ++j;
        return lane_[j].state->steps;
    }

    Pack squared_gradient(const Pack *theta) const {
        const Pack decay(lane_[0].problem->rule.decay);
        Pack total(0);
        for (index k = 0; k < packed_.count; ++k) {
            const Pack slope = packed_.gradient[k] + theta[k] * decay;
            total += slope * slope;
        }
        return total;
    }

    // Before the update: what is recorded, and whether this network stops here.
    void look(index j, index k, index step, Pack &losses, const Pack &norms, Pack &rates) {
        PackedLane &lane = lane_[j];
        const DescentJob &job = *lane.job;
        const bool recorded = step % lane.problem->every == 0;
        losses.lane[j] += lane.problem->constant;
        const double loss = losses.lane[j];
        job.losses[k] = loss;
        if (job.gradient_norms) job.gradient_norms[k] = recorded ? square_root(norms.lane[j]) : __builtin_nan("");
        if (!is_finite(loss)) {
            lane.stop = DescentStop::diverged;
            if (step > 0) --lane.state->steps;
            stop(j, k);
            return;
        }
        rates.lane[j] = job.rates[k];
        if (!lane.problem->curvature) return;
        if ((recorded && job.sharpness) || leak_is_due(lane.problem->curvature->leak, step)) {
            exchange_layers(lane.problem->network[0], lane.problem->network[step & 1].layer, packed_.layer[step & 1], j,
                            true);
            observe(Blas<double>{}, *lane.problem, step, lane.problem->data, lane.problem->scale, job, k);
        } else if (job.sharpness) {
            job.sharpness[k] = __builtin_nan("");
        }
    }

    // After the update.
    void advance(index j, index k, double loss) {
        PackedLane &lane = lane_[j];
        DescentState &state = *lane.state;
        if (state.steps == 0 && lane.problem->rtol >= 0) state.target = lane.problem->rtol * loss;
        ++state.steps;
        if (!(loss <= state.target)) return;
        lane.stop = DescentStop::converged;
        stop(j, k + 1);
    }

    void stop(index j, index taken) {
        lane_[j].taken = taken;
        running_[j] = false;
        --left_;
        write(j);
    }

    // The weights of the network's present step, and those before the last update.
    void write(index j) {
        const DescentProblem<double> &problem = *lane_[j].problem;
        for (index side = 0; side < 2; ++side)
            exchange_layers(problem.network[0], problem.network[side].layer, packed_.layer[side], j, true);
        if (problem.velocity) exchange_velocity(problem, j, 0, true);
    }

    void exchange_velocity(const DescentProblem<double> &problem, index j, index side, bool out) {
        Layer<double> single[packed_depth];
        Layer<Pack> pack[packed_depth];
        layers_over(problem.network[side], static_cast<const double *>(problem.parameters[side]), problem.velocity,
                    single);
        layers_over(packed_.network[side], static_cast<const Pack *>(packed_.parameters[side]), packed_.velocity, pack);
        exchange_layers(problem.network[0], single, pack, j, out);
    }

    PackedLane *lane_;
    index count_, left_;
    bool running_[lanes<double>];
    PackedMemory packed_;
};

// Runs each lane's job; there are `count`, at most the lanes of a vector. `memory` is aligned and zero.
inline void descend_packed(PackedLane *lane, index count, double *memory) {
    for (index j = 0; j < count; ++j) {
        lane[j].stop = DescentStop::steps;
        lane[j].taken = lane[j].job->count;
    }
    PackedDescent(lane, count, memory).run();
}

}  // namespace hesskern::HESSKERN_ISA
