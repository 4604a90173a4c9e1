"""Odd arrays with good numbers in them: any layout, byte order or library gives the right results."""

from __future__ import annotations

import numpy as np
import problems
import pytest

import hesskern as hk


def strided(array):
    wide = np.full((2 * array.shape[0], 3 * array.shape[1]), np.nan)
    wide[::2, ::3] = array
    return wide[::2, ::3]


def reversed_memory(array):
    return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]


def frozen(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)
    view = raw[1:].view(np.float64).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


LAYOUTS = {
    "strided": strided,
    "Fortran": np.asfortranarray,
    "negative strides": reversed_memory,
    "read-only": frozen,
    "big-endian": lambda array: array.astype(">f8"),
    "misaligned": misaligned,
    "nested lists": lambda array: array.tolist(),
    "memmap": None,
    "matrix": lambda array: array.view(np.matrix) if array.ndim == 2 else array,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.quick_in_cpp
def test_any_layout_gives_the_right_results(backend, layout, tmp_path):
    given = problems.normal([30, 40, 20], 50, bias=True)
    count = iter(range(100))

    def change(array):
        if layout == "memmap":
            path = tmp_path / f"{next(count)}.bin"
            array.tofile(path)
            return np.memmap(path, dtype="float64", mode="r", shape=array.shape)
        if array.ndim == 1:
            return change(array[:, None])[:, 0] if layout not in ("nested lists", "matrix") else array.tolist()
        return LAYOUTS[layout](array)

    net = hk.LinearNetwork([change(w) for w in given.weights], [change(b) for b in given.biases])
    X, Y = change(given.X), change(given.Y)
    kept = np.array(X)
    loss, plain, plain_net = hk.SquaredLoss(X, Y), given.loss(), given.network()
    np.testing.assert_array_equal(net.flatten(), plain_net.flatten())
    # The same numbers in the same order, so the same results; misalignment may pick another loop.
    same = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(net.forward(X), plain_net.forward(given.X), **same)
    np.testing.assert_allclose(loss.gradient(net), plain.gradient(plain_net), **same)
    assert loss(net) == pytest.approx(plain(plain_net), rel=1e-13)
    ours, theirs = (one.hessian(two, params=[1]) for one, two in ((loss, net), (plain, plain_net)))
    assert ours.cond() == pytest.approx(theirs.cond(), rel=1e-9)
    run = hk.fit(net, loss, lr=1e-4, max_steps=3)
    expected = hk.fit(plain_net, plain, lr=1e-4, max_steps=3).network.flatten()
    np.testing.assert_allclose(run.network.flatten(), expected, **same)
    np.testing.assert_array_equal(np.array(X), kept)


@pytest.mark.parametrize("native", ["float64", "float32"])
def test_results_are_native_and_contiguous(backend, native):
    swapped = np.dtype(native).newbyteorder("S")
    given = problems.normal([3, 4, 2], 6, bias=True)
    net = hk.LinearNetwork([w.astype(swapped) for w in given.weights])
    X = np.asfortranarray(given.X.astype(swapped))
    loss = hk.SquaredLoss(X, given.Y.astype(swapped))
    for result in (net.forward(X), net.flatten(), net.weights[0], loss.gradient(net)):
        assert result.dtype == np.dtype(native)
        assert result.dtype.isnative
        assert result.flags.c_contiguous


def test_torch_tensors(backend):
    torch = pytest.importorskip("torch")
    given = problems.normal([3, 4, 2], 6, bias=True)
    net = hk.LinearNetwork([torch.tensor(w) for w in given.weights], [torch.tensor(b) for b in given.biases])
    loss = hk.SquaredLoss(torch.tensor(given.X), torch.tensor(given.Y).T.contiguous().T)
    np.testing.assert_allclose(loss.gradient(net), given.loss().gradient(given.network()), rtol=1e-14)


def test_a_torch_tensor_that_requires_grad_is_refused_with_the_way_out():
    torch = pytest.importorskip("torch")
    tensor = torch.ones((6, 3), dtype=torch.float64, requires_grad=True)
    with pytest.raises(TypeError, match=r"^X is a Tensor .*pass X\.detach\(\)\.cpu\(\)\.numpy\(\)"):
        hk.SquaredLoss(tensor, np.ones((6, 2)))
    with pytest.raises(TypeError, match=r"^weights\[0\] is a Parameter .*weights\[0\]\.detach\(\)"):
        hk.LinearNetwork([torch.nn.Linear(3, 4).weight])
    with pytest.raises(TypeError, match=r"^X has dtype int64"):
        hk.SquaredLoss(torch.ones((6, 3), dtype=torch.int64), np.ones((6, 2)))
