"""The case that started the package, end to end."""

from __future__ import annotations

import numpy as np
import pytest

import hesskern as hk


@pytest.fixture(scope="module")
def case():
    return hk.datasets.two_layer_case()


@pytest.fixture(scope="module")
def trained(case):
    loss = hk.SquaredLoss(case.X, case.Y)
    return {
        name: hk.fit(case.network, loss, lr=case.lr, max_steps=10_000, rtol=case.rtol, backend=name)
        for name in ("cpp", "numba", "numpy")
    }


def test_the_data(case):
    assert case.X.shape == case.Y.shape == (5, 5)
    assert case.network.widths == (5, 100, 5)
    assert case.X.dtype == np.float64
    # The post makes x with singular values from 1 to 10.
    np.testing.assert_allclose(np.linalg.svd(case.X, compute_uv=False), np.linspace(10, 1, 5), rtol=1e-12)
    # The initial weights are drawn by the legacy generator, whose stream NumPy keeps forever.
    state = np.random.RandomState(0)
    np.testing.assert_array_equal(case.network.weights[0], state.normal(0, 1, size=(5, 100)).T)
    np.testing.assert_array_equal(case.network.weights[1], state.normal(0, 1, size=(100, 5)).T)


def test_training_takes_the_steps_of_the_post(backend, case, trained):
    run = trained[backend.name]
    losses = run.history["loss"]
    assert (run.status, run.steps) == ("converged", 608)
    assert len(losses) == 608
    assert losses[-1] <= 1e-20 * losses[0] < losses[-2]
    assert losses[-1] / losses[0] == pytest.approx(9.53e-21, rel=0.01)
    assert losses.max() / losses[0] == pytest.approx(9.5, rel=0.01)  # the catapult
    assert run.history["loss"][0] == pytest.approx(hk.SquaredLoss(case.X, case.Y)(case.network), rel=1e-13)


def test_the_two_condition_numbers(backend, case, trained):
    net = trained[backend.name].network
    H = hk.SquaredLoss(case.X, case.Y).hessian(net, params=[1])
    condition = H.condition()
    assert H.cond() == pytest.approx(174.0739405, rel=1e-6)
    assert (condition.rank, condition.size) == (25, 500)
    assert condition.gap > 1e3
    # The formula as posted: samples taken to be columns.
    as_posted = hk.SquaredLoss(case.X.T, case.Y.T).hessian(net, params=[1])
    assert as_posted.cond() == pytest.approx(5345.8106, rel=1e-6)
    wx = net.weights[0] @ case.X
    values = np.linalg.svd(wx, compute_uv=False)[:5]
    assert (values[0] / values[4]) ** 2 == pytest.approx(5345.8106, rel=1e-6)


def test_expected_values_are_what_comes_out(case, trained):
    net = trained["cpp"].network
    H = hk.SquaredLoss(case.X, case.Y).hessian(net, params=[1])
    assert trained["cpp"].steps == case.expected["epochs"]
    assert H.cond() == pytest.approx(case.expected["cond"], rel=1e-6)
    assert H.rank() == case.expected["rank"]
    posted = hk.SquaredLoss(case.X.T, case.Y.T).hessian(net, params=[1])
    assert posted.cond() == pytest.approx(case.expected["cond_as_posted"], rel=1e-6)


def test_the_dense_block(backend, case, trained):
    net = trained["cpp"].network
    dense = hk.SquaredLoss(case.X, case.Y).hessian(net, params=[1]).toarray()
    activations = case.X @ net.weights[0].T
    expected = np.zeros((500, 500))
    for output in range(5):
        part = slice(100 * output, 100 * output + 100)
        expected[part, part] = np.einsum("na,nb->ab", activations, activations)
    np.testing.assert_allclose(dense, expected, rtol=0, atol=1e-12 * expected.max())
    assert np.linalg.matrix_rank(dense, hermitian=True) == 25


def test_autograd_gives_the_same_block(case, trained):
    torch = pytest.importorskip("torch")
    net = trained["cpp"].network
    X, Y, W1, W2 = (torch.tensor(array) for array in (case.X, case.Y, *net.weights))

    def value(second):
        return ((torch.nn.functional.linear(torch.nn.functional.linear(X, W1), second) - Y) ** 2).sum() / 2

    block = torch.autograd.functional.hessian(value, W2).reshape(500, 500).numpy()
    dense = hk.SquaredLoss(case.X, case.Y).hessian(net, params=[1]).toarray()
    assert np.abs(dense - block).max() <= 1e-12 * np.abs(block).max()


@pytest.mark.parametrize("name", ["cpp", "numba"])
def test_backends_walk_the_same_path(trained, name):
    ours, reference = trained[name], trained["numpy"]
    np.testing.assert_allclose(ours.network.flatten(), reference.network.flatten(), rtol=0, atol=1e-10)
    early = slice(0, 400)  # later losses are rounding squared
    np.testing.assert_allclose(ours.history["loss"][early], reference.history["loss"][early], rtol=1e-6)
