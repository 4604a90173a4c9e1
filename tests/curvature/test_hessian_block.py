"""Diagonal blocks of the Hessian as operators and dense, against exact second differences and autograd."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from looped import each
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh

import hesskern as hk
from hesskern._base import memory


def layers(problem):
    return range(len(problem.weights))


@each("seed", problems.SMALL)
def test_every_block_is_exact_on_small_problems(backend, close, seed):
    problem = problems.small(seed)
    truth = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    loss, net = problem.loss(), problem.network()
    rng = np.random.default_rng(seed)
    for layer in layers(problem):
        block = truth.block(layer)
        H = loss.hessian(net, params=[layer])
        assert H.shape == block.shape
        close(H.toarray(), block)
        V = rng.standard_normal((len(block), 3))
        close(H @ V, block @ V, factor=len(block))
        close(H @ V[:, 0], block @ V[:, 0], factor=len(block))


@each("seed", range(21))
def test_float32_blocks(backend, close, seed):
    problem = problems.small(seed)
    truth = oracle.exact(problem.weights, problem.biases, problem.X, problem.Y, problem.kind, problem.weight_decay)
    for layer in layers(problem):
        H = problem.loss("float32").hessian(problem.network("float32"), params=[layer])
        dense = H.toarray()
        assert dense.dtype == H.dtype == np.float32
        close(dense, truth.block(layer), "float32")


@each("seed", problems.SMALL)
def test_torch_autograd_agrees(seed):
    torch = pytest.importorskip("torch")
    small = problems.small(seed)
    widths = [small.X.shape[1], *(len(weight) for weight in small.weights)]
    problem = problems.normal(widths, len(small.X), seed, bias=seed % 2 == 1, kind=small.kind)
    X, Y = torch.tensor(problem.X), torch.tensor(problem.Y)
    theta = torch.tensor(oracle.flatten(problem.weights, problem.biases))

    def value(flat):
        prediction, at = X, 0
        for weight, bias in zip(problem.weights, problem.biases, strict=True):
            matrix = flat[at : at + weight.size].reshape(weight.shape)
            at += weight.size
            shift = None if bias is None else flat[at : at + bias.size]
            at += 0 if bias is None else bias.size
            prediction = torch.nn.functional.linear(prediction, matrix, shift)
        squared = ((prediction - Y) ** 2).sum()
        return squared * {"half_sum": 0.5, "sum": 1.0, "mean": 1.0 / Y.numel()}[problem.kind]

    full = torch.autograd.functional.hessian(value, theta).numpy()
    loss, net = problem.loss(), problem.network()
    for layer, where in enumerate(oracle.layer_slices(problem.weights, problem.biases)):
        block = full[where, where]
        dense = loss.hessian(net, params=[layer]).toarray()
        np.testing.assert_allclose(dense, block, rtol=0, atol=1e-12 * max(1.0, np.abs(block).max()))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_larger_blocks_are_kronecker_products(backend, close, dtype, layer, bias):
    problem = problems.normal([9, 31, 17, 7], 40, bias=bias, kind="sum")
    H = problem.loss(dtype).hessian(problem.network(dtype), params=[layer])
    activation = problem.X
    for weight, shift in zip(problem.weights[:layer], problem.biases[:layer], strict=True):
        activation = activation @ weight.T + (0 if shift is None else shift)
    above = np.eye(len(problem.weights[layer]))
    for weight in problem.weights[layer + 1 :]:
        above = weight @ above
    parts = [np.einsum("cp,na->ncpa", above, activation).reshape(40 * 7, -1)]
    if bias:
        parts.append(np.einsum("cp,n->ncp", above, np.ones(40)).reshape(40 * 7, -1))
    jacobian = np.hstack(parts)
    close(H.toarray(), 2 * jacobian.T @ jacobian, dtype)


def test_a_block_large_enough_to_be_streamed(backend, close, dtype):
    # 30 x 45 = 1350 parameters: 14 MB in float64, 7 MB (not streamed) in float32.
    problem = problems.normal([45, 30, 30], 60)
    H = problem.loss(dtype).hessian(problem.network(dtype), params=[0])
    U, V = problem.weights[1].T @ problem.weights[1], problem.X.T @ problem.X
    expected = np.einsum("pr,ab->parb", U, V).reshape(1350, 1350)
    close(H.toarray(), expected, dtype)


def test_the_dense_matrix_is_symmetric_to_the_bit(backend, dtype):
    problem = problems.normal([6, 11, 9, 5], 40, bias=True)
    loss, net = problem.loss(dtype), problem.network(dtype)
    for layer in range(3):
        dense = loss.hessian(net, params=[layer]).toarray()
        np.testing.assert_array_equal(dense, dense.T)


@pytest.mark.parametrize("seed", [0, 1, 3, 5])
def test_toarray_fills_out_and_returns_it(backend, dtype, seed):
    problem = problems.small(seed)
    H = problem.loss(dtype).hessian(problem.network(dtype), params=[0])
    out = np.full(H.shape, np.nan, dtype=dtype)
    assert H.toarray(out=out) is out
    np.testing.assert_array_equal(out, H.toarray())


def test_toarray_writes_into_a_memmap(backend, tmp_path):
    problem = problems.normal([4, 5, 3], 9)
    H = problem.loss().hessian(problem.network(), params=[0])
    out = np.memmap(tmp_path / "H.bin", dtype="float64", mode="w+", shape=H.shape)
    H.toarray(out=out)
    out.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "H.bin").reshape(H.shape), H.toarray())


def test_names_and_numbers_select_the_same_block():
    problem = problems.normal([4, 5, 3], 9, bias=True)
    loss, net = problem.loss(), problem.network()
    by_number = loss.hessian(net, params=[1]).toarray()
    np.testing.assert_array_equal(loss.hessian(net, params=["1.weight", "1.bias"]).toarray(), by_number)
    np.testing.assert_array_equal(loss.hessian(net, params=(np.int64(1),)).toarray(), by_number)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([2], ValueError, "params holds layer 2; layers are counted from 0 to 1"),
        ([-1], ValueError, "params holds layer -1; layers are counted from 0 to"),
        (["2.weight"], ValueError, r"params holds '2\.weight'; the network has 0\.weight, 1\.weight"),
        ("1.weight", TypeError, r"params is '1\.weight' .*expected a list"),
        (1, TypeError, "params is 1 .*expected a list"),
        ([1.0], TypeError, r"params is 1\.0 .*expected an integer"),
        ([True], TypeError, "params is True .*expected an integer"),
        ([], ValueError, "params is empty; expected a list"),
    ],
)
def test_bad_params_are_named(params, error, message):
    problem = problems.normal([4, 5, 3], 9)
    with pytest.raises(error, match=message):
        problem.loss().hessian(problem.network(), params=params)


def test_it_is_a_scipy_linear_operator(backend):
    problem = problems.normal([4, 5, 3], 9, bias=True, weight_decay=0.25)
    H = problem.loss().hessian(problem.network(), params=[0])
    dense = H.toarray()
    v = np.random.default_rng(0).standard_normal(len(dense))
    assert isinstance(H, LinearOperator)
    assert aslinearoperator(H) is H
    np.testing.assert_allclose(H.matvec(v), dense @ v, rtol=0, atol=1e-12 * np.abs(dense).sum())
    np.testing.assert_allclose(H.T @ v, dense @ v, rtol=0, atol=1e-12 * np.abs(dense).sum())
    np.testing.assert_allclose((2.0 * H + H) @ v, 3 * dense @ v, rtol=0, atol=3e-12 * np.abs(dense).sum())
    np.testing.assert_allclose(H @ np.eye(len(dense)), dense, rtol=0, atol=1e-12 * np.abs(dense).max())
    largest = eigsh(H, k=1, v0=v, return_eigenvectors=False)[0]
    assert largest == pytest.approx(np.linalg.eigvalsh(dense)[-1], rel=1e-9)


def test_complex_vectors(backend):
    problem = problems.normal([4, 5, 3], 9)
    H = problem.loss().hessian(problem.network(), params=[1])
    rng = np.random.default_rng(0)
    v = rng.standard_normal(H.shape[0]) + 1j * rng.standard_normal(H.shape[0])
    np.testing.assert_allclose(H @ v, H.toarray() @ v, rtol=0, atol=1e-10)


def test_vectors_of_the_wrong_length_are_refused():
    problem = problems.normal([4, 5, 3], 9)
    H = problem.loss().hessian(problem.network(), params=[1])
    with pytest.raises(ValueError, match=r"^v has shape \(16,\); expected \(15,\) or"):
        H @ np.ones(H.shape[0] + 1)


def test_targets_do_not_matter_to_a_diagonal_block(backend):
    problem = problems.normal([4, 5, 3], 9)
    net = problem.network()
    here = hk.SquaredLoss(problem.X, problem.Y).hessian(net, params=[1]).toarray()
    there = hk.SquaredLoss(problem.X, problem.Y + 100.0).hessian(net, params=[1]).toarray()
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-12 * np.abs(here).max())


def test_a_block_that_does_not_fit_is_refused_before_it_is_allocated(monkeypatch):
    net = hk.LinearNetwork.random([3, 2000, 2000], seed=0)
    loss = hk.SquaredLoss(np.ones((2, 3)), np.ones((2, 2000)))
    H = loss.hessian(net, params=[1])
    allocated = []
    monkeypatch.setattr(np, "empty", lambda *arguments, **_: allocated.append(arguments))
    with pytest.raises(MemoryError) as caught:
        H.toarray()
    assert not allocated
    message = str(caught.value)
    assert "4000000 x 4000000" in message
    assert "116.4 TiB" in message  # 8 * 16e12 bytes
    assert "operator" in message
    assert "H @ v" in message


def test_the_operator_of_that_block_works(backend):
    net = hk.LinearNetwork.random([3, 300, 200], seed=0)
    X = np.random.default_rng(0).standard_normal((4, 3))
    H = hk.SquaredLoss(X, np.ones((4, 200))).hessian(net, params=[1])
    Z = X @ net.weights[0].T
    v = np.random.default_rng(1).standard_normal((200, 300))
    np.testing.assert_allclose(H @ v.ravel(), ((v @ Z.T) @ Z).ravel(), rtol=0, atol=1e-11 * np.abs(Z.T @ Z).sum())
    assert H.rank() == 200 * 3


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (5 << 50, "5120.0 TiB")],
)
def test_sizes_in_words(count, text):
    assert memory.human(count) == text


def test_repr_says_size_and_layer():
    problem = problems.normal([4, 5, 3], 9)
    assert "15x15" in repr(problem.loss().hessian(problem.network(), params=[1]))
