// Vectors of the compiler (GCC and Clang), in the width of the instruction set this file is compiled for.
//
// Everything here lives in a namespace named after the instruction set and calls nothing inline from outside it: the
// linker may keep only one copy of a shared inline function, and it must not be the one compiled for AVX-512.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
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

// What sums of squares are added up in.
template <class T>
struct TotalOf {
    using type = double;
};
template <class T>
using Total = typename TotalOf<T>::type;

template <class T>
inline bool is_zero(T value) {
    return value == T(0);
}

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

// A square of `Lanes` vectors, transposed by halves: log2(Lanes) rounds of exchanges between two vectors.
template <class T, int Lanes, int Half = Lanes / 2>
inline void transpose_square(Vector<T, Lanes> *rows) {
    if constexpr (Half > 0) {
        using V = Vector<T, Lanes>;
#pragma GCC unroll 16
        for (int base = 0; base < Lanes; base += 2 * Half)
#pragma GCC unroll 16
            for (int r = base; r < base + Half; ++r) {
                const V a = rows[r], b = rows[r + Half];
                rows[r] = [&]<int... P>(std::integer_sequence<int, P...>) {
                    return V(__builtin_shufflevector(a, b, (P / Half % 2 ? Lanes + P - Half : P)...));
                }(std::make_integer_sequence<int, Lanes>{});
                rows[r + Half] = [&]<int... P>(std::integer_sequence<int, P...>) {
                    return V(__builtin_shufflevector(a, b, (P / Half % 2 ? Lanes + P : P + Half)...));
                }(std::make_integer_sequence<int, Lanes>{});
            }
        transpose_square<T, Lanes, Half / 2>(rows);
    }
}

// target (columns, rows) := source (rows, columns) transposed. Writes whole vectors: `stride` is a multiple of their
// length, and what lies beyond `rows` is zero.
template <class T>
inline void transpose(const T *source, std::int64_t ld, std::int64_t rows, std::int64_t columns, T *target,
                      std::int64_t stride) {
    constexpr std::int64_t L = lanes<T>;
    for (std::int64_t r = 0; r < rows; r += L) {
        const std::int64_t height = rows - r < L ? rows - r : L;
        std::int64_t c = 0;
        for (; c + L <= columns; c += L) {
            Vector<T, L> square[L];
#pragma GCC unroll 16
            for (int k = 0; k < int(L); ++k)
                square[k] = k < height ? load<T, L>(source + (r + k) * ld + c) : Vector<T, L>{};
            transpose_square<T, L>(square);
#pragma GCC unroll 16
            for (int k = 0; k < int(L); ++k) store<T, L>(target + (c + k) * stride + r, square[k]);
        }
        for (; c < columns; ++c)
            for (std::int64_t k = 0; k < L; ++k)
                target[c * stride + r + k] = k < height ? source[(r + k) * ld + c] : T(0);
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
    index at = 0;
#if defined(__SSE2__)
    constexpr index step = HESSKERN_VECTOR_BYTES / index(sizeof(T));
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
