// Gradient descent of many small networks of one shape, thousands of steps in one launch: a group of threads (a warp or
// a block) trains one network, whose weights, samples and activations stay in shared memory.
//
// A step is a few phases with a barrier after each. In a phase one thread computes each number, and each sum is added
// up in the order of its index; sums over many numbers go through a fixed number of partial sums. So the results of a
// network do not depend on the number of threads, on the number of steps in a launch, or on other networks.
//
// Matrices are row-major with rows of odd length, so that neighbouring rows lie in different banks. Padding is zero and
// stays zero.
#pragma once

#include "common.cuh"

namespace hesskern {

constexpr int partial_sums = 32;

enum Status : index { running = 0, converged = 1, diverged = 2 };

// The Python side fills it: `TRAINING` of hesskern/backends/cuda/shared_memory_kernel.py.
template <class T>
struct Training {
    index networks, depth, count_parameters;
    const int *widths, *has_bias;      // (depth + 1,), (depth,)
    T *parameters, *previous;          // (networks, P), `named_parameters()` order; before the last update
    T *velocity;                       // (networks, P), or null
    index rows, own_rows;              // of all data; 1: each network has its own
    const T *x, *ones, *y;             // (rows, in), (rows,), (rows, out), one behind the other where they are own
    const double *constants;           // (networks,)
    index samples, own_samples, most;  // what minibatches are taken from; the largest batch, 0: steps use all data
    const T *sample_x, *sample_y;
    const index *order, *ends;      // samples of step k: order[ends[k-1]:ends[k]]
    index order_step;               // from one network's order to the next; 0: one for all
    const double *scales, *rates;   // (count,) loss of a batch; (networks or 1, count or 1)
    index rate_network, rate_step;  // from one network's rates to the next, from one step's to the next
    double scale, rtol, decay, momentum;
    index nesterov;
    index first, count, every;              // steps; those divisible by `every` are recorded
    index loss_wanted;                      // with minibatches: whether the loss of all data is recorded
    double *losses, *batch_losses, *norms;  // (networks, records), or null
    index records;
    double *targets;               // (networks,)
    index *status, *steps, *seen;  // (networks,); steps taken, steps whose loss was finite
    index bytes;                   // of shared memory for a network
};

// Offsets into shared memory, in numbers.
struct Layer {
    int in, out, weight, bias;  // bias: -1 without one
    int activation, delta;      // of its output; its input's are those of the layer before
    int flat, unused;
};

HESSKERN_DEVICE int odd(int width) { return width | 1; }

HESSKERN_DEVICE int quotient(int value, float reciprocal) { return int((float(value) + 0.5f) * reciprocal); }

HESSKERN_DEVICE bool is_finite(double value) { return value - value == 0; }

// sum_k a[row, k] b[column, k]
template <class T>
struct Product {
    const T *a;
    int a_row, a_term;
    const T *b;
    int b_row, b_term;
    int rows, columns, terms;
};

template <int R, class T, class Group, class Use>
HESSKERN_DEVICE void multiply_tiles(const Product<T> &p, Group me, Use use) {
    const int down = (p.rows + R - 1) / R, across = (p.columns + R - 1) / R;
    const float reciprocal = 1.0f / float(across);
    for (int tile = me.thread; tile < down * across; tile += me.threads) {
        const int top = quotient(tile, reciprocal), left = tile - top * across;
        const T *a[R], *b[R];
        T sum[R][R] = {};
        for (int i = 0; i < R; ++i) {
            const int row = top * R + i < p.rows ? top * R + i : p.rows - 1;
            const int column = left * R + i < p.columns ? left * R + i : p.columns - 1;
            a[i] = p.a + row * p.a_row;
            b[i] = p.b + column * p.b_row;
        }
        for (int k = 0; k < p.terms; ++k)
            for (int i = 0; i < R; ++i)
                for (int j = 0; j < R; ++j) sum[i][j] = fused(a[i][k * p.a_term], b[j][k * p.b_term], sum[i][j]);
        for (int i = 0; i < R; ++i)
            for (int j = 0; j < R; ++j)
                if (top * R + i < p.rows && left * R + j < p.columns) use(top * R + i, left * R + j, sum[i][j]);
    }
}

// A tile of 2 x 2 reads half as much, if there are enough tiles for all threads. Where each warp has its own network,
// single numbers need fewer registers, so that more warps run at the same time.
template <class T, class Group, class Use>
HESSKERN_DEVICE void multiply(const Product<T> &p, Group me, Use use) {
    if constexpr (Group::tiles)
        if (p.rows * p.columns >= 4 * me.threads) {
            multiply_tiles<2>(p, me, use);
            return;
        }
    multiply_tiles<1>(p, me, use);
}

// Rows of inputs and targets in shared memory.
template <class T>
struct Rows {
    T *x, *y, *ones;
    int count;
};

template <class T, class Group>
class Trainer {
  public:
    HESSKERN_DEVICE Trainer(const Training<T> &training, index network, char *memory, Group me)
        : a(training), network(network), me(me) {
        partials = reinterpret_cast<double *>(memory);
        layers = reinterpret_cast<Layer *>(partials + 2 * partial_sums);
        depth = int(a.depth);
        numbers = reinterpret_cast<T *>(layers + depth);
        int used = 0;
        for (int l = 0; l < depth; ++l) used += a.widths[l + 1] * (odd(a.widths[l]) + 1);
        size = used;
        here = numbers;
        next = here + size;
        velocity = a.velocity ? next + size : nullptr;
        in = a.widths[0];
        out = a.widths[depth];
        T *free = next + (a.velocity ? 2 : 1) * size;
        free = carve(data, free, int(a.rows));
        free = carve(batch, free, int(a.most));
        activations = int(free - numbers);
    }

