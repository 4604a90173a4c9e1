// Limits of one core. Multiply-adds at the processor's peak: twelve independent chains of fused multiply-adds in the
// widest vectors that -march=native has; twelve hide the latency of two units and still fit into sixteen registers.
// Stores that go past the caches: the least that writing an array can take, as an ordinary fill reads what it writes.
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

template <class T>
static void chains(long steps, T factor, T term, T *out) {
    constexpr int count = 12, lanes = BYTES / sizeof(T);
    typedef T Vector __attribute__((vector_size(BYTES)));
    Vector chain[count];
    for (int k = 0; k < count; ++k) chain[k] = Vector{} + T(k);
    for (long s = 0; s < steps; ++s)
        for (int k = 0; k < count; ++k) chain[k] = chain[k] * factor + term;
    for (int k = 0; k < count; ++k)
        for (int lane = 0; lane < lanes; ++lane) out[k] += chain[k][lane];
}

extern "C" {
int multiply_adds_per_step(int bytes) { return 12 * BYTES / bytes; }
void peak_float64(long steps, double factor, double term, double *out) { chains(steps, factor, term, out); }
void peak_float32(long steps, float factor, float term, float *out) { chains(steps, factor, term, out); }

// Returns 0 where this processor has no such store; `out` is aligned to 64 bytes and `bytes` a multiple of 64.
int store_past_the_caches(char *out, long bytes) {
#if defined(__AVX512F__)
    const __m512i zero = _mm512_setzero_si512();
    for (long k = 0; k < bytes; k += 64) _mm512_stream_si512(reinterpret_cast<__m512i *>(out + k), zero);
    _mm_sfence();
    return 1;
#elif defined(__AVX__)
    const __m256i zero = _mm256_setzero_si256();
    for (long k = 0; k < bytes; k += 32) _mm256_stream_si256(reinterpret_cast<__m256i *>(out + k), zero);
    _mm_sfence();
    return 1;
#elif defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128();
    for (long k = 0; k < bytes; k += 16) _mm_stream_si128(reinterpret_cast<__m128i *>(out + k), zero);
    _mm_sfence();
    return 1;
#else
    (void)out, (void)bytes;
    return 0;
#endif
}
}
