// One network trained by several of the system's threads, for the thread sanitizer: every number that one thread writes
// and another reads must have a barrier between. Prints the last loss.
#include <cstdio>

#include "cuda_host.cpp"

namespace {

using hesskern::index;

template <bool Tiles>
double run(int threads, bool minibatches) {
    constexpr int in = 5, hidden = 7, out = 3, rows = 6, steps = 9, batch = 2;
    constexpr index size = hidden * in + hidden + out * hidden;
    const int widths[] = {in, hidden, out}, has_bias[] = {1, 0};
    std::vector<double> parameters(size), x(rows * in), y(rows * out), ones(rows, 1.0), velocity(size, 0.0);
    for (index k = 0; k < size; ++k) parameters[std::size_t(k)] = 0.1 * double((7 * k) % 11 - 5);
    for (std::size_t k = 0; k < x.size(); ++k) x[k] = 0.2 * double(k * 5 % 9) - 0.7;
    for (std::size_t k = 0; k < y.size(); ++k) y[k] = 0.3 * double(k * 3 % 7) - 0.9;
    std::vector<double> previous = parameters, losses(steps), batch_losses(steps), norms(steps), scales(steps, 1.0);
    std::vector<index> order, ends;
    for (int k = 0; k < steps; ++k) {
        for (int j = 0; j < batch; ++j) order.push_back((2 * k + 3 * j) % rows);
        ends.push_back(index(order.size()));
    }
    const double constant = 0, rate = 0.01;
    double target = -1;
    index status = 0, taken = 0, seen = 0;
    hesskern::Training<double> a{};
    a.networks = 1;
    a.depth = 2;
    a.count_parameters = size;
    a.widths = widths;
    a.has_bias = has_bias;
    a.parameters = parameters.data();
    a.previous = previous.data();
    a.velocity = velocity.data();
    a.rows = rows;
    a.x = x.data();
    a.ones = ones.data();
    a.y = y.data();
    a.constants = &constant;
    a.samples = rows;
    a.most = minibatches ? batch : 0;
    a.sample_x = x.data();
    a.sample_y = y.data();
    a.order = order.data();
    a.ends = ends.data();
    a.scales = scales.data();
    a.rates = &rate;
    a.scale = 1;
    a.rtol = 1e-30;
    a.decay = 0.01;
    a.momentum = 0.5;
    a.nesterov = 1;
    a.count = a.records = steps;
    a.every = a.loss_wanted = 1;
    a.losses = losses.data();
    a.batch_losses = minibatches ? batch_losses.data() : nullptr;
    a.norms = norms.data();
    a.targets = &target;
    a.status = &status;
    a.steps = &taken;
    a.seen = &seen;
    a.bytes = 1 << 14;
    train<double, Tiles>(a, threads);
    return losses.back();
}

}  // namespace

int main() {
    for (const bool minibatches : {false, true}) {
        const double wanted = run<true>(1, minibatches);
        for (const int threads : {2, 5})
            if (run<true>(threads, minibatches) != wanted || run<false>(threads, minibatches) != wanted) return 1;
        std::printf("%.17g\n", wanted);
    }
    return 0;
}