    HESSKERN_DEVICE void run() {
        if (a.status[network] != running) return;
        begin();
        for (index k = 0; k < a.count; ++k)
            if (!step(k)) break;
        finish();
    }

  private:
    HESSKERN_DEVICE T *carve(Rows<T> &rows, T *from, int count) {
        rows = {from, from + count * odd(in), from + count * (odd(in) + odd(out)), count};
        return from + count * (odd(in) + odd(out) + 1);
    }

    HESSKERN_DEVICE void begin() {
        const index words = (a.bytes - (reinterpret_cast<char *>(layers) - reinterpret_cast<char *>(partials))) / 4;
        for (index k = me.thread; k < words; k += me.threads) reinterpret_cast<int *>(layers)[k] = 0;
        me.sync();
        if (me.thread == 0) {
            const int most = int(a.most > a.rows ? a.most : a.rows);
            int weight = 0, activation = activations, flat = 0;
            for (int l = 0; l < depth; ++l) {
                const int inputs = a.widths[l], outputs = a.widths[l + 1];
                const int bias = a.has_bias[l] ? weight + outputs * odd(inputs) : -1;
                layers[l] = {inputs, outputs, weight, bias, activation, activation + most * odd(outputs), flat, 0};
                weight += outputs * (odd(inputs) + 1);
                activation += 2 * most * odd(outputs);
                flat += outputs * inputs + (a.has_bias[l] ? outputs : 0);
            }
        }
        me.sync();
        exchange(a.parameters, here, false);
        exchange(a.previous, next, false);
        if (velocity) exchange(a.velocity, velocity, false);
        const index own = a.own_rows ? network : 0;
        fill(a.x + own * a.rows * in, in, data.x, data.count, nullptr);
        fill(a.y + own * a.rows * out, out, data.y, data.count, nullptr);
        for (int k = me.thread; k < data.count; k += me.threads) data.ones[k] = a.ones[own * a.rows + k];
        for (int k = me.thread; k < batch.count; k += me.threads) batch.ones[k] = T(1);
        me.sync();
        target = a.targets[network];
        taken = a.steps[network];
        state = running;
        finite = a.first;
    }

    HESSKERN_DEVICE void finish() {
        exchange(a.parameters, here, true);
        exchange(a.previous, next, true);
        if (velocity) exchange(a.velocity, velocity, true);
        if (me.thread == 0) {
            a.targets[network] = target;
            a.steps[network] = taken;
            a.status[network] = state;
            a.seen[network] = finite;
        }
    }

    // Between a network's parameters in global memory, without gaps, and in shared memory.
    HESSKERN_DEVICE void exchange(T *flat, T *shared, bool write) {
        T *whole = flat + network * a.count_parameters;
        for (int l = 0; l < depth; ++l) {
            const Layer layer = layers[l];
            const float reciprocal = 1.0f / float(layer.in);
            const int weights = layer.in * layer.out, all = weights + (layer.bias < 0 ? 0 : layer.out);
            for (int k = me.thread; k < all; k += me.threads) {
                const int row = quotient(k, reciprocal);
                T &number = k < weights ? shared[layer.weight + row * odd(layer.in) + k - row * layer.in]
                                        : shared[layer.bias + k - weights];
                if (write)
                    whole[layer.flat + k] = number;
                else
                    number = whole[layer.flat + k];
            }
        }
    }

