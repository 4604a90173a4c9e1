"""Networks become PyTorch modules again, with the names of the module they came from."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import hesskern as hk

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch_chains import Wrapped, check  # noqa: E402

import hesskern.torch  # noqa: E402

LinearNetwork = hk.LinearNetwork


def test_names_that_no_sequential_has():
    shared = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 2)})
    check(
        Wrapped(lambda m, x: m.of["b"](m.middle(m.of["a"](x))), of=shared, middle=nn.Linear(3, 3)),
        torch.randn(4, 3),
        ["of.a.weight", "of.a.bias", "middle.weight", "middle.bias", "of.b.weight", "of.b.bias"],
    )


def test_names_go_where_the_network_goes(tmp_path):
    net = LinearNetwork.from_torch(nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Linear(4, 2)))
    net.save(tmp_path / "net.npz")
    same = [
        LinearNetwork.load(tmp_path / "net.npz"), pickle.loads(pickle.dumps(net)), net.unflatten(net.flatten()),
        net.cpu(),
    ]  # fmt: skip
    assert {each.parameter_names for each in same} == {("1.weight", "1.bias", "2.weight", "2.bias")}
    rng = np.random.default_rng(0)
    loss = hk.SquaredLoss(rng.standard_normal((9, 3)), rng.standard_normal((9, 2)))
    assert hk.fit(net, loss, lr=1e-3, max_steps=2).network.parameter_names == net.parameter_names
    assert hk.fit_ensemble([net], loss, lr=1e-3, max_steps=2).network(0).parameter_names == net.parameter_names
    # Layers are counted as ever; names are the module's.
    whole = loss.hessian(net).toarray()
    np.testing.assert_array_equal(loss.hessian(net, ["1.weight"]).toarray(), whole[:12, :12])
    np.testing.assert_array_equal(loss.hessian(net, [1]).toarray(), whole[16:, 16:])
    with pytest.raises(ValueError, match=r"holds '0.weight'; the network has 1.weight, 1.bias, 2.weight, 2.bias"):
        loss.hessian(net, ["0.weight"])
    why = hk.explain(whole[:12, :12], net, loss)
    assert "params=['1.weight']" in str(why)


@pytest.mark.parametrize(
    "names",
    [("layers.0.weight", "W"), ("a.weight", "a.0.weight"), ("append.weight", "b.weight"), ("b.x", "b.y")],
)
def test_any_names_of_a_module_come_back(names):
    net = LinearNetwork([np.ones((2, 3)), np.ones((1, 2))], names=names)
    module = net.to_torch()
    assert sorted(module.state_dict()) == sorted(names)
    assert module(torch.ones(1, 3)).tolist() == [[6.0]]
    assert LinearNetwork.from_torch(module).parameter_names == names


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match=r"names a, a.b cannot be the names of one module's parameters"):
        LinearNetwork([np.ones((1, 1)), np.ones((1, 1))], names=["a", "a.b"]).to_torch()
    for names in (["a"], "ab", ["a", "a"], ["a", ""], ["a", "b..c"], ["a", 1]):
        with pytest.raises(ValueError, match=r"names"):
            LinearNetwork([np.ones((1, 1)), np.ones((1, 1))], names=names)
