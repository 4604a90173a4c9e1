// Blocks of the Hessian and singular values of their factors.
#include <pybind11/stl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bindings/arrays.hpp"
#include "bindings/gil.hpp"
#include "bindings/module.hpp"
#include "bindings/threads.hpp"

namespace hesskern::bindings {

namespace {

// A matrix with rows padded so that whole vectors can be read past their end.
template <class T>
struct Padded {
    Buffer<T> memory;
    index stride;
    Padded(const py::handle &object, const char *name, index rows, index columns) {
        const index step = index(kernels().vector_bytes) / index(sizeof(T));
        const py::array array = checked<T>(object, name, {rows, columns});
        stride = (columns + step - 1) / step * step;
        memory = make_buffer<T>(rows * stride);
        for (index r = 0; r < rows; ++r) std::copy_n(read<T>(array) + r * columns, columns, memory.get() + r * stride);
    }
};

std::vector<AssemblySide> sides(const py::sequence &given) {
    std::vector<AssemblySide> sides;
    for (const py::handle item : given) {
        const auto side = item.cast<std::tuple<index, index, bool>>();
        sides.push_back({std::get<0>(side), std::get<1>(side), std::get<2>(side)});
        if (sides.back().outer < 1 || sides.back().inner + sides.back().bias < 1) fail("a side of a block is empty");
    }
    if (sides.empty()) fail("the Hessian has no layers");
    return sides;
}

index length(const std::vector<AssemblySide> &sides) {
    index total = 0;
    for (const AssemblySide &side : sides) total += side.outer * (side.inner + side.bias);
    return total;
}

// Three quarters of the last-level cache, where the C library too starts to write past it.
index cache_bytes() {
    static const index size = [] {
        index found = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
        found = index(::sysconf(_SC_LEVEL3_CACHE_SIZE));
#endif
        return (found > 0 ? found : index(16) << 20) / 4 * 3;
    }();
    return size;
}

template <class T>
void assemble(const py::sequence &row_sides, const py::sequence &column_sides, const py::sequence &blocks,
              const py::handle &out, index threads) {
    const std::vector<AssemblySide> rows = sides(row_sides), columns = sides(column_sides);
    const index total = length(rows), width = length(columns);
    py::array target = checked<T>(out, "out", {total, width});
    if (py::len(blocks) != rows.size() * columns.size()) fail("there must be one block for each pair of layers");
    std::vector<Padded<T>> kept;
    kept.reserve(4 * rows.size() * columns.size());
    std::vector<AssemblyBlock<T>> block;
    for (std::size_t m = 0; m < rows.size(); ++m)
        for (std::size_t l = 0; l < columns.size(); ++l) {
            const auto given = blocks[m * columns.size() + l].cast<py::tuple>();
            if (given.size() != 4) fail("a block is a tuple (U, V, B, W)");
            const index inner_rows = rows[m].inner + rows[m].bias, inner_columns = columns[l].inner + columns[l].bias;
            const Padded<T> &u = kept.emplace_back(given[0], "U", rows[m].outer, columns[l].outer);
            const Padded<T> &v = kept.emplace_back(given[1], "V", inner_rows, inner_columns);
            block.push_back({u.memory.get(), v.memory.get(), nullptr, nullptr, u.stride, v.stride});
            if (given[2].is_none() != given[3].is_none()) fail("B and W come together");
            if (given[2].is_none()) continue;
            block.back().b = kept.emplace_back(given[2], "B", inner_rows, columns[l].outer).memory.get();
            block.back().w = kept.emplace_back(given[3], "W", rows[m].outer, inner_columns).memory.get();
        }
    const Assembly<T> assembly{
        index(rows.size()),        index(columns.size()),           total, rows.data(), columns.data(), block.data(),
        written<T>(target, "out"), target.nbytes() >= cache_bytes()};
    const index workers = std::clamp<index>(threads, 1, std::max<index>(1, total / 64));
    const index scratch_size = (width + 64 + 15) / 16 * 16;
    const WithoutGil released;
    const Buffer<T> scratch = make_buffer<T>(scratch_size * workers);
    run_tasks(workers, workers, [&](index part, index worker) {
        kernels().of<T>().assemble(assembly, total * part / workers, total * (part + 1) / workers,
                                   scratch.get() + worker * scratch_size);
    });
}

// first: any strides (a transposed view is read as it is), float64.
py::tuple product_svd(const py::array &first, const py::sequence &weights, double tolerance, bool rotated) {
    if (!first.dtype().equal(py::dtype::of<double>()) || first.ndim() != 2 || first.size() == 0)
        fail("first must be a non-empty float64 matrix");
    const index size = index(sizeof(double));
    if (first.strides(0) % size != 0 || first.strides(1) % size != 0 ||
        reinterpret_cast<std::uintptr_t>(first.data()) % alignof(double) != 0)
        fail("first is not aligned");
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
    const FactorChain chain{read<double>(first),
                            first.shape(0),
                            first.shape(1),
                            first.strides(0) / size,
                            first.strides(1) / size,
                            index(outputs.size()),
                            pointer.data(),
                            outputs.data(),
                            rotated,
                            tolerance};
    py::array_t<double> values(count);
    py::array_t<index> exponents(count);
    double *target = values.mutable_data();
    index *target_exponents = exponents.mutable_data();
    FactorSpectrum spectrum{};
    {
        const WithoutGil released;
        const Buffer<double> scratch = make_buffer<double>(kernels().product_svd_scratch(chain));
        kernels().product_svd(chain, target, target_exponents, &spectrum, scratch.get());
    }
    if (!spectrum.converged) {
        py::set_error(py::module_::import("numpy.linalg").attr("LinAlgError"),
                      "the Jacobi iteration for the singular values did not converge");
        throw py::error_already_set();
    }
    return py::make_tuple(values, exponents, spectrum.rank, spectrum.kept, spectrum.dropped, spectrum.amplification,
                          spectrum.lost);
}

// Copies rows [start, start + count) of a matrix of any strides into the columns of `chunk` from `at` on.
template <class T>
void gather(const py::array &part, index start, index count, double *chunk, index stride) {
    const char *data = static_cast<const char *>(part.data());
    const index columns = part.shape(1), row = part.strides(0), column = part.strides(1);
    if (column == index(sizeof(T))) {  // rows are contiguous: read along them
        for (index i = 0; i < count; ++i) {
            const char *from = data + (start + i) * row;
            for (index j = 0; j < columns; ++j) {
                T value;
                std::memcpy(&value, from + j * column, sizeof value);
                chunk[i * stride + j] = double(value);
            }
        }
        return;
    }
    for (index j = 0; j < columns; ++j)
        for (index i = 0; i < count; ++i) {
            T value;
            std::memcpy(&value, data + (start + i) * row + j * column, sizeof value);
            chunk[i * stride + j] = double(value);
        }
}

// R, and with a split the product of the columns from there on, transposed, and those before it.
std::pair<py::array_t<double>, py::array_t<double>> triangular_factor(const py::sequence &given, index split) {
    std::vector<py::array> parts;
    index columns = 0, rows = -1;
    for (const py::handle item : given) {
        if (!py::isinstance<py::array>(item)) fail("a part must be a numpy array");
        parts.push_back(py::reinterpret_borrow<py::array>(item));
        const py::array &part = parts.back();
        if (part.ndim() != 2 || (rows >= 0 && part.shape(0) != rows))
            fail("the parts must be matrices of equal height");
        if (!holds_float32(part) && !part.dtype().equal(py::dtype::of<double>())) fail("a part must hold floats");
        rows = part.shape(0);
        columns += part.shape(1);
    }
    if (rows < 1 || columns < 1) fail("the matrix is empty");
    if (split < 0 || split > columns) fail("split is not one of the columns");
    constexpr index chunk_rows = 256;  // 80 KB at 40 columns
    const index stride = (columns + 7) / 8 * 8;
    py::array_t<double> triangle({columns, columns});
    double *out = triangle.mutable_data();
    py::array_t<double> product({columns - split, split});
    double *sums = product.mutable_data();
    std::fill_n(sums, product.size(), 0.0);
    {
        std::vector<bool> single;
        for (const py::array &part : parts) single.push_back(holds_float32(part));
        const WithoutGil released;
        const Buffer<double> r = make_buffer<double>(columns * stride), c = make_buffer<double>(chunk_rows * stride),
                             work = make_buffer<double>(2 * 8 * stride);
        for (index start = 0; start < rows; start += chunk_rows) {
            const index count = std::min(chunk_rows, rows - start);
            index at = 0;
            for (std::size_t k = 0; k < parts.size(); ++k) {
                (single[k] ? gather<float> : gather<double>)(parts[k], start, count, c.get() + at, stride);
                at += parts[k].shape(1);
            }
            if (split > 0) kernels().add_cross_product(sums, c.get(), stride, count, split, columns);
            kernels().append_rows(r.get(), c.get(), stride, count, columns, work.get());
        }
        for (index i = 0; i < columns; ++i)
            for (index j = 0; j < columns; ++j) out[i * columns + j] = j < i ? 0.0 : r[std::size_t(i * stride + j)];
    }
    return {triangle, product};
}

// Sum of |a_k b_k|.
double size_of_product(const double *a, const double *b, index count) {
    double sums[8] = {}, total = 0;
    index k = 0;
    for (; k + 8 <= count; k += 8)
        for (index i = 0; i < 8; ++i) sums[i] += std::abs(a[k + i] * b[k + i]);
    for (; k < count; ++k) total += std::abs(a[k] * b[k]);
    for (const double sum : sums) total += sum;
    return total;
}

// Whether, for some weight into the units and some weight out of them (the last rows), the product of their norms is
// more than `limit` times the terms that their product is summed from.
bool mixes_units(const py::array_t<double, py::array::c_style> &stack, index outputs, double limit) {
    if (stack.ndim() != 2 || outputs < 1 || outputs >= stack.shape(0)) fail("the stack has no rows for both sides");
    const index rows = stack.shape(0), units = stack.shape(1), inputs = rows - outputs;
    const double *weights = stack.data();
    const WithoutGil released;
    std::vector<double> norms, terms, row(std::size_t(outputs), 0.0), column(std::size_t(inputs), 0.0);
    for (index k = 0; k < rows; ++k)
        norms.push_back(std::sqrt(size_of_product(weights + k * units, weights + k * units, units)));
    for (index c = 0; c < outputs; ++c)
        for (index j = 0; j < inputs; ++j) {
            const double sum = size_of_product(weights + (inputs + c) * units, weights + j * units, units);
            terms.push_back(sum);
            row[std::size_t(c)] = std::max(row[std::size_t(c)], sum);
            column[std::size_t(j)] = std::max(column[std::size_t(j)], sum);
        }
    for (index c = 0; c < outputs; ++c)
        for (index j = 0; j < inputs; ++j) {
            // An entry that no unit contributes to is as uncertain as the other entries of its row or its column.
            const double sum = terms[std::size_t(c * inputs + j)];
            const double around = sum > 0 ? sum : std::min(row[std::size_t(c)], column[std::size_t(j)]);
            if (!(norms[std::size_t(inputs + c)] * norms[std::size_t(j)] <= limit * around)) return true;
        }
    return false;
}

}  // namespace

void bind_curvature(py::module_ &module) {
    module.def(
        "assemble",
        [](const py::sequence &rows, const py::sequence &columns, const py::sequence &blocks, const py::array &out,
           index threads) {
            (holds_float32(out) ? assemble<float> : assemble<double>)(rows, columns, blocks, out, threads);
        },
        py::arg("rows"), py::arg("columns"), py::arg("blocks"), py::arg("out"), py::arg("threads") = 1,
        "Dense blocks U[r,p] V[s,q] + B[s,p] W[r,q] into out; sides are (outer, inner, bias), blocks (U, V, B, W).");
    module.def(
        "triangular_factor", [](const py::sequence &parts) { return triangular_factor(parts, 0).first; },
        py::arg("parts"), "R (n, n) of the QR decomposition of the parts side by side, read a few rows at a time.");
    module.def(
        "wide_layer", &triangular_factor, py::arg("parts"), py::arg("split"),
        "The same R, and the product of the columns from `split` on, transposed, and those before, in one pass.");
    module.def("mixes_units", &mixes_units, py::arg("stack"), py::arg("outputs"), py::arg("limit"),
               "Whether a rotation of the hidden units, the columns, would lose digits of the product of both sides.");
    module.def(
        "product_svd", &product_svd, py::arg("first"), py::arg("weights"), py::arg("tolerance"),
        py::arg("rotated") = false,
        "Singular values of first @ W_1.T @ W_2.T ..., descending, as values and exponents of two, with (rank, kept, "
        "dropped, amplification, lost).");
}

}  // namespace hesskern::bindings
