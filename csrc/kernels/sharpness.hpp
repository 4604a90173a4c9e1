// The largest eigenvalue of the Hessian along a trajectory, from products with vectors.
//
// Rayleigh-Ritz on a small space that is carried from record to record: the approximate eigenvectors of the largest
// eigenvalues. It is extended by the residual of the largest, orthogonalised against all of it, as in Lanczos's method,
// until the eigenvalue is known to `sharpness_tolerance`: its error is at most ||r||, and about ||r||^2 over the
// distance to the next one.
//
// Following one eigenvector does not show that another eigenvalue has become larger. So from time to time the search
// takes Lanczos steps from a random direction, until the eigenvalues that they may have missed cannot reach the largest
// one. That bounds all others, for as long as the Hessian changes by less than their distance from the largest. The
// change is estimated from the image of one fixed random vector z: ||dH z|| is ||dH||_F times the size of an entry of
// z, on average; the factor `sharpness_doubt` covers cases where it is less.
//
// Squares of numbers beyond 1e154, or below 1e-154, overflow or vanish: a Hessian of such a size is multiplied by a
// power of two, which rounds nothing, and the eigenvalue is divided by it.
#pragma once

#include "kernels/descent_problem.hpp"
#include "kernels/hessian_product.hpp"
#include "kernels/symmetric_eigen.hpp"

namespace hesskern::HESSKERN_ISA {

inline constexpr double sharpness_tolerance = 1e-12;
inline constexpr index sharpness_kept = 3;
inline constexpr index sharpness_restart = 8;  // vectors that a full space is cut down to
inline constexpr int sharpness_most_products = 5000;
inline constexpr index sharpness_steps = 3;    // Krylov steps before the first small eigenproblem
inline constexpr double sharpness_doubt = 30;  // what is missed where dH has one direction: 3 in 100
// A Ritz value may settle for a while between two eigenvalues, within a few residuals of neither. Of adversarial
// spectra (one eigenvalue 0.1 to 30 % above all others) a bound of 2 residuals missed up to a third, of 8 residuals 1
// in 100, and of 8 residuals in two steps after one another 1 in 1600.
inline constexpr double sharpness_residuals = 8;
inline constexpr int sharpness_confirmed = 2;
// A space that is full before all Ritz values have small residuals starts again from the best; after so many times only
// the second largest has to have one. By then each of the largest has been confirmed by that many spaces.
inline constexpr int sharpness_spaces = 6;
inline constexpr double sharpness_close = 1e-8;  // relative distance at which others on top are found one by one

template <class T>
inline double dot(const T *a, const T *b, index count) {
    constexpr int L = lanes<T>;
    Vector<T, L> even = {}, odd = {};
    index k = 0;
    for (; k + 2 * L <= count; k += 2 * L) {
        even += load<T, L>(a + k) * load<T, L>(b + k);
        odd += load<T, L>(a + k + L) * load<T, L>(b + k + L);
    }
    for (; k < count; k += L) even += load<T, L>(a + k) * load<T, L>(b + k);
    return double(sum<T, L>(even + odd));
}

template <class T>
inline void add_multiple(T *target, T factor, const T *source, index count) {
    constexpr int L = lanes<T>;
    for (index k = 0; k < count; k += L)
        store<T, L>(target + k, load<T, L>(target + k) + load<T, L>(source + k) * factor);
}

template <class T>
inline void multiply_by(T *target, T factor, index count) {
    constexpr int L = lanes<T>;
    for (index k = 0; k < count; k += L) store<T, L>(target + k, load<T, L>(target + k) * factor);
}

// The layers of `net` over another buffer of its layout.
template <class T>
inline void layers_over(const Network<T> &net, const T *base, T *buffer, Layer<T> *layers) {
    for (index l = 0; l < net.depth; ++l) {
        layers[l] = net.layer[l];
        layers[l].weight = buffer + (net.layer[l].weight - base);
        if (layers[l].bias) layers[l].bias = buffer + (net.layer[l].bias - base);
    }
}

// Numbers in (-1, 1) that depend on nothing but `seed` and their place (splitmix64), zero in the padding.
template <class T>
inline void random_direction(const Network<T> &net, const Layer<T> *layers, std::uint64_t seed) {
    std::uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
    const auto next = [&state] {
        std::uint64_t z = (state += 0x9E3779B97F4A7C15u);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return T(double(std::int64_t(z ^ (z >> 31))) * 0x1p-63);
    };
    for (index l = 0; l < net.depth; ++l) {
        const Layer<T> &layer = layers[l];
        const index in = net.width[l], out = net.width[l + 1];
        const index rows = layer.transposed ? in : out, columns = layer.transposed ? out : in;
        for (index r = 0; r < rows; ++r)
            for (index c = 0; c < columns; ++c) layer.weight[r * layer.stride + c] = next();
        if (layer.bias)
            for (index r = 0; r < out; ++r) layer.bias[r] = next();
    }
}

static_assert(search_capacity <= symmetric_eigen_largest && sharpness_restart + 2 < search_capacity);

template <class T>
class EigenSpace {
  public:
    EigenSpace(const Blas<T> &blas, const HessianProblem<T> &hessian, const T *base, index count, double decay,
               EigenSearch<T> &search)
        : blas_(blas), hessian_(hessian), base_(base), count_(count), decay_(T(decay)), search_(search) {
        const index n = search_capacity;
        projected_ = search.small;
        work_ = projected_ + n * n;
        mix_ = work_ + n * n;
        values_ = mix_ + n * n;
    }

