"""Shifted Hessians are called definite exactly where their eigenvalues say so, by structure and by the dense matrix."""

from __future__ import annotations

import numpy as np
import problems
from looped import each
from witness import autograd, positions

from hesskern.curvature.shifted import DenseShifted, TwoLayers

ENDS = [(6, 9, 5), (3, 4, 7), (7, 3, 2), (4, 7, 3), (1, 1, 1)]
PARTS = [None, ["0.weight", "1.weight"], ["0.bias", "1.weight"], ["0.weight", "1.bias"], ["0.bias", "1.bias"]]


def agree(test, matrix, rng):
    """Compare with the eigenvalues of the dense matrix, for shifts on both sides; return how often it can say."""
    answers = 0
    for sign in (1, -1):
        values, vectors = np.linalg.eigh(sign * matrix)
        for k in (0, 1, 3):
            k = min(k, len(values) - 1)
            taken = np.zeros((1, len(values)))
            if k:
                noise = 1e-9 * rng.standard_normal((len(values), k))
                taken = np.linalg.qr(vectors[:, len(values) - k :] + noise)[0].T
            push = 2.0 * abs(values).max() + 1.0
            pushed = sign * matrix - push * taken.T @ taken
            largest = np.linalg.eigvalsh(pushed)[-1]
            for off in (0.3, 1e-6, -1e-6, -0.2):
                shift = largest + off
                answer = test.is_definite(sign, shift, taken, push)
                if answer is not None and (shift > 0 or test.size == len(matrix)):
                    assert answer == (off > 0), (sign, k, off)
                    answers += 1
    return answers


@each("widths", ENDS)
@each("names", PARTS)
@each("gauss_newton", [False, True])
def test_two_layers(widths, names, gauss_newton):
    problem = problems.normal(list(widths), 9, bias=True, kind="mean")
    H = problem.loss().hessian(problem.network(), names)
    H = H.gauss_newton() if gauss_newton else H
    matrix = autograd(problem)[int(gauss_newton)]
    selected = slice(None) if names is None else positions(problem, names)
    matrix = matrix[selected][:, selected]
    test = TwoLayers(H._factors, H.parts, H._mode)
    assert agree(test, matrix, np.random.default_rng(0)) >= 4
    assert np.linalg.eigvalsh(matrix)[0] >= -test.lower_bound * (1 + 1e-12) - 1e-12
    outputs, units = problem.weights[1].shape
    chosen = names or ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert test.size == outputs * (units * ("1.weight" in chosen) + ("1.bias" in chosen))


@each("widths", [*ENDS, (5, 4, 6, 3), (3, 5, 5, 5, 2)])
@each("gauss_newton", [False, True])
def test_the_dense_matrix_after_all_reductions(backend, widths, gauss_newton):
    problem = problems.normal(list(widths), 9, bias=True, kind="mean")
    H = problem.loss().hessian(problem.network())
    H = H.gauss_newton() if gauss_newton else H
    matrix = autograd(problem)[int(gauss_newton)]
    H._errors.decomposed = H._factors
    test = DenseShifted(H._factors, H.parts, H._mode, H._errors.residual_error, backend)
    assert test.size <= len(matrix)
    assert agree(test, matrix, np.random.default_rng(0)) >= 4
    assert np.linalg.eigvalsh(matrix)[0] >= -test.lower_bound * (1 + 1e-12) - 1e-12


def test_a_shift_inside_the_block_that_is_eliminated():
    problem = problems.normal([4, 7, 3], 9)
    H = problem.loss().hessian(problem.network())
    test = TwoLayers(H._factors, H.parts, "full")
    block = np.linalg.eigvalsh(autograd(problem)[0][:28, :28])
    assert test.is_definite(1, 0.5 * (block[-1] + block[-2]), np.zeros((1, 49)), 1.0) is None
    assert test.is_definite(-1, block[-1], np.zeros((1, 49)), 1.0) is not None


def test_zeros_that_were_left_out_are_above_a_negative_shift(backend, monkeypatch):
    monkeypatch.setattr("hesskern.curvature.deep_problem._LARGE", 0)  # ranks are looked for however small it is
    problem = problems.normal([5, 4, 6, 3], 2)
    H = problem.loss().hessian(problem.network())
    H._errors.decomposed = H._factors
    test = DenseShifted(H._factors, H.parts, "full", H._errors.residual_error, backend)
    assert test.size < H.shape[0]
    assert test.is_definite(1, -1.0, np.zeros((1, H.shape[0])), 1.0) is False
