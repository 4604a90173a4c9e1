"""Forward and backward in both forms: predictions and gradients are those of the plain loops."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from looped import each

pytest.importorskip("numba")
from hesskern.backends.numba_kernels import layout, passes


def arguments(problem):
    widths = np.array([problem.X.shape[1], *map(len, problem.weights)])
    made = layout.make_layout(widths, np.array([bias is not None for bias in problem.biases]), 8)
    return made, oracle.flatten(problem.weights, problem.biases)


@each("seed", problems.GENERAL[::3])
def test_predictions_and_gradients(seed):
    problem = problems.general(seed)
    made, flat = arguments(problem)
    found = passes.predictions(made, flat, problem.X)
    wanted = oracle.forward(problem.weights, problem.biases, problem.X).astype(float)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
    squared, gradient = passes.value_and_gradient(made, flat, problem.X, np.empty(0), problem.Y, 1.0, True)
    plain = problems.Problem(problem.weights, problem.biases, problem.X, problem.Y)
    value, slope = oracle.loss_and_gradient(flat, plain)
    assert squared == pytest.approx(2 * value, rel=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-12 * max(1.0, np.abs(slope).max()))


def test_few_and_many_samples_take_different_forms():
    made, _ = arguments(problems.normal([3, 4, 2], 2))
    assert not passes.product_is_cheaper(made, 2, True)
    assert passes.product_is_cheaper(made, 10**4, True)


@pytest.mark.parametrize("samples", [2, 400])
def test_both_forms_give_the_same_gradient(samples):
    problem = problems.normal([3, 4, 2], samples, bias=True)
    made, flat = arguments(problem)
    _, slope = oracle.loss_and_gradient(flat, problem)
    _, gradient = passes.value_and_gradient(made, flat, problem.X, np.empty(0), problem.Y, 1.0, True)
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-12 * np.abs(slope).max())
