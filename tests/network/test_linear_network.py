"""LinearNetwork: a value with the layout of PyTorch."""

from __future__ import annotations

import pickle

import numpy as np
import oracle
import problems
import pytest
from looped import each

import hesskern as hk


@each("seed", range(40))
def test_forward_is_the_definition(backend, close, dtype, seed):
    problem = problems.small(seed)
    expected = oracle.forward(problem.weights, problem.biases, problem.X)
    found = problem.network(dtype).forward(problem.X.astype(dtype))
    assert found.dtype == dtype
    close(found, expected, dtype)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("widths", "samples"), [([70, 130, 90], 150), ([3, 300, 4], 2000), ([40, 5, 50], 500)])
def test_forward_of_large_networks_matches_float64_products(backend, close, dtype, widths, samples, bias):
    problem = problems.normal(widths, samples, bias=bias)
    expected = problem.X
    for weight, shift in zip(problem.weights, problem.biases, strict=True):
        expected = np.einsum("ni,oi->no", expected, weight) + (0 if shift is None else shift)
    close(problem.network(dtype).forward(problem.X.astype(dtype)), expected, dtype)


def test_shape_names_and_counts():
    net = hk.LinearNetwork([np.ones((3, 2)), np.ones((4, 3)), np.ones((1, 4))], [np.ones(3), None, np.ones(1)])
    assert net.widths == (2, 3, 4, 1)
    assert net.depth == 3
    assert net.num_parameters == 6 + 3 + 12 + 4 + 1
    assert net.parameter_names == ("0.weight", "0.bias", "1.weight", "2.weight", "2.bias")
    assert net.has_bias
    assert net.dtype == np.float64


def test_flatten_is_row_major_weight_then_bias():
    net = hk.LinearNetwork([np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[7.0, 8.0]])], [np.array([5.0, 6.0]), None])
    np.testing.assert_array_equal(net.flatten(), np.arange(1.0, 9.0))


@each("seed", range(8))
def test_unflatten_inverts_flatten(dtype, seed):
    problem = problems.small(seed)
    net = problem.network(dtype)
    again = net.unflatten(net.flatten())
    assert again.widths == net.widths
    for before, after in zip((*net.weights, *net.biases), (*again.weights, *again.biases), strict=True):
        assert (before is None) == (after is None)
        if before is not None:
            np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(net.flatten(), oracle.flatten(problem.weights, problem.biases))


def test_a_network_is_a_value():
    given = np.ones((2, 2))
    bias = np.ones(2)
    net = hk.LinearNetwork([given], [bias])
    given[0, 0] = bias[0] = 5.0
    assert net.weights[0][0, 0] == 1.0
    assert net.biases[0][0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        net.weights[0][0, 0] = 2.0


def test_unflatten_does_not_follow_the_vector():
    net = hk.LinearNetwork([np.ones((2, 2))])
    vector = np.arange(4.0)
    again = net.unflatten(vector)
    vector[:] = -1.0
    np.testing.assert_array_equal(again.flatten(), np.arange(4.0))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_save_and_pickle_keep_everything(tmp_path, dtype, seed):
    net = problems.small(seed).network(dtype)
    path = tmp_path / "net.npz"
    net.save(path)
    for again in (hk.LinearNetwork.load(path), pickle.loads(pickle.dumps(net))):
        assert again.dtype == net.dtype
        assert again.parameter_names == net.parameter_names
        np.testing.assert_array_equal(again.flatten(), net.flatten())


def test_random_is_seeded_and_scaled():
    first, second = (hk.LinearNetwork.random([50, 400, 3], seed=7, bias=True) for _ in range(2))
    np.testing.assert_array_equal(first.flatten(), second.flatten())
    assert not np.array_equal(first.flatten(), hk.LinearNetwork.random([50, 400, 3], seed=8, bias=True).flatten())
    # Variance 1/in from 20000 draws: its standard error is 1 %.
    assert np.var(first.weights[0]) * 50 == pytest.approx(1.0, rel=0.05)
    assert all(bias is not None for bias in first.biases)
    assert hk.LinearNetwork.random([2, 2], seed=0, dtype=np.float32).dtype == np.float32


def test_repr_says_what_it_is():
    assert repr(hk.LinearNetwork.random([5, 100, 5], seed=0)) == (
        "LinearNetwork(5-100-5, no bias, float64, 1000 parameters)"
    )


def test_a_network_shares_no_memory_with_a_tensor():
    torch = pytest.importorskip("torch")
    weight = torch.ones((2, 3), dtype=torch.float64)
    net = hk.LinearNetwork([weight])
    other = net.unflatten(weight.reshape(-1))
    weight += 1
    assert net.weights[0].max() == other.weights[0].max() == 1