    // v -= V V^T v twice; v is then normalised and added to the space with its image. False if nothing was left of it.
    bool extend() {
        T *v = vector(size_);
        const double before = dot(v, v, count_);
        double after = before;
        for (int round = 0; round < 2; ++round) {
            for (index k = 0; k < size_; ++k) add_multiple(v, T(-dot(v, vector(k), count_)), vector(k), count_);
            after = dot(v, v, count_);
        }
        if (!(after > 1e-24 * before) || !(after > 0)) return false;
        outside_ = square_root(after);
        multiply_by(v, T(1 / outside_), count_);
        take_image();
        return true;
    }

    bool extend_by_random(std::uint64_t seed) {
        point(vector(size_), search_.from);
        random_direction(hessian_.network, search_.from, seed);
        return extend();
    }

    bool extend_by_residual(index which) {
        write_residual(which, vector(size_));
        return extend();
    }

    bool extend_by_last_image() {
        std::memcpy(vector(size_), image(size_ - 1), std::size_t(count_) * sizeof(T));
        return extend();
    }

    // Krylov steps from the first vector, until what they add could not change its eigenvalue any more: mostly that
    // leaves a single small eigenproblem to solve.
    void extend_by_images(index most) {
        for (index k = 0; k < most && !full(); ++k) {
            std::memcpy(vector(size_), image(k == 0 ? 0 : size_ - 1), std::size_t(count_) * sizeof(T));
            if (!extend()) return;
            const double value = projected_[0], gap = size_ > 1 ? value - projected_[search_capacity + 1] : 0;
            if (outside_ * outside_ <= sharpness_tolerance * value * gap) return;
        }
    }

    // The Ritz values, and the error of the largest.
    void solve() {
        const index n = search_capacity;
        for (index p = 0; p < size_; ++p)
            for (index q = 0; q < size_; ++q) work_[p * n + q] = projected_[p * n + q];
        symmetric_eigen(size_, work_, mix_, values_, values_ + n, n, 0.01 * sharpness_tolerance);
        T *r = free_image();
        write_residual(0, r);
        const double norm = square_root(dot(r, r, count_)), gap = size_ > 1 ? values_[0] - values_[1] : 0;
        error_ = norm * smaller(1.0, norm < gap ? norm / gap : 1.0);
    }

