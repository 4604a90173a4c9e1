"""The small matrices that determine the curvature, against the products that define them."""

from __future__ import annotations

import dataclasses

import numpy as np
import problems
import pytest
from looped import each
from witness import relative

from hesskern.backends.data import Data
from hesskern.backends.protocol import PlainLayers
from hesskern.curvature.layer_factors import Factors


def factors_of(problem, scale=1.0):
    """Factors of a problem's own samples, not reduced."""
    return Factors(
        PlainLayers(tuple(problem.weights), tuple(problem.biases)), Data(problem.X, None, problem.Y, 0.0), scale
    )


def map_of(weights, size):
    """The product of weights, the first applied first; the identity of none."""
    product = np.eye(size)
    for weight in weights:
        product = weight @ product
    return product


@each("seed", problems.GENERAL[::4])
def test_they_are_products_of_weights_and_samples(seed):
    problem = problems.general(seed)
    factors = factors_of(problem, 0.5)
    activations, weights = [problem.X], problem.weights
    for weight, bias in zip(weights, problem.biases, strict=True):
        activations.append(activations[-1] @ weight.T + (0 if bias is None else bias))
    E = activations[-1] - problem.Y
    relative(factors.residual.value, E)
    above = [map_of(weights[layer + 1 :], len(weights[layer])) for layer in range(len(weights))]
    for layer, found in enumerate(factors.above):
        assert (found is None) == (layer == len(weights) - 1)
        inputs = activations[layer]
        if factors.has_bias:
            inputs = np.column_stack([inputs, np.ones(len(inputs))])
        relative(factors.inputs[layer].value, inputs)
        if found is not None:
            relative(found.value, above[layer])
        for lower in range(layer + 1):
            relative(factors.output_gram(layer, lower).value, 0.5 * above[layer].T @ above[lower])
            relative(factors.input_gram(layer, lower).value, inputs.T @ factors.inputs[lower].value)
            relative(
                factors.residual_gram(layer, lower).value, 0.5 * (E @ above[layer]).T @ factors.inputs[lower].value
            )
            between = factors.between(lower, layer)
            if layer > lower + 1:
                relative(between.value, map_of(weights[lower + 1 : layer], len(weights[lower])))
            else:
                assert between is None
    assert factors.ordinary


@pytest.mark.parametrize("power", [-400, 300])
def test_factors_that_squares_would_overflow_are_those_of_the_moderate_problem(power):
    """``X / 2**power`` and the first weight times ``2**power``: the same predictions."""
    problem = problems.normal([3, 4, 2], 6)
    scaled = dataclasses.replace(
        problem, X=np.ldexp(problem.X, -power), weights=[np.ldexp(problem.weights[0], power), problem.weights[1]]
    )
    found, wanted = factors_of(scaled), factors_of(problem)
    assert wanted.ordinary and not found.ordinary
    relative(found.residual.value, wanted.residual.value)
    relative(found.input_gram(1, 1).value, wanted.input_gram(1, 1).value)
    gram = found.input_gram(0, 0)
    relative(np.ldexp(gram.matrix, gram.exponent + 2 * power), wanted.input_gram(0, 0).value)


def test_the_jacobian_of_a_layer():
    problem = problems.normal([3, 4, 2], 6, bias=True)
    top, below = factors_of(problem).jacobian(0, slice(0, 3))
    jacobian = np.einsum("or,ns->onrs", top, below).reshape(12, 12)
    step = 1e-3
    columns = []
    for k in range(12):  # predictions are affine in the parameters of one layer
        moved = problem.weights[0].copy().ravel()
        moved[k] += step
        there = dataclasses.replace(problem, weights=[moved.reshape(4, 3), problem.weights[1]])
        change = there.network().forward(problem.X) - problem.network().forward(problem.X)
        columns.append((change / step).T.ravel())
    relative(jacobian, np.array(columns).T, 1e-11)
