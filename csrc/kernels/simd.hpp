// Vectors of the compiler (GCC and Clang), in the width of the instruction set this file is compiled for.
//
// Everything here lives in a namespace named after the instruction set and calls nothing inline from outside it: the
// linker may keep only one copy of a shared inline function, and it must not be the one compiled for AVX-512.
#pragma once

#include <cstdint>
#include <cstring>
#if HESSKERN_VECTOR_BYTES > 16 || defined(__SSE2__)
#include <immintrin.h>
#endif

namespace hesskern::HESSKERN_ISA {

using index = std::int64_t;

template <class T, int Lanes>
struct VectorOf {
    typedef T type __attribute__((vector_size(Lanes * sizeof(T)), aligned(alignof(T)), may_alias));
};
template <class T>
struct VectorOf<T, 1> {
    using type = T;
};
template <class T, int Lanes>
using Vector = typename VectorOf<T, Lanes>::type;

template <class T>
inline constexpr int lanes = HESSKERN_VECTOR_BYTES / int(sizeof(T));

template <class T, int Lanes>
inline Vector<T, Lanes> load(const T *source) {
    return *reinterpret_cast<const Vector<T, Lanes> *>(source);
}

template <class T, int Lanes>
inline void store(T *target, Vector<T, Lanes> value) {
    *reinterpret_cast<Vector<T, Lanes> *>(target) = value;
}

// Sum of all lanes by halving: log2(Lanes) additions, in an order that depends on nothing but the width.
template <class T, int Lanes>
inline T sum(Vector<T, Lanes> value) {
    if constexpr (Lanes == 1) {
        return value;
    } else {
        Vector<T, Lanes / 2> half[2];
        std::memcpy(half, &value, sizeof value);
        return sum<T, Lanes / 2>(half[0] + half[1]);
    }
}

template <class T>
inline T smaller(T a, T b) {
    return b < a ? b : a;
}
template <class T>
inline T larger(T a, T b) {
    return a < b ? b : a;
}
inline double magnitude(double a) { return __builtin_fabs(a); }
inline double square_root(double a) { return __builtin_sqrt(a); }

// Copies a finished row to memory past the caches (a matrix larger than the cache would only evict what is needed).
template <class T>
inline void stream_row(T *target, const T *source, index count) {
    constexpr index step = HESSKERN_VECTOR_BYTES / index(sizeof(T));
    index at = 0;
#if defined(__SSE2__)
    const auto misaligned = index(reinterpret_cast<std::uintptr_t>(target) % HESSKERN_VECTOR_BYTES);
    if (misaligned % index(sizeof(T)) == 0) {
        const index head = smaller(count, misaligned ? (HESSKERN_VECTOR_BYTES - misaligned) / index(sizeof(T)) : 0);
        for (; at < head; ++at) target[at] = source[at];
        for (; at + step <= count; at += step) {
#if HESSKERN_VECTOR_BYTES == 64
            _mm512_stream_si512(reinterpret_cast<__m512i *>(target + at), _mm512_loadu_si512(source + at));
#elif HESSKERN_VECTOR_BYTES == 32
            _mm256_stream_si256(reinterpret_cast<__m256i *>(target + at),
                                _mm256_loadu_si256(reinterpret_cast<const __m256i *>(source + at)));
#else
            _mm_stream_si128(reinterpret_cast<__m128i *>(target + at),
                             _mm_loadu_si128(reinterpret_cast<const __m128i *>(source + at)));
#endif
        }
    }
#endif
    for (; at < count; ++at) target[at] = source[at];
}

inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

}  // namespace hesskern::HESSKERN_ISA
