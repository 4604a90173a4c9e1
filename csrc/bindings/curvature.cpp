// Blocks of the Hessian and singular values of their factors.
#include <algorithm>
#include <limits>

#include "bindings/arrays.hpp"
#include "bindings/module.hpp"

namespace hesskern::bindings {

namespace {

template <class T>
void kronecker(const py::handle &u, const py::handle &v, bool bias, const py::handle &out) {
    py::array left = checked<T>(u, "output_factor", {-1, -1}), right = checked<T>(v, "input_factor", {-1, -1});
    const index outputs = left.shape(0), inputs = right.shape(0);
    if (left.shape(1) != outputs || right.shape(1) != inputs) fail("the factors of a diagonal block must be square");
    if (outputs < 1 || inputs < (bias ? 2 : 1)) fail("a factor is empty");
    py::array target = checked<T>(out, "out", {outputs * inputs, outputs * inputs});
    const index weight_inputs = inputs - (bias ? 1 : 0);
    const KroneckerBlock<T> block{read<T>(left), read<T>(right), outputs,         weight_inputs,
                                  outputs,       weight_inputs,  bias,            bias,
                                  written<T>(target, "out"),     outputs * inputs};
    py::gil_scoped_release release;
    const Buffer<T> scratch = make_buffer<T>(outputs * inputs);
    kernels().of<T>().kronecker(block, scratch.get());
}

// first: any strides (a transposed view is read as it is), float64.
py::tuple product_svd(const py::array &first, const py::sequence &weights, double tolerance) {
    if (!first.dtype().equal(py::dtype::of<double>()) || first.ndim() != 2 || first.size() == 0)
        fail("first must be a non-empty float64 matrix");
    const index size = index(sizeof(double));
    if (first.strides(0) % size != 0 || first.strides(1) % size != 0) fail("first is not aligned");
    std::vector<py::array> kept;
    std::vector<const double *> pointer;
    std::vector<index> outputs;
    index inner = first.shape(1), count = std::min<index>(first.shape(0), first.shape(1));
    for (const py::handle item : weights) {
        kept.push_back(checked<double>(item, "a weight", {-1, inner}));
        inner = kept.back().shape(0);
        if (inner == 0) fail("a weight is empty");
        count = std::min(count, inner);
        pointer.push_back(read<double>(kept.back()));
        outputs.push_back(inner);
    }
    const FactorChain chain{read<double>(first),     first.shape(0),        first.shape(1),
                            first.strides(0) / size, first.strides(1) / size, index(outputs.size()),
                            pointer.data(),          outputs.data(),        tolerance};
    py::array_t<double> values(count);
    double *target = values.mutable_data();
    FactorSpectrum spectrum{};
    {
        py::gil_scoped_release release;
        const Buffer<double> scratch = make_buffer<double>(kernels().product_svd_scratch(chain));
        kernels().product_svd(chain, target, &spectrum, scratch.get());
    }
    if (!spectrum.converged) throw std::runtime_error("the Jacobi iteration for the singular values did not converge");
    return py::make_tuple(values, spectrum.rank, spectrum.kept, spectrum.dropped, spectrum.amplification);
}

}  // namespace

void bind_curvature(py::module_ &module) {
    module.def(
        "kronecker",
        [](const py::array &u, const py::array &v, bool bias, const py::array &out) {
            (holds_float32(u) ? kronecker<float> : kronecker<double>)(u, v, bias, out);
        },
        py::arg("output_factor"), py::arg("input_factor"), py::arg("bias"), py::arg("out"),
        "The diagonal block output_factor (x) input_factor into out; with `bias` the last input is the constant one.");
    module.def("product_svd", &product_svd, py::arg("first"), py::arg("weights"), py::arg("tolerance"),
               "Singular values of first @ W_1.T @ W_2.T ..., descending, with (rank, kept, dropped, amplification).");
}

}  // namespace hesskern::bindings
