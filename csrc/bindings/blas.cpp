// SciPy's BLAS through the capsules that Cython modules export.
//
// A capsule's name is the C signature of its function. It is read before the pointer is used: a build with 64-bit
// integers or an unknown signature is refused, and hesskern's own loops do all the work.
#include "kernels/blas.hpp"

#include <regex>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/module.hpp"

namespace hesskern::bindings {

namespace {

Blas<double> blas_f64;
Blas<float> blas_f32;

template <class T>
typename Blas<T>::Gemm gemm_of(const py::dict &capi, const char *name) {
    if (!capi.contains(name)) throw py::import_error(std::string("SciPy's BLAS has no ") + name);
    const py::object capsule = capi[name];
    if (!PyCapsule_CheckExact(capsule.ptr())) throw py::import_error(std::string(name) + " is not a capsule");
    const char *found = PyCapsule_GetName(capsule.ptr());
    const std::string signature = found ? found : "";
    // Cython names the number type __pyx_t_..._cython_blas_d (or _s); newer ones may write double or float.
    const std::string number = sizeof(T) == 8 ? "(?:double|__pyx_t_\\w*cython_blas_d)"
                                              : "(?:float|__pyx_t_\\w*cython_blas_s)";
    const std::string c = "char \\*, ", i = "int \\*, ", t = number + " \\*, ";
    const std::regex expected("void \\(" + c + c + i + i + i + t + t + i + t + i + t + t + "int \\*\\)");
    if (!std::regex_match(signature, expected))
        throw py::import_error(std::string("SciPy's ") + name + " has the signature '" + signature +
                               "', which hesskern does not know (64-bit BLAS integers are not supported)");
    return reinterpret_cast<typename Blas<T>::Gemm>(PyCapsule_GetPointer(capsule.ptr(), found));
}

}  // namespace

template <>
const Blas<double> &blas<double>() {
    return blas_f64;
}
template <>
const Blas<float> &blas<float>() {
    return blas_f32;
}

void bind_blas(py::module_ &module) {
    module.def(
        "load_blas",
        [](const py::dict &capi) {
            const auto dgemm = gemm_of<double>(capi, "dgemm");
            const auto sgemm = gemm_of<float>(capi, "sgemm");
            blas_f64.gemm = dgemm;
            blas_f32.gemm = sgemm;
        },
        py::arg("capi"), "Use the BLAS of `scipy.linalg.cython_blas.__pyx_capi__`; ImportError where it does not fit.");
    module.def(
        "unload_blas",
        [] {
            blas_f64.gemm = nullptr;
            blas_f32.gemm = nullptr;
        },
        "Use hesskern's own loops for products of any size.");
}

}  // namespace hesskern::bindings