    HESSKERN_DEVICE void fill(const T *from, int width, T *to, int count, const index *order) {
        const float reciprocal = 1.0f / float(width);
        for (int k = me.thread; k < count * width; k += me.threads) {
            const int row = quotient(k, reciprocal), column = k - row * width;
            to[row * odd(width) + column] = from[(order ? order[row] : row) * width + column];
        }
    }

    HESSKERN_DEVICE const T *input(const Rows<T> &rows, int l) const {
        return l == 0 ? rows.x : numbers + layers[l - 1].activation;
    }

    // Activations and the residual, which overwrites the prediction; returns the sum of its squares, and of
    // those of the parameters where there is weight decay.
    HESSKERN_DEVICE double residual(const Rows<T> &rows, T factor) {
        for (int l = 0; l < depth; ++l) {
            const Layer layer = layers[l];
            T *to = numbers + layer.activation;
            const int stride = odd(layer.out);
            const Product<T> product{input(rows, l), odd(layer.in), 1,       here + layer.weight, odd(layer.in), 1,
                                     rows.count,     layer.out,     layer.in};
            multiply(product, me, [&](int row, int column, T sum) {
                if (layer.bias >= 0) sum = fused(rows.ones[row], here[layer.bias + column], sum);
                to[row * stride + column] = l + 1 < depth ? sum : sum - rows.y[row * stride + column];
            });
            me.sync();
        }
        const Layer last = layers[depth - 1];
        const T *e = numbers + last.activation;
        T *delta = numbers + last.delta;
        for (int k = me.thread; k < rows.count * odd(out); k += me.threads) delta[k] = factor * e[k];
        add_squares(e, rows.count * odd(out), T(0), e, partials);
        if (a.decay != 0) add_squares(here, size, T(0), here, partials + partial_sums);
        me.sync();
        if (a.decay != 0) decayed = 0.5 * a.decay * total(partials + partial_sums);
        return total(partials);
    }

    // Partial sums of (v + factor w)^2
    HESSKERN_DEVICE void add_squares(const T *v, int count, T factor, const T *w, double *to) {
        for (int slot = me.thread; slot < partial_sums; slot += me.threads) {
            double sum = 0;
            for (int k = slot; k < count; k += partial_sums) {
                const double value = double(factor == T(0) ? v[k] : fused(factor, w[k], v[k]));
                sum = fma(value, value, sum);
            }
            to[slot] = sum;
        }
    }

    HESSKERN_DEVICE double total(const double *from) const {
        double sum[4] = {};
        for (int k = 0; k < partial_sums; k += 4) HESSKERN_UNROLL
        for (int j = 0; j < 4; ++j) sum[j] += from[k + j];
        return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }

    // The gradient of the data's part, written where the next parameters will be.
    HESSKERN_DEVICE void gradient(const Rows<T> &rows) {
        for (int l = depth - 1; l >= 0; --l) {
            const Layer layer = layers[l];
            const T *delta = numbers + layer.delta;
            const int stride = odd(layer.out), inputs = odd(layer.in);
            const Product<T> weights{delta, 1, stride, input(rows, l), 1, inputs, layer.out, layer.in, rows.count};
            multiply(weights, me,
                     [&](int row, int column, T sum) { next[layer.weight + row * inputs + column] = sum; });
            if (layer.bias >= 0)
                multiply(Product<T>{delta, 1, stride, rows.ones, 0, 1, layer.out, 1, rows.count}, me,
                         [&](int row, int, T sum) { next[layer.bias + row] = sum; });
            if (l > 0) {
                T *below = numbers + layers[l - 1].delta;
                const Product<T> back{delta,      stride,   1,        here + layer.weight, 1, inputs,
                                      rows.count, layer.in, layer.out};
                multiply(back, me, [&](int row, int column, T sum) { below[row * inputs + column] = sum; });
            }
            me.sync();
        }
    }

    HESSKERN_DEVICE void exchange_roles() {
        T *const before = here;
        here = next;
        next = before;
    }

    HESSKERN_DEVICE double gradient_norm() {
        add_squares(next, size, T(a.decay), here, partials);
        me.sync();
        return sqrt(total(partials));
    }

    // torch.optim.SGD:  d = g + decay theta;  v = momentum v + d;  theta -= rate (nesterov ? d + momentum v : v).
    HESSKERN_DEVICE void update(T rate) {
        const T decay = T(a.decay), momentum = T(a.momentum);
        for (int k = me.thread; k < size; k += me.threads) {
            T d = fused(here[k], decay, next[k]);
            if (velocity) {
                const T moved = fused(velocity[k], momentum, d);
                velocity[k] = moved;
                d = a.nesterov ? fused(moved, momentum, d) : moved;
            }
            next[k] = fused(-rate, d, here[k]);
        }
        exchange_roles();
        ++taken;
        me.sync();
    }

