// The table of one instruction set. CMake compiles this file once per set, with HESSKERN_ISA naming the namespace.
#include "kernels/assembly.hpp"
#include "kernels/chain_backward.hpp"
#include "kernels/descent.hpp"
#include "kernels/hessian_product.hpp"
#include "kernels/krylov.hpp"
#include "kernels/packed_descent.hpp"
#include "kernels/product_svd.hpp"
#include "kernels/softmax.hpp"
#include "kernels/table.hpp"
#include "kernels/tall_qr.hpp"

namespace hesskern::HESSKERN_ISA {
namespace {

template <class T>
void predict_entry(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, bool product, T *out, T *scratch) {
    Scratch<T> pool{scratch};
    predict(blas, net, data, product, out, pass_memory(net, data.samples, product, pool));
}

template <class T>
double pass_entry(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, bool product, T scale,
                  const Layer<T> *gradient, T *scratch) {
    Scratch<T> pool{scratch};
    return pass(blas, net, data, product, scale, gradient, pass_memory(net, data.samples, product, pool));
}

template <class T>
void backward_entry(const Blas<T> &blas, const Network<T> &net, const Data<T> &data, const T *delta, bool product,
                    const Layer<T> *gradient, T *below, T *scratch) {
    Scratch<T> pool{scratch};
    chain_backward(blas, net, data, delta, product, gradient, below, pass_memory(net, data.samples, product, pool));
}

template <class T>
index pass_scratch(const Network<T> &net, index samples, bool product) {
    Scratch<T> pool{nullptr};
    pass_memory(net, samples, product, pool);
    return pool.used;
}

template <class T>
constexpr KernelsFor<T> kernels_for() {
    return {predict_entry<T>,
            pass_entry<T>,
            product_form_is_cheaper<T>,
            pass_scratch<T>,
            descend<T>,
            assemble<T>,
            hessian_scratch<T>,
            hessian_prepare<T>,
            hessian_product<T>,
            backward_entry<T>,
            softmax_dense<T>,
            softmax_dense_scratch<T>,
            softmax_product<T>,
            softmax_product_scratch<T>,
            orthonormalise<T>};
}

}  // namespace

#define HESSKERN_STRING_(text) #text
#define HESSKERN_STRING(text) HESSKERN_STRING_(text)

extern const Kernels table;
const Kernels table = {HESSKERN_STRING(HESSKERN_ISA),
                       HESSKERN_VECTOR_BYTES,
                       kernels_for<double>(),
                       kernels_for<float>(),
                       product_svd,
                       product_svd_scratch,
                       lanes<double>,
                       packed_memory,
                       descend_packed,
                       append_rows,
                       add_cross_product};

}  // namespace hesskern::HESSKERN_ISA
