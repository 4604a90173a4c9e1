"""The public door to the CUDA backend: on a GPU where there is one, and with tensors in main memory in its place."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import problems
import pytest
from looped import each, few_quick

import hesskern as hk
from hesskern._base import devices

pytest.importorskip("torch")

import torch
from device_place import moved, on_a_gpu

pytestmark = pytest.mark.usefixtures("place")


def pair(seed, dtype="float64"):
    problem = problems.general(seed)
    net, loss = problem.network(dtype), problem.loss(dtype)
    return (net, loss), moved(net, loss)


def close(found, wanted, dtype):
    found = np.asarray(found.cpu() if isinstance(found, torch.Tensor) else found)
    wanted = np.asarray(wanted)
    assert found.shape == wanted.shape
    scale = max(1.0, np.abs(wanted).max(initial=0.0))
    np.testing.assert_allclose(found, wanted, rtol=0, atol={"float64": 1e-12, "float32": 2e-4}[dtype] * scale)


@pytest.fixture
def small():
    problem = problems.normal([3, 5, 4, 2], 12, bias=True, weight_decay=0.25)
    return moved(problem.network(), problem.loss())


# Numbers --------------------------------------------------------------------------------------------------------------


@each("seed", range(12))
def test_loss_and_gradient(seed, dtype):
    (net, loss), (there, lost) = pair(seed, dtype)
    assert lost(there) == pytest.approx(loss(net), rel=1e-12 if dtype == "float64" else 1e-4)
    gradient = lost.gradient(there)
    assert isinstance(gradient, torch.Tensor)
    close(gradient, loss.gradient(net), dtype)
    close(there.forward(lost.X), net.forward(loss.X), dtype)


@pytest.mark.parametrize("mode", few_quick(["full", "gauss_newton", "functional"], 1))
@each("seed", range(12))
def test_the_whole_hessian(seed, mode, dtype):
    (net, loss), (there, lost) = pair(seed, dtype)
    H, D = loss.hessian(net), lost.hessian(there)
    if mode != "full":
        H, D = getattr(H, mode)(), getattr(D, mode)()
    assert D.shape == H.shape
    dense = D.toarray()
    assert dense.dtype == D.dtype == getattr(torch, dtype)
    assert (dense == dense.T).all()
    close(dense, H.toarray(), dtype)
    close(D.toarray(vec="column"), H.toarray(vec="column"), dtype)
    rng = np.random.default_rng(seed)
    for shape in [(H.shape[1],), (H.shape[1], 3)]:
        for _ in range(3):  # on a GPU the second is recorded, the third replayed
            v = rng.standard_normal(shape).astype(dtype)
            product = D @ torch.tensor(v)
            assert isinstance(product, torch.Tensor)
            close(product, H @ v, dtype)


@pytest.mark.parametrize("params", [[1], ["1.bias"], [0, 2], ["0.weight", "2.bias"]], ids=str)
def test_some_parameters(small, params):
    there, lost = small
    H, D = lost.cpu().hessian(there.cpu(), params), lost.hessian(there, params)
    close(D.toarray(), H.toarray(), "float64")
    v = np.random.default_rng(0).standard_normal((H.shape[1], 2))
    close(D @ torch.tensor(v), H @ v, "float64")


@pytest.mark.parametrize("layers", [(0, 0), (1, 0), (0, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("mode", ["full", "gauss_newton", "functional"])
def test_blocks(small, layers, mode):
    there, lost = small
    H, D = lost.cpu().hessian(there.cpu()).block(*layers), lost.hessian(there).block(*layers)
    if mode != "full":
        H, D = getattr(H, mode)(), getattr(D, mode)()
    assert D.shape == H.shape
    close(D.toarray(), H.toarray(), "float64")
    v = np.random.default_rng(0).standard_normal(H.shape[1])
    close(D @ torch.tensor(v), H @ v, "float64")
    close(D.cpu().toarray(), H.toarray(), "float64")


def test_into_a_given_tensor(small):
    there, lost = small
    H = lost.hessian(there)
    out = torch.empty(H.shape, dtype=torch.float64)
    assert H.toarray(out=out) is out
    assert (out == H.toarray()).all()


# Values ---------------------------------------------------------------------------------------------------------------


def test_a_network_on_a_device(small, tmp_path):
    there, _ = small
    assert there.device == "cuda:0"
    assert "float64 on cuda:0" in repr(there)
    assert there.dtype == np.float64
    assert there.num_parameters == len(there.flatten()) == there.cpu().num_parameters
    again = there.unflatten(there.flatten())
    assert again.device == "cuda:0"
    assert all((a == b).all() for a, b in zip(again.weights, there.weights, strict=True))
    there.save(tmp_path / "net.npz")
    loaded = hk.LinearNetwork.load(tmp_path / "net.npz")
    np.testing.assert_array_equal(loaded.flatten(), devices.to_host(there.flatten()))
    assert (pickle.loads(pickle.dumps(there)).flatten() == there.flatten()).all()
    assert there.cpu().device == "cpu"
    assert there.cpu().cpu().device == "cpu"


def test_a_network_is_a_copy_and_samples_are_not():
    weight, X = torch.ones(1, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    net, loss = hk.LinearNetwork([weight]), hk.SquaredLoss(X, X[:, :1].contiguous())
    weight += 1
    assert (net.weights[0] == 1).all()
    assert loss.X.data_ptr() == X.data_ptr()
    assert "on cuda:0" in repr(loss)
    assert "(3, 2)" in repr(loss)


def test_parameters_that_require_a_gradient():
    layer = torch.nn.Linear(2, 1).double()
    net = hk.LinearNetwork([layer.weight], [layer.bias])
    assert not net.weights[0].requires_grad


def test_what_is_computed_on_the_cpu_says_so(small):
    there, lost = small
    H = lost.hessian(there)
    with pytest.raises(AttributeError, match=r"spectrum is computed on the CPU, .* on cuda:0: H.cpu\(\).spectrum"):
        H.spectrum()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        H.nonsense  # noqa: B018
    assert H.cpu().rank() == lost.cpu().hessian(there.cpu()).rank()
    assert repr(H).startswith(f"<{H.shape[0]}x{H.shape[1]} Hessian of ")
    assert " on cuda:0, " in repr(H)
    with pytest.raises(TypeError, match=r"on cuda:0, where NumPy cannot read; use np\.asarray\(H\.cpu\(\)\)"):
        np.asarray(H)
    copied = copy.copy(H)
    assert (copied.rows, copied.columns, repr(copied)) == (H.rows, H.columns, repr(H))
    for name, call in {
        "validate": lambda: hk.validate(there, lost),
        "explain": lambda: hk.explain(1.0, there, lost),
    }.items():
        with pytest.raises(TypeError, match=rf"{name} computes on the CPU, .* on cuda:0; pass net.cpu\(\)"):
            call()


# Places ---------------------------------------------------------------------------------------------------------------


def test_mixed_devices(small):
    there, lost = small
    here, loss = there.cpu(), lost.cpu()
    with pytest.raises(TypeError, match="X is on cpu, but the network is on cuda:0; move"):
        there.forward(loss.X)
    with pytest.raises(TypeError, match="X is on cpu, but the network is on cuda:0; move"):
        loss(there)
    with pytest.raises(TypeError, match="X is on cuda:0, but the network is on cpu; move"):
        lost.hessian(here)
    with pytest.raises(TypeError, match="Y is on cpu, but X is on cuda:0"):
        hk.SquaredLoss(lost.X, loss.Y)
    with pytest.raises(TypeError, match=r"weights\[1\] is on cpu, but weights\[0\] is on cuda:0"):
        hk.LinearNetwork([there.weights[0], here.weights[1]])
    with pytest.raises(TypeError, match="v is on cpu, but the Hessian is on cuda:0"):
        lost.hessian(there) @ np.ones(there.num_parameters)
    with pytest.raises(TypeError, match="v is a list"):
        lost.hessian(there) @ [1.0]


def test_backends_and_places(small):
    there, lost = small
    assert moved(there.cpu(), lost.cpu(), backend="cuda")[1](there) == lost(there)
    with pytest.raises(TypeError, match="X and Y are on cuda:0, but the backend 'cpp' takes arrays on the CPU"):
        hk.SquaredLoss(lost.X, lost.Y, backend="cpp")
    with pytest.raises(TypeError, match="X and Y are on cpu, but the backend 'cuda' takes arrays on a GPU"):
        hk.SquaredLoss(lost.cpu().X, lost.cpu().Y, backend="cuda")
    with pytest.raises(TypeError, match="the networks and samples are on cpu, but the backend 'cuda' takes arrays on"):
        hk.fit(there.cpu(), lost.cpu(), lr=0.1, max_steps=1, backend="cuda")
    with pytest.raises(TypeError, match="the networks and samples are on cuda:0, but the backend 'numpy' takes arrays"):
        hk.fit(there, lost, lr=0.1, max_steps=1, backend="numpy")
    with hk.use_backend("cuda"), pytest.raises(TypeError, match="X and Y are on cpu"):
        lost.cpu()(there.cpu())
    with hk.use_backend("numpy"):  # arrays on a GPU are their own choice
        assert lost(there) == pytest.approx(lost.cpu()(there.cpu()))


def test_bad_tensors(small):
    there, lost = small
    X, Y = lost.X, lost.Y
    for wrong, message in [
        (X.half(), "X has dtype torch.float16; expected torch.float64"),
        (X[0], r"X has shape \(3,\); expected 2 dimensions"),
        (X[:0], r"X has shape \(0, 3\) and is empty"),
        (X * torch.nan, "X holds 36 values NaN or infinite"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            hk.SquaredLoss(wrong, Y)
    with pytest.raises(TypeError, match=r"Y has dtype torch.float32, but X has torch.float64; .*Y.to\(torch.float64\)"):
        hk.SquaredLoss(X, Y.float())
    with pytest.raises(ValueError, match=r"weights\[1\] has shape \(2, 4\), but weights\[0\] has \(5, 3\)"):
        hk.LinearNetwork([there.weights[0], there.weights[2]])
    H = lost.hessian(there)
    with pytest.raises(ValueError, match=r"v has shape \(3,\); expected"):
        H @ X[0]
    with pytest.raises(ValueError, match=r"v has shape \(1, 1, 1\); expected"):
        H @ torch.ones(1, 1, 1, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"v has dtype torch.float32"):
        H @ torch.ones(H.shape[1])
    with pytest.raises(TypeError, match="out is a ndarray; expected a tensor on cuda:0"):
        H.toarray(out=np.empty(H.shape))
    with pytest.raises(ValueError, match=r"out has shape .* and is not contiguous"):
        H.toarray(out=torch.empty(H.shape, dtype=torch.float64).T)
    with pytest.raises(ValueError, match="row is layer 3"):
        H.block(3, 0)


def test_out_of_memory(small, monkeypatch):
    there, lost = small
    H = lost.hessian(there)

    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    v = torch.ones(H.shape[1], dtype=torch.float64)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "zeros_like", full)
        with pytest.raises(MemoryError, match=r"the product with 1 vector \(about .* KiB in all\) does not fit"):
            H @ v
    with monkeypatch.context() as patch:
        patch.setattr(torch, "cat", full)
        size = 8 * H.shape[0] ** 2 / 1024
        with pytest.raises(
            MemoryError, match=rf"the dense {H.shape[0]} x {H.shape[0]} Hessian \({size:.1f} KiB\) does"
        ):
            H.toarray()
        with pytest.raises(
            MemoryError, match=r"the gradient \(about .* and the activations\) does not fit into the mem"
        ):
            lost.gradient(there)
        with pytest.raises(MemoryError, match=r"the reduction of the samples \(about .*; take fewer samples"):
            hk.SquaredLoss(lost.X, lost.Y).hessian(there)


# Only on a GPU --------------------------------------------------------------------------------------------------------


@on_a_gpu
def test_on_another_stream_and_in_somebody_elses_graph(place):
    """Everything goes to the current stream, so that a user's own CUDA graph may hold an assembly and a product."""
    if place == "cpu":
        pytest.skip("for the GPU")
    problem = problems.normal([3, 50, 2], 12)
    net, loss = moved(problem.network(), problem.loss())
    H, v = loss.hessian(net), torch.ones(net.num_parameters, dtype=torch.float64)
    dense, product = H.toarray(), H @ v
    torch.testing.assert_close(H @ v, product)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        again = H.toarray()
    stream.synchronize()
    assert (again == dense).all()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = H @ v, H.toarray()
    v *= 2
    graph.replay()
    torch.testing.assert_close(recorded[0], 2 * product)
    assert (recorded[1] == dense).all()
