"""The squared loss of samples that were reduced while they were read, against that of all of them."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest

pytest.importorskip("torch")

from hesskern.backends.data import Data
from hesskern.torch.reduced_loss import ReducedLoss


def reduced(problem, scale):
    """The triangle of ``[X Y]`` by NumPy's QR: its first rows, and what they leave out of the loss."""
    R = np.linalg.qr(np.hstack([problem.X, problem.Y]))[1]
    inputs = problem.X.shape[1]
    rest = R[inputs:, inputs:]
    data = Data(R[:inputs, :inputs].copy(), None, R[:inputs, inputs:].copy(), 0.5 * float(np.sum(rest**2)))
    return ReducedLoss(data, len(problem.X), scale)


@pytest.mark.parametrize(("kind", "scale"), [("half_sum", 1.0), ("sum", 2.0), ("mean", 2.0 / 24)])
def test_it_is_the_loss_of_all_samples(kind, scale):
    problem = problems.normal([3, 4, 2], 12, kind=kind)
    net, loss = problem.network(), reduced(problem, scale)
    theta = oracle.flatten(problem.weights, problem.biases)
    value, gradient = oracle.loss_and_gradient(theta, problem)
    found = loss.value_and_gradient(net)
    assert found[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(found[1], gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())
    H = oracle.hessian(theta, problem)
    np.testing.assert_allclose(loss.hessian(net).toarray(), H, rtol=0, atol=1e-12 * np.abs(H).max())
    assert (loss.num_samples, loss.scale) == (12, scale) and loss.cpu() is loss


def test_another_dtype_keeps_the_samples_for_curvature():
    problem = problems.normal([3, 2], 8)
    loss = reduced(problem, 1.0)
    narrow = loss.astype(np.dtype("float32"))
    assert narrow.X.dtype == np.float32 and narrow.num_samples == 8
    np.testing.assert_array_equal(narrow.reduction(bias=False).X, loss.reduction(bias=False).X)
    assert narrow.data(bias=False, reduced=True).X.dtype == np.float32
