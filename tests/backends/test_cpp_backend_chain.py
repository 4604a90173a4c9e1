"""From the gradient of predictions to those of parameters and samples: the definition, and wrong arguments."""

from __future__ import annotations

import numpy as np
import problems
import pytest
from spoiled import REFUSED, SPOILED, SPOILED_2D, good, spoil

from hesskern import _core, backends

SHAPES = {
    "one layer": ([3, 2], 4),
    "one layer, many samples": ([3, 2], 900),
    "samples go through": ([7, 5, 9, 3], 4),
    "samples go through in chunks": ([40, 33, 41, 50], 1100),
    "the product is taken": ([3, 50, 70, 2], 700),
    "a bottleneck": ([9, 1, 8], 70),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_definition(backend, dtype, close, shape, bias):
    widths, samples = SHAPES[shape]
    problem = problems.normal(widths, samples, bias=bias)
    net, delta = problem.network(), np.random.default_rng(0).standard_normal((samples, widths[-1]))
    expected = backends.get("numpy").backward(net, problem.X, delta, parameters=True, samples=True)
    given = problem.network(dtype), problem.X.astype(dtype), delta.astype(dtype)
    flat, below = backend.backward(*given, parameters=True, samples=True)
    assert (flat.dtype, below.dtype) == (dtype, dtype)
    close(flat, expected[0], dtype)
    close(below, expected[1], dtype)
    alone = backend.backward(*given, parameters=True, samples=False)
    assert alone[1] is None
    close(alone[0], expected[0], dtype)
    alone = backend.backward(*given, parameters=False, samples=True)
    assert alone[0] is None
    close(alone[1], expected[1], dtype)


def test_it_is_the_derivative_of_the_predictions(backend):
    """By differences: the predictions are polynomials of low degree in each parameter, linear ones."""
    problem = problems.small(8)
    net, X = problem.network(), problem.X.astype(float)
    delta = np.random.default_rng(0).integers(-3, 4, (len(X), net.widths[-1])).astype(float)
    flat, below = backend.backward(net, X, delta, parameters=True, samples=True)
    theta = net.flatten()

    def value(theta, X):
        moved = net.unflatten(theta)
        return float(np.vdot(delta, backend.forward(moved, X)))

    for k in range(len(theta)):
        step = np.zeros_like(theta)
        step[k] = 1.0
        assert value(theta + step, X) - value(theta, X) == pytest.approx(flat[k], abs=1e-9)
    for index in np.ndindex(X.shape):
        step = np.zeros_like(X)
        step[index] = 1.0
        assert value(theta, X + step) - value(theta, X) == pytest.approx(below[index], abs=1e-9)


@pytest.mark.parametrize("how", SPOILED_2D)
@pytest.mark.parametrize("target", ["X", "delta", "below"])
def test_spoiled_arguments_are_refused(target, how):
    if (target, how) == ("below", "None"):
        pytest.skip("None is allowed here")
    a = good()
    arrays = {"X": a["X"], "delta": np.zeros((5, 2)), "below": np.zeros_like(a["X"])}
    arrays[target] = spoil(how, arrays[target])
    with pytest.raises(REFUSED):
        _core.backward(a["weights"], a["biases"], arrays["X"], arrays["delta"], None, arrays["below"])


@pytest.mark.parametrize(
    ("target", "how"),
    [(target, how) for target in ("features", "probabilities", "out") for how in SPOILED_2D]
    + [("scale", how) for how in SPOILED]
    + [("v", how) for how in SPOILED_2D if "column" not in how],  # another number of columns: out does not fit
)
def test_spoiled_softmax_arguments_are_refused(target, how):
    arrays = {"features": np.ones((5, 3)), "probabilities": np.full((5, 2), 0.5), "scale": np.ones(5)}
    last = {"v": np.ones((8, 4)), "out": np.zeros((8, 4))}
    square = np.zeros((8, 8))
    if target in arrays:
        arrays[target] = spoil(how, arrays[target])
    else:
        last[target] = spoil(how, last[target])
    with pytest.raises(REFUSED):
        _core.softmax_product(*arrays.values(), True, *last.values())
    if target != "v":
        with pytest.raises(REFUSED):
            _core.softmax_dense(*arrays.values(), True, spoil(how, square) if target == "out" else square)