    // A bound on all eigenvalues but the largest, after Lanczos steps from a random direction: a Ritz
    // value's residual is the last vector's share in it times the norm of the next step's remainder,
    // which is about that of this step.
    double bound_of_others(index many) const {
        double bound = -__builtin_inf();
        for (index k = 1; k < smaller(size_, many); ++k)
            bound = larger(
                bound, values_[k] + sharpness_residuals * outside_ * magnitude(mix_[k * search_capacity + size_ - 1]));
        return bound;
    }

    // How much the Hessian has changed since the last call (Frobenius norm, roughly), not in units.
    double change() {
        T *z = search_.probe, *before = z + count_, *now = free_image();
        apply(z, now);
        double total = 0;
        for (index k = 0; k < count_; ++k) {
            const double moved = (double(now[k]) - double(before[k])) * unit_;
            total += moved * moved;
            before[k] = now[k];
        }
        return square_root(3 * total) / unit_;  // the entries of z have variance 1/3
    }

    void new_probe(std::uint64_t seed) {
        make_probe(seed);
        apply(search_.probe, search_.probe + count_);
    }

    void make_probe(std::uint64_t seed) {
        point(search_.probe, search_.from);
        random_direction(hessian_.network, search_.from, seed);
        search_.probe_made = true;
    }

    // Keeps the first `many` Ritz vectors (and, for a restart, their images) instead of the space.
    void keep(index many, bool images) {
        const index n = search_capacity;
        many = smaller(many, size_);
        rotate(search_.vectors, many);
        if (images) {
            rotate(search_.images, many);
            for (index p = 0; p < many; ++p)
                for (index q = 0; q < many; ++q) projected_[p * n + q] = p == q ? values_[p] : 0;
        }
        size_ = many;
    }

    index size() const { return size_; }
    double unit() const { return unit_; }  // what the Hessian is multiplied by in all numbers below
    double value() const { return values_[0]; }
    double error() const { return error_; }
    double scale() const { return larger(magnitude(values_[0]), magnitude(values_[size_ - 1])); }
    bool full() const { return size_ + 2 > search_capacity; }

  private:
    T *vector(index k) const { return search_.vectors + k * count_; }
    T *image(index k) const { return search_.images + k * count_; }
    T *free_image() const { return image(search_capacity - 1); }  // never an image: the space stops before

    void point(T *buffer, Layer<T> *layers) const { layers_over(hessian_.network, base_, buffer, layers); }

    void apply(T *v, T *to) const {
        point(v, search_.from);
        point(to, search_.to);
        hessian_product(blas_, hessian_, search_.from, search_.to);
        if (decay_ != T(0)) add_multiple(to, decay_, v, count_);
    }

    void choose_unit(const T *image) {
        double largest = 0;
        for (index k = 0; k < count_; ++k) largest = larger(largest, magnitude(double(image[k])));
        if (!(largest > 0) || (largest > 0x1p-256 && largest < 0x1p256)) return;
        while (largest * unit_ > 1 && unit_ > 0x1p-960) unit_ *= 0x1p-64;
        while (largest * unit_ < 0x1p-64 && unit_ < 0x1p960) unit_ *= 0x1p64;
    }

    void write_residual(index which, T *r) const {
        std::memset(r, 0, std::size_t(count_) * sizeof(T));
        for (index k = 0; k < size_; ++k) {
            const double share = mix_[which * search_capacity + k];
            add_multiple(r, T(share), image(k), count_);
            add_multiple(r, T(-values_[which] * share), vector(k), count_);
        }
    }

    void take_image() {
        const index n = search_capacity;
        apply(vector(size_), image(size_));
        if (size_ == 0) choose_unit(image(0));
        if (unit_ != 1) multiply_by(image(size_), T(unit_), count_);
        for (index k = 0; k <= size_; ++k)
            projected_[k * n + size_] = projected_[size_ * n + k] = dot(vector(k), image(size_), count_);
        ++size_;
    }

