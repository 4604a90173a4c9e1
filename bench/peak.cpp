// Multiply-adds at the processor's peak: twelve independent chains of fused multiply-adds in the widest vectors that
// -march=native has. Twelve hide the latency of two units and still fit into sixteen registers.
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
}