    // Loss and gradient, then the update; false if it was the last step. Passes, one after the other, as far as they
    // are needed: 0 the loss of all data, 1 the loss that the step uses, 2 the gradient of all data for its norm, 3
    // again the pass that the step uses. A step that uses all data has pass 1 only.
    HESSKERN_DEVICE bool step(index k) {
        const index number = a.first + k;
        const bool recorded = number % a.every == 0, whole = a.most == 0, norm = recorded && a.norms;
        const index record = network * a.records +
                             (recorded ? number / a.every - (a.first + a.every - 1) / a.every : 0);
        const bool watched = !whole && (a.rtol >= 0 || (recorded && a.loss_wanted));
        double loss = 0;
        for (int part = watched ? 0 : 1; part < 4; ++part) {
            const bool all = whole || part % 2 == 0;
            if (!all && part == 1) gather(k);
            const Rows<T> rows = all ? data : batch;
            const double scale = all ? a.scale : a.scales[k];
            const double squares = residual(rows, T(scale));
            const double value = 0.5 * scale * squares + decayed + (all ? a.constants[network] : 0);
            if (all) loss = value;
            if (part == 0) continue;
            if (part == 1) {
                if (recorded && me.thread == 0) {
                    if (a.losses) a.losses[record] = loss;
                    if (a.batch_losses) a.batch_losses[record] = value;
                }
                if (!is_finite(value)) {
                    state = diverged;
                    if (taken > 0) --taken;
                    exchange_roles();
                    return false;
                }
                if (norm && !whole) continue;
            }
            gradient(rows);
            if (norm && all) {
                const double length = gradient_norm();
                if (me.thread == 0) a.norms[record] = length;
            }
            if (part != 2) break;
        }
        update(T(a.rates[network * a.rate_network + k * a.rate_step]));
        finite = number + 1;
        if (number == 0 && a.rtol >= 0) target = a.rtol * loss;
        if (a.rtol >= 0 && loss <= target) {
            state = converged;
            return false;
        }
        return true;
    }

    HESSKERN_DEVICE void gather(index k) {
        const index start = k ? a.ends[k - 1] : 0;
        const index *order = a.order + network * a.order_step + start;
        const index own = a.own_samples ? network * a.samples : 0;
        batch.count = int(a.ends[k] - start);
        fill(a.sample_x + own * in, in, batch.x, batch.count, order);
        fill(a.sample_y + own * out, out, batch.y, batch.count, order);
        me.sync();
    }

    const Training<T> &a;
    index network;
    Group me;
    double *partials;
    Layer *layers;
    T *numbers, *here, *next, *velocity;  // parameters now and after the update
    Rows<T> data, batch;
    int depth, in, out, size, activations;
    double target = 0, decayed = 0;
    index taken = 0, finite = 0, state = running;
};

}  // namespace hesskern

#ifdef __CUDACC__
namespace hesskern {

struct Warp {
    int thread;
    static constexpr int threads = 32;
    static constexpr bool tiles = false;
    __device__ void sync() const { __syncwarp(); }
};

struct Block {
    int thread, threads;
    static constexpr bool tiles = true;
    __device__ void sync() const { __syncthreads(); }
};

}  // namespace hesskern

// A warp of a block for each network, or all of a block for one.
#define HESSKERN_TRAIN(T, bits)                                                                                        \
    extern "C" __global__ void __launch_bounds__(128, 5) train_warp_float##bits(const hesskern::Training<T> *given) {  \
        extern __shared__ double2 memory[];                                                                            \
        const hesskern::Training<T> &training = *given;                                                                \
        const int warp = threadIdx.x / 32;                                                                             \
        const long long network = (long long)(blockIdx.x) * (blockDim.x / 32) + warp;                                  \
        if (network < training.networks)                                                                               \
            hesskern::Trainer<T, hesskern::Warp>(training, network,                                                    \
                                                 reinterpret_cast<char *>(memory) + warp * training.bytes,             \
                                                 hesskern::Warp{int(threadIdx.x % 32)})                                \
                .run();                                                                                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(512, 1) train_block_float##bits(const hesskern::Training<T> *given) { \
        extern __shared__ double2 memory[];                                                                            \
        const hesskern::Training<T> &training = *given;                                                                \
        hesskern::Trainer<T, hesskern::Block>(training, blockIdx.x, reinterpret_cast<char *>(memory),                  \
                                              hesskern::Block{int(threadIdx.x), int(blockDim.x)})                      \
            .run();                                                                                                    \
    }
HESSKERN_TRAIN(float, 32)
HESSKERN_TRAIN(double, 64)
#endif
