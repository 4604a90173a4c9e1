// The GPU's kernels compiled for the host: every thread of a launch, one after the other, or one of them alone; where
// threads wait for one another, a few of the system's, or one that does the work of all.
#include <barrier>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "assembly.cuh"
#include "training.cuh"

namespace {

template <class T, bool Functional>
void threads(const hesskern::Assembly<T> &assembly, long long blocks, int size, long long only) {
    for (long long block = 0; block < blocks; ++block)
        for (int thread = 0; thread < size; ++thread)
            if (only < 0 || only == block * size + thread)
                hesskern::assemble<T, Functional>(assembly, {block, blocks, thread, size});
}

}  // namespace

// `only`: number of the one thread that runs, or -1.
#define HESSKERN_HOST(name, T, functional)                                                                           \
    extern "C" void name(long long blocks, int size, long long only, const T *u, const T *v, const T *b, const T *w, \
                         long long outer_stride, long long inner_stride, const int *row_outer, const int *row_inner, \
                         const int *column_outer, const int *column_inner, long long rows, long long columns,        \
                         T *out) {                                                                                   \
        threads<T, functional>({u, v, b, w, outer_stride, inner_stride, row_outer, row_inner, column_outer,          \
                                column_inner, rows, columns, out},                                                   \
                               blocks, size, only);                                                                  \
    }
HESSKERN_HOST(assemble_float32, float, false)
HESSKERN_HOST(assemble_float64, double, false)
HESSKERN_HOST(assemble_functional_float32, float, true)
HESSKERN_HOST(assemble_functional_float64, double, true)

namespace {

// The threads that train one network.
template <bool Tiles>
struct Crew {
    int thread, threads;
    static constexpr bool tiles = Tiles;
    std::barrier<> *barrier;
    void sync() const {
        if (threads > 1) barrier->arrive_and_wait();
    }
};

constexpr unsigned char garbage = 0xFF;  // NaN, as shared memory may hold it

template <class T, bool Tiles>
void train(const hesskern::Training<T> &given, int threads) {
    constexpr std::size_t guard = 64;
    for (hesskern::index network = 0; network < given.networks; ++network) {
        std::vector<double> memory((std::size_t(given.bytes) + guard) / sizeof(double));
        char *bytes = reinterpret_cast<char *>(memory.data());
        std::memset(bytes, garbage, memory.size() * sizeof(double));
        std::barrier<> barrier(threads);
        std::vector<std::thread> crew;
        const auto work = [&](int thread) {
            hesskern::Trainer<T, Crew<Tiles>>(given, network, bytes, {thread, threads, &barrier}).run();
        };
        for (int thread = 1; thread < threads; ++thread) crew.emplace_back(work, thread);
        work(0);
        for (std::thread &each : crew) each.join();
        for (std::size_t k = 0; k < guard; ++k)
            if (static_cast<unsigned char>(bytes[given.bytes + k]) != garbage) std::abort();
    }
}

}  // namespace

// `only`: how many threads there are really; -1: one.
#define HESSKERN_HOST_TRAIN(name, T, tiles)                                                       \
    extern "C" void name(long long, int, long long only, const hesskern::Training<T> *training) { \
        train<T, tiles>(*training, only < 0 ? 1 : int(only));                                     \
    }
HESSKERN_HOST_TRAIN(train_warp_float32, float, false)
HESSKERN_HOST_TRAIN(train_warp_float64, double, false)
HESSKERN_HOST_TRAIN(train_block_float32, float, true)
HESSKERN_HOST_TRAIN(train_block_float64, double, true)
