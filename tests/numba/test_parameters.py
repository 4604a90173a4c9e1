"""Weights as users of jitted code hold them: lists, tuples, missing biases, any memory layout."""

from __future__ import annotations

import numpy as np
import oracle
import problems
import pytest
from looped import each

numba = pytest.importorskip("numba")
from jitted_arguments import arguments  # noqa: E402

import hesskern as hk  # noqa: E402
import hesskern.numba as nb  # noqa: E402


def test_flatten_and_assign_are_inverse():
    weights, X, _, options = arguments(problems.general(3), "float64", "list")
    net = problems.general(3).network()
    flat = nb.flatten(weights, options["biases"])
    np.testing.assert_array_equal(flat, net.flatten())
    nb.assign(weights, np.arange(len(flat), dtype=X.dtype), options["biases"])
    np.testing.assert_array_equal(nb.flatten(weights, options["biases"]), np.arange(len(flat)))
    with pytest.raises(ValueError, match="flat has the wrong length"):
        nb.assign(weights, flat[1:], options["biases"])


@numba.njit
def with_a_missing_bias(W, V, b, X):
    return nb.forward((W, V), X, (b, None))


def test_biases_of_some_layers_in_a_tuple():
    problem = problems.normal([3, 6, 2], 9, bias=True)
    W, V = problem.weights
    expected = oracle.forward([W, V], [problem.biases[0], None], problem.X)
    np.testing.assert_allclose(with_a_missing_bias(W, V, problem.biases[0], problem.X), expected, rtol=1e-12)


def test_arrays_in_any_layout():
    problem = problems.normal([3, 6, 2], 9)
    weights = tuple(np.asfortranarray(weight) for weight in problem.weights)
    X, Y = np.asfortranarray(problem.X), np.repeat(problem.Y, 2, axis=1)[:, ::2]
    v = np.arange(60.0)[::2]
    expected = hk.SquaredLoss(problem.X, problem.Y).hessian(problem.network()) @ v
    np.testing.assert_allclose(nb.hvp(weights, X, Y, v), expected, rtol=1e-12)
    frozen = tuple(problem.network().weights)  # read-only
    np.testing.assert_allclose(nb.hvp(frozen, X, Y, v), expected, rtol=1e-12)


def run(lr, max_steps, weight_decay=0.0, momentum=0.0):
    """With all arguments each time: a call without some of them is compiled anew."""
    return nb.fit((W, V), X, Y, lr, max_steps, weight_decay=weight_decay, momentum=momentum)


def step(momentum, nesterov, velocity):
    return nb.gd_step((W, V), X, Y, 0.1, momentum=momentum, nesterov=nesterov, velocity=velocity)


W, V, X, Y = np.ones((4, 3)), np.ones((2, 4)), np.ones((5, 3)), np.ones((5, 2))


REFUSED = [
    (lambda: nb.loss((W, V.T.copy()), X, Y), ValueError, "weights do not fit each other"),
    (lambda: nb.loss((W, V), X[:, :2].copy(), Y), ValueError, "X does not fit the first weight"),
    (lambda: nb.loss((W, V), X[:0], Y[:0]), ValueError, "X does not fit the first weight"),
    (lambda: nb.loss((W, V), X, Y[1:]), ValueError, "Y does not fit X"),
    (lambda: nb.loss((W, V), X, X), ValueError, "Y does not fit X"),
    (lambda: nb.loss((W, V), X, Y, (np.ones(4), np.ones(3))), ValueError, "biases do not fit"),
    (lambda: nb.loss((W, V), X, Y, None, 3), ValueError, "kind is not one of"),
    (lambda: nb.hvp((W, V), X, Y, np.ones(19)), ValueError, "v has the wrong length"),
    (lambda: nb.hvp((W, V), X, Y, np.ones(20, np.float32)), ValueError, "v has another dtype"),
    (lambda: nb.block_hessian((W, V), X, Y, 0, 2), ValueError, "is not a layer"),
    (lambda: step(0.5, False, None), ValueError, "velocity is missing"),
    (lambda: step(0.5, False, np.zeros(3)), ValueError, "velocity has the wrong"),
    (lambda: step(0.0, True, None), ValueError, "nesterov is True"),
    (lambda: nb.sgd_epoch((W, V), X, Y, 0.1, np.arange(6), 2), ValueError, "order holds a number"),
    (lambda: nb.sgd_epoch((W, V), X, Y, 0.1, np.arange(5), 0), ValueError, "batch_size is less than 1"),
    (lambda: run(np.full(3, 0.1), 4), ValueError, "lr has fewer rates than max_steps"),
    (lambda: run(np.array([0.1, -0.1]), 2), ValueError, "lr holds a number that is negative"),
    (lambda: run(-0.1, 4), ValueError, "lr is negative or not finite: expected a number >= 0"),
    (lambda: run(np.nan, 4), ValueError, "lr is negative or not finite"),
    (lambda: run(0.1, -1), ValueError, r"max_steps is negative, or beyond 2\*\*40"),
    (lambda: run(0.1, 2**62), ValueError, r"max_steps is negative, or beyond 2\*\*40"),
    (
        lambda: run(0.1, 4, momentum=-0.5),
        ValueError,
        "momentum is negative or not finite",
    ),
    (
        lambda: run(0.1, 4, weight_decay=-1.0),
        ValueError,
        "weight_decay is negative or not finite",
    ),
    (lambda: nb.loss((W, V), X, Y[:, 0]), numba.TypingError, "expected two-dimensional arrays"),
    (lambda: nb.loss((W, V), X[0], Y), numba.TypingError, "expected two-dimensional arrays"),
    (lambda: nb.loss((), X, Y), numba.TypingError, "weights is an empty tuple"),
    (lambda: nb.loss((W, V.astype(np.float32)), X, Y), numba.TypingError, "expected one dtype"),
    (lambda: nb.loss((W, V), X.astype(np.float32), Y), numba.TypingError, "expected one dtype"),
    (lambda: nb.loss(W, X, Y), numba.TypingError, "expected a tuple or a numba.typed.List"),
    (lambda: nb.loss((W, V[0]), X, Y), numba.TypingError, r"expected arrays \(out, in\)"),
    (lambda: nb.loss((W, V.astype(int)), X, Y), numba.TypingError, "of float32 or float64"),
    (lambda: nb.loss((W, V), X, Y, (np.ones(4),)), numba.TypingError, "biases has 1 entries for 2 weights"),
]


@each("number", range(len(REFUSED)), quick=3)
def test_what_does_not_fit_is_refused(number):
    call, error, words = REFUSED[number]
    with pytest.raises(error, match=words):
        call()
    np.testing.assert_array_equal(W, np.ones((4, 3)))
