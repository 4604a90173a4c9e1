// The extension module: chooses the instruction set once, then hands each file its functions.
#include "bindings/module.hpp"

#include <cstdlib>
#include <exception>
#include <new>

#include "bindings/arrays.hpp"

namespace hesskern::bindings {

namespace {
const Kernels *chosen = nullptr;
}

const Kernels &kernels() { return *chosen; }

}  // namespace hesskern::bindings

PYBIND11_MODULE(_core_in_main_interpreter, module) {
    using namespace hesskern;
    namespace py = pybind11;
    const char *requested = std::getenv("HESSKERN_ISA"), *reason = "";
    bindings::chosen = choose_kernels(requested, &reason);
    py::list names;
    for (const char *const *name = available_kernels(); *name; ++name) names.append(*name);
    if (!bindings::chosen)
        throw py::import_error("HESSKERN_ISA is '" + std::string(requested) + "', but " + reason +
                               "; it must be one of " + std::string(py::str(names)) + ", or unset.");
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const std::bad_alloc &) {
            PyErr_SetString(PyExc_MemoryError, "there is not enough memory left for this computation");
        }
    });
    module.doc() = "Kernels of hesskern; use the functions of the package instead.";
    module.attr("isa") = bindings::chosen->name;
    module.attr("available_isas") = py::tuple(names);
    module.attr("version") = HESSKERN_VERSION;
    bindings::bind_blas(module);
    bindings::bind_network(module);
    bindings::bind_descent(module);
    bindings::bind_hessian(module);
    bindings::bind_curvature(module);
    bindings::bind_softmax(module);
    bindings::bind_left_calls(module);
}

// Before pybind11 sees the interpreter: its own first step waits for ever in a subinterpreter of Python 3.11.
extern "C" PYBIND11_EXPORT PyObject *PyInit__core() {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(
            PyExc_ImportError,
            "hesskern cannot be imported in a subinterpreter, which NumPy does not support; import it in the main "
            "interpreter, or start another process.");
        return nullptr;
    }
    return PyInit__core_in_main_interpreter();
}
