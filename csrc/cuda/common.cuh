// Shared by the GPU's kernels, for NVRTC and for the host's compiler.
//
// Nothing is included, and the compiler contracts nothing: fused products are explicit, so both compilers give the same
// bits.
#pragma once

#ifdef __CUDACC__
#define HESSKERN_DEVICE __device__ __forceinline__
#define HESSKERN_UNROLL _Pragma("unroll")
#else
#define HESSKERN_DEVICE inline
#define HESSKERN_UNROLL
#define fmaf __builtin_fmaf
#define fma __builtin_fma
#define sqrt __builtin_sqrt
#endif

namespace hesskern {

using index = long long;

HESSKERN_DEVICE float fused(float x, float y, float z) { return fmaf(x, y, z); }
HESSKERN_DEVICE double fused(double x, double y, double z) { return fma(x, y, z); }

}  // namespace hesskern
