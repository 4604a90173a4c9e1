#pragma once

#include <pybind11/pybind11.h>

namespace hesskern::bindings {

namespace py = pybind11;

void bind_blas(py::module_ &module);
void bind_network(py::module_ &module);
void bind_descent(py::module_ &module);
void bind_hessian(py::module_ &module);
void bind_curvature(py::module_ &module);
void bind_softmax(py::module_ &module);
void bind_left_calls(py::module_ &module);

}  // namespace hesskern::bindings
