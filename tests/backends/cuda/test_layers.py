"""Layers over flat vectors of many networks at once, on tensors in main memory, against PyTorch's autograd."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hesskern._base.flat_layout import FlatLayout  # noqa: E402
from hesskern.backends.cuda.layers import activations, gradient, residual, split  # noqa: E402

LAYOUT = FlatLayout.of_widths((3, 4, 2), (True, False))
COUNT, N = 5, 7


@pytest.fixture
def data():
    """Parameters, samples, ones and targets of some networks."""
    made = torch.Generator().manual_seed(0)
    sizes = ((COUNT, LAYOUT.size), (COUNT, N, 3), (COUNT, N), (COUNT, N, 2))
    return [torch.randn(size, generator=made, dtype=torch.float64) for size in sizes]


def test_vectors_fall_apart_into_layers(data):
    theta = data[0]
    layers = split(LAYOUT, theta)
    assert [tuple(weight.shape) for weight in layers.weights] == [(COUNT, 4, 3), (COUNT, 2, 4)]
    assert layers.biases[0].shape == (COUNT, 4) and layers.biases[1] is None
    assert torch.equal(layers.weights[0][2], theta[2, :12].reshape(4, 3))
    assert torch.equal(layers.biases[0][2], theta[2, 12:16])
    assert layers.weights[0].data_ptr() == theta.data_ptr()  # views


def test_predictions_are_those_of_each_network(data):
    theta, X, column, Y = data
    layers = split(LAYOUT, theta)
    values, E = residual(layers, X, column, Y)
    assert len(values) == 3 and torch.equal(values[-1] - Y, E)
    for k in range(COUNT):
        hidden = X[k] @ layers.weights[0][k].T + torch.outer(column[k], layers.biases[0][k])
        torch.testing.assert_close(values[1][k], hidden)
        torch.testing.assert_close(values[2][k], hidden @ layers.weights[1][k].T)


def test_gradients_are_autograds(data):
    theta, X, column, Y = data
    theta.requires_grad_()
    layers = split(LAYOUT, theta)
    values = activations(layers, X, column)
    E = values[-1] - Y
    (wanted,) = torch.autograd.grad(0.75 * E.square().sum(), theta)
    found = gradient(layers, values, E, column, 1.5)
    torch.testing.assert_close(found.detach(), wanted)