    // The first `many` of `size_` vectors := their combinations with the rows of the mix, a few entries at a time.
    void rotate(T *vectors, index many) const {
        constexpr int L = lanes<T>;
        Vector<T, L> row[search_capacity];
        for (index at = 0; at < count_; at += L) {
            for (index k = 0; k < size_; ++k) row[k] = load<T, L>(vectors + k * count_ + at);
            for (index p = 0; p < many; ++p) {
                Vector<T, L> total = {};
                for (index k = 0; k < size_; ++k) total += row[k] * T(mix_[p * search_capacity + k]);
                store<T, L>(vectors + p * count_ + at, total);
            }
        }
    }

    const Blas<T> &blas_;
    const HessianProblem<T> &hessian_;
    const T *base_;
    index count_;
    T decay_;
    EigenSearch<T> &search_;
    index size_ = 0;
    double unit_ = 1;
    double *projected_, *work_, *mix_, *values_;
    double error_ = 0, outside_ = 0;
};

// `base` is the parameter buffer that `hessian.network` points into; the factors of `hessian` are those of its weights.
// NaN if the products allowed do not suffice.
template <class T>
inline double largest_eigenvalue(const Blas<T> &blas, const HessianProblem<T> &hessian, const T *base, index count,
                                 double decay, index step, EigenSearch<T> &search) {
    EigenSpace<T> space(blas, hessian, base, count, decay, search);
    const index warm = search.kept;
    for (index k = 0; k < warm; ++k) space.extend();
    if (warm > 0) {
        if (!search.probe_made) space.make_probe(std::uint64_t(search.looked_at));
        search.drift += sharpness_doubt * space.change();
    }
    for (index k = warm; k < sharpness_kept; ++k) {
        const std::uint64_t seed = std::uint64_t(step) + (std::uint64_t(k + 1) << 48);
        if (!space.extend_by_random(seed)) break;
    }
    if (space.size() == 0) return 0;
    if (warm > 0) space.extend_by_images(sharpness_steps);

    int confirmed = 0, spaces = 0;
    bool looked = false, all_known = warm > 0, restarted = false;
    double value = __builtin_nan("");
    for (int products = 0; products < sharpness_most_products; ++products) {
        space.solve();
        const double scale = space.scale();
        const bool top_known = space.error() <= sharpness_tolerance * scale;
        if (looked) {
            const double others = space.bound_of_others(spaces < sharpness_spaces ? search_capacity : 2);
            search.rest = others / space.unit();
            confirmed = others <= space.value() + sharpness_close * scale ? confirmed + 1 : 0;
            all_known = confirmed >= sharpness_confirmed;
        } else {
            all_known = warm > 0 && search.rest + search.drift < space.value() / space.unit();
        }
        if (top_known && all_known) {
            value = space.value() / space.unit();
            break;
        }
        if (space.full()) {
            space.keep(sharpness_restart, true);
            restarted = true;
            spaces += looked && top_known;
        }
        bool more;
        if (!top_known) {
            more = space.extend_by_residual(0);
            restarted = restarted || looked;  // the last vector is no longer the last of the Lanczos steps
        } else if (!looked) {
            looked = true;
            search.looked_at = step;
            search.drift = 0;
            more = space.extend_by_random(std::uint64_t(step));
            for (index k = 0; more && k < sharpness_steps && !space.full(); ++k) more = space.extend_by_last_image();
        } else {
            more = restarted ? space.extend_by_residual(1) : space.extend_by_last_image();
            restarted = false;
        }
        if (!more) {  // nothing is outside the space any more
            space.solve();
            value = space.value() / space.unit();
            if (looked) search.rest = value;
            break;
        }
    }
    if (looked) space.new_probe(std::uint64_t(step));
    space.keep(sharpness_kept, false);
    search.kept = space.size();
    return value;
}

}  // namespace hesskern::HESSKERN_ISA
