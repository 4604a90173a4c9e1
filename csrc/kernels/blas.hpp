// SciPy's BLAS, as plain function pointers.
//
// The bindings fill this table once from SciPy's capsules (they read each capsule's C signature first). A null pointer
// means "no BLAS": every kernel then uses its own loops, so the kernels work and can be tested without any library.
#pragma once

namespace hesskern {

template <class T>
struct Blas {
    using Gemm = void (*)(char *, char *, int *, int *, int *, T *, T *, int *, T *, int *, T *, T *, int *);
    Gemm gemm = nullptr;
};

}  // namespace hesskern
