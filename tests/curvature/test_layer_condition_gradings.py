"""Condition numbers of blocks whose data and weights are graded on every side, against rational arithmetic and mpmath.

The generator and the truth are those of the attack suite (tests/attack/gradings.py); here are fixed seeds.
"""

from __future__ import annotations

import math
import warnings

import mpmath
import numpy as np
import pytest
from attack import gradings

import hesskern as hk


def condition(problem, layer, backend):
    net = hk.LinearNetwork(problem.weights, problem.biases)
    Y = np.zeros((len(problem.X), net.widths[-1]), problem.X.dtype)
    loss = hk.SquaredLoss(problem.X, Y, weight_decay=problem.weight_decay, backend=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return loss.hessian(net, [layer]).condition()


def judge(found, truth):
    """What is wrong with an answer; empty where nothing is."""
    largest, smallest, rank = truth
    doubtful = found.uncertainty > 0.1 or found.gap < 1e3
    if found.rank != rank:
        # What float32 data do not determine counts as zero; float64 arithmetic may know better, and the gap shows it.
        doubtful = doubtful or (found.tolerance > 1e-8 and found.gap < 1e8)
        return "" if doubtful else f"rank {found.rank} for {rank}, gap {found.gap:.1e}"
    if rank == 0:
        return ""
    with mpmath.workdps(50):
        value = largest / smallest
        if math.isinf(found.value):
            return "" if value > 1e308 else f"infinite for {value}"
        error = float(abs(found.value / value - 1))
    return "" if doubtful or error <= 10 * found.uncertainty else f"error {error:.1e} beside {found.uncertainty:.1e}"


@pytest.mark.parametrize("name", ["cpp", "numba", "numpy"])
@pytest.mark.parametrize("start", range(0, 120, 20))
@pytest.mark.quick_in_cpp
def test_every_side_graded(start, name):
    wrong = []
    for seed in range(start, start + 20):
        problem = gradings.draw(seed)
        for layer in {seed % len(problem.weights), 0}:
            fault = judge(condition(problem, layer, name), gradings.truth(problem, layer))
            if fault:
                wrong.append(f"seed {seed}, layer {layer}: {problem}: {fault}")
    assert not wrong


@pytest.mark.long
@pytest.mark.parametrize("name", ["cpp", "numba", "numpy"])
def test_every_side_graded_at_length(name):
    for seed in range(1000, 2000):
        problem = gradings.draw(seed)
        layer = seed % len(problem.weights)
        fault = judge(condition(problem, layer, name), gradings.truth(problem, layer))
        assert not fault, (seed, layer, str(problem))


SIDES = ["samples", "features", "hidden units below", "hidden units above", "outputs"]


@pytest.mark.parametrize("name", ["cpp", "numba", "numpy"])
@pytest.mark.parametrize("decades", [1, 6, 40])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("samples", [3, 4, 11])
def test_one_side_graded_keeps_all_digits(samples, side, decades, name):
    """Orthogonal factors, one side scaled: nothing but rounding units is lost, and the uncertainty says as little."""
    rng = np.random.default_rng([41, samples, SIDES.index(side), decades])

    def orthogonal(rows, columns):
        q = np.linalg.qr(rng.standard_normal((max(rows, columns),) * 2))[0][:rows, :columns]
        return q + 0.1 * rng.standard_normal((rows, columns))

    def scales(count):
        return rng.permutation(10.0 ** np.linspace(-decades, decades, count))

    X, W1, W2 = orthogonal(samples, 4), orthogonal(4, 4), orthogonal(4, 4)
    if side == "samples":
        X = X * scales(samples)[:, None]
    if side == "features":
        X = X * scales(4)
    if side == "hidden units below":
        W1 = W1 * scales(4)[:, None]
    if side == "hidden units above":
        W2 = W2 * scales(4)
    if side == "outputs":
        W2 = W2 * scales(4)[:, None]
    problem = gradings.GradedProblem(X, [W1, W2], [None, None], 0.0, "one side", decades)
    for layer in (0, 1):
        found, (largest, smallest, rank) = condition(problem, layer, name), gradings.truth(problem, layer)
        assert found.rank == rank
        assert found.uncertainty < 1e-11
        with mpmath.workdps(50):
            assert float(abs(found.value / (largest / smallest) - 1)) <= min(1e-12, 10 * found.uncertainty)


EXTREMES = {
    "features 1 and 1e-160": ([1.0, 1e-160], [1.0, 1.0]),
    "features and weights over 1e200": ([1e100, 1e-100], [1e100, 1e-100]),
    "beyond 1e-308 in the product": ([1.0, 1e-200], [1.0, 1e-200]),
    "denormal": ([1.0, 5e-324], [1.0, 1.0]),
    "largest and smallest": ([1e300, 1e-300], [1e300, 1e-300]),
    "huge": ([1e300, 1e299], [1e300, 1e299]),
    "tiny": ([1e-300, 1e-299], [1e-300, 1e-299]),
    "opposite": ([1e300, 1e-300], [1e-300, 1e300]),
}


@pytest.mark.parametrize("name", ["cpp", "numba", "numpy"])
@pytest.mark.parametrize("what", EXTREMES)
@pytest.mark.parametrize("layer", [0, 1])
def test_beyond_the_range_of_floats(layer, what, name):
    data, weights = EXTREMES[what]
    problem = gradings.GradedProblem(np.diag(data), [np.diag(weights), np.eye(2)], [None, None], 0.0, what, 300)
    for turned in (problem, gradings.GradedProblem(problem.X, problem.weights[::-1], [None, None], 0.0, what, 300)):
        found, (largest, smallest, rank) = condition(turned, layer, name), gradings.truth(turned, layer)
        with mpmath.workdps(50):
            value = largest / smallest
            assert found.rank == rank == 4
            assert found.value == pytest.approx(float(value), rel=1e-13)
            assert found.largest == pytest.approx(float(largest), rel=1e-13)
            assert found.smallest == pytest.approx(float(smallest), rel=1e-13)
        assert ("larger than the largest float64" in found.note) == math.isinf(found.value)


@pytest.mark.parametrize("name", ["cpp", "numba", "numpy"])
def test_weight_decay_beside_eigenvalues_beyond_the_range(name):
    problem = gradings.GradedProblem(np.diag([1e160, 1.0]), [np.eye(2)], [None], 1e200, "decay", 160)
    found = condition(problem, 0, name)
    assert (found.value, found.largest, found.smallest) == (pytest.approx(1e120, rel=1e-13), math.inf, 1e200)


@pytest.mark.parametrize("name", ["cpp", "numpy"])
def test_what_rounding_errors_hide_is_not_called_certain(name):
    """One feature is the sum of two others up to rounding, a fourth is far below these errors."""
    rng = np.random.default_rng(43)
    base = rng.integers(-50, 50, (6, 2)) / 7.0
    X = np.column_stack([base, base.sum(1), 1e-40 * rng.standard_normal(6)])
    W1 = rng.standard_normal((4, 4))
    problem = gradings.GradedProblem(X, [W1, rng.standard_normal((2, 4))], [None, None], 0.0, "hidden", 40)
    for layer in (0, 1):
        found = condition(problem, layer, name)
        assert found.uncertainty > 0.1 or found.gap < 1e3
        assert found.note
